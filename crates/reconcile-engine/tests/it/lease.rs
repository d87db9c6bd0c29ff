//! Winning and keeping the lease where voters disagree.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reconcile_core::{
    lease::{Ballot, Claimant, Vote, Voter, Voters},
    model::HostName,
    ports::{EffectError, Retry},
};
use reconcile_engine::lease::{Candidate, GiveBack, LeaseError, Wait, keep, release, win};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Three voters; one that is deaf gives no answer.
struct Room {
    began: Instant,
    voters: [(Mutex<Voter>, AtomicBool); 3],
    /// The last voter hears nothing more from the first word on that is no look.
    cut: AtomicBool,
}

impl Room {
    fn new() -> Self {
        Self { began: Instant::now(), voters: Default::default(), cut: AtomicBool::new(false) }
    }
    fn ask(&self, voter: usize, ballot: &Ballot) -> Vote {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap();
        self.voters[voter].0.lock().unwrap().vote(ballot, now)
    }
    fn deafen(&self, voter: usize, deaf: bool) {
        self.voters[voter].1.store(deaf, Ordering::Relaxed);
    }
}

impl Voters for Room {
    fn voters(&self) -> Vec<HostName> {
        ["0", "1", "2"].map(HostName::new).to_vec()
    }
    async fn vote(&self, voter: &HostName, ballot: &Ballot) -> Result<Vote, EffectError> {
        let index: usize = voter.as_str().parse().unwrap();
        if index == 2 && !matches!(ballot, Ballot::Look) && self.cut.load(Ordering::Relaxed) {
            self.deafen(2, true);
        }
        if self.voters[index].1.load(Ordering::Relaxed) {
            return Err(EffectError::new(Some(voter), "ask", "deaf", Retry::Later));
        }
        Ok(self.ask(index, ballot))
    }
    fn carry(&self, _: &Claimant) {}
}

fn claim(token: u64, holder: &str) -> Ballot {
    Ballot::Claim(Claimant { token, holder: holder.to_owned() })
}

async fn wins(room: &Room, wait: Wait) -> Result<u64, LeaseError> {
    let never = CancellationToken::new();
    let held = win(room, "us", wait, || 0.7, |_| {}, &never).await?;
    Ok(held.claimant().token)
}

/// Ten minutes of two operators on real servers found it: two that claim at once may get the same
/// token from different servers, and the one with the majority was refused by the third for good.
#[tokio::test(start_paused = true)]
async fn a_token_that_a_server_gave_to_another_is_not_taken() {
    let room = Room::new();
    // Between our look and our claim: what a look finds is the other's third vote only.
    room.ask(2, &claim(7, "other"));
    room.ask(2, &Ballot::Release(Claimant { token: 7, holder: "other".to_owned() }));
    room.deafen(2, true);
    room.ask(0, &claim(6, "earlier"));
    room.ask(0, &Ballot::Release(Claimant { token: 6, holder: "earlier".to_owned() }));
    let patience = Wait::For(Duration::from_secs(1));
    // As long as it is silent nobody can know.
    let never = CancellationToken::new();
    let held = win(&room, "us", patience, || 0.7, |_| {}, &never).await.unwrap();
    assert_eq!(held.claimant().token, 7);
    room.deafen(2, false);
    tokio::select! {
        () = held.asked().cancelled() => {}
        () = keep(&room, &held) => panic!("it was lost"),
    }
    assert!(held.holds(), "until it is given back");
    let (host, holder) = (HostName::new("2"), "other".to_owned());
    let why = GiveBack::Outdated { host, token: 7, holder, own: 7 };
    assert_eq!(held.give_back(), Some(why), "nobody asked for it");
    release(&room, &held).await;
    assert_eq!(wins(&room, patience).await, Ok(8));
    for voter in 0..3 {
        assert_eq!(room.ask(voter, &Ballot::Look).token, 8, "all obey");
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_refused_by_one_gives_back_what_the_others_granted() {
    /// Hands the token that a claim is about to ask for to another, at one voter.
    struct Race(Room, AtomicBool);
    impl Voters for Race {
        fn voters(&self) -> Vec<HostName> {
            self.0.voters()
        }
        async fn vote(&self, voter: &HostName, ballot: &Ballot) -> Result<Vote, EffectError> {
            if let Ballot::Claim(who) = ballot
                && voter.as_str() == "2"
                && !self.1.swap(true, Ordering::Relaxed)
            {
                self.0.ask(2, &claim(who.token, "other"));
            }
            self.0.vote(voter, ballot).await
        }
        fn carry(&self, _: &Claimant) {}
    }
    let race = Race(Room::new(), AtomicBool::new(false));
    let never = CancellationToken::new();
    let once = Wait::For(Duration::ZERO);
    let refused = win(&race, "us", once, || 0.7, |_| {}, &never).await.unwrap_err();
    assert_eq!(refused, LeaseError::Taken { holder: "other".to_owned() });
    for voter in 0..2 {
        assert_eq!(race.0.ask(voter, &Ballot::Look).left_ms, 0, "given back");
    }
    let patience = Wait::For(Duration::from_secs(20));
    let held = win(&race, "us", patience, || 0.7, |_| {}, &never).await.unwrap();
    assert_eq!(held.claimant().token, 2);
}

#[tokio::test(start_paused = true)]
async fn who_asked_for_it_is_named() {
    let room = Room::new();
    let never = CancellationToken::new();
    let once = Wait::For(Duration::ZERO);
    let held = win(&room, "us", once, || 0.7, |_| {}, &never).await.unwrap();
    assert_eq!(held.give_back(), None);
    room.ask(1, &Ballot::Ask("them".to_owned()));
    tokio::select! {
        () = held.asked().cancelled() => {}
        () = keep(&room, &held) => panic!("it was lost"),
    }
    assert_eq!(held.give_back(), Some(GiveBack::Asked { by: "them".to_owned() }));
}

/// A room of which one voter is cut off: it never answers.
struct Cut(Room);

impl Voters for Cut {
    fn voters(&self) -> Vec<HostName> {
        self.0.voters()
    }
    async fn vote(&self, voter: &HostName, ballot: &Ballot) -> Result<Vote, EffectError> {
        if voter.as_str() == "2" {
            return std::future::pending().await;
        }
        self.0.vote(voter, ballot).await
    }
    fn carry(&self, _: &Claimant) {}
}

/// A cut in the lab found it: renewed only when the last voter had answered or was given up, the lease
/// was not ours for two seconds in nine.
#[tokio::test(start_paused = true)]
async fn a_voter_that_is_cut_off_makes_no_gaps() {
    let room = Cut(Room::new());
    let never = CancellationToken::new();
    let held = win(&room, "us", Wait::Behind, || 0.7, |_| {}, &never).await.unwrap();
    let watched = async {
        for tenth in 0..1200 {
            assert!(held.holds(), "after {tenth} tenths of a second");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = keep(&room, &held) => panic!("it was lost"),
        () = watched => {}
    }
}

/// One that knows that the process `dead` is no more.
async fn heir(room: &Room, wait: Wait) -> Result<u64, LeaseError> {
    let never = CancellationToken::new();
    let candidate = Candidate { holder: "heir", gone: &|holder| holder == "dead" };
    let held = win(room, candidate, wait, || 0.7, |_| {}, &never).await?;
    Ok(held.claimant().token)
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_for_certain_is_not_waited_for() {
    let room = Room::new();
    for voter in 0..3 {
        room.ask(voter, &claim(7, "dead"));
    }
    // Somebody who waits for the lease could not have it before it runs out.
    room.ask(1, &Ballot::Ask("elsewhere".to_owned()));
    let once = Wait::For(Duration::ZERO);
    let taken = LeaseError::Taken { holder: "dead".to_owned() };
    assert_eq!(wins(&room, once).await, Err(taken), "others wait");
    assert_eq!(heir(&room, once).await, Ok(8));
    for voter in 0..3 {
        let dead = Claimant { token: 7, holder: "dead".to_owned() };
        assert!(room.voters[voter].0.lock().unwrap().begin(&dead).is_err(), "it is refused");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_cut_off_in_the_middle_lets_nobody_act_before_the_dead_ones_lease_is_over()
{
    for others in [false, true] {
        let room = Room::new();
        for voter in 0..3 {
            room.ask(voter, &claim(7, "dead"));
        }
        room.cut.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let first = heir(&room, Wait::For(Duration::ZERO)).await;
        assert!(first.is_err(), "{first:?}");
        // Neither it nor anybody else: node 2 may yet begin what the dead one sent.
        let patience = Wait::For(Duration::from_secs(40));
        let never = CancellationToken::new();
        // One that is started again has another name, and knows of both that they are gone.
        let next = Candidate {
            holder: "next",
            gone: &|holder| !others && ["dead", "heir"].contains(&holder),
        };
        let won = win(&room, next, patience, || 0.7, |_| {}, &never).await;
        assert!(won.is_ok(), "{:?}", won.err());
        assert!(began.elapsed() >= Duration::from_secs(14), "{:?}", began.elapsed());
    }
    // The same process, all in one go.
    let room = Room::new();
    for voter in 0..3 {
        room.ask(voter, &claim(7, "dead"));
    }
    room.cut.store(true, Ordering::Relaxed);
    let began = Instant::now();
    assert!(heir(&room, Wait::For(Duration::from_secs(40))).await.is_ok());
    assert!(began.elapsed() >= Duration::from_secs(14), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_holder_sent_is_over_or_refused_before_anybody_acts_in_its_place() {
    let once = Wait::For(Duration::ZERO);
    let dead = Claimant { token: 7, holder: "dead".to_owned() };
    let held_by_dead = || {
        let room = Room::new();
        for voter in 0..3 {
            room.ask(voter, &Ballot::Claim(dead.clone()));
        }
        room
    };
    // A server that does not answer may yet obey what is on its way to it: until the lease is over.
    let room = held_by_dead();
    room.deafen(2, true);
    let taken = LeaseError::Taken { holder: "dead".to_owned() };
    assert_eq!(heir(&room, once).await, Err(taken.clone()));
    let began = Instant::now();
    assert_eq!(heir(&room, Wait::For(Duration::from_secs(20))).await, Ok(8));
    assert!(began.elapsed() > Duration::from_secs(13), "{:?}", began.elapsed());
    // A script of it runs still.
    let room = held_by_dead();
    room.voters[2].0.lock().unwrap().begin(&dead).unwrap();
    let waits = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let looked = room.ask(0, &Ballot::Look);
        assert_eq!(looked.holder, "dead", "nobody acts beside it");
        room.voters[2].0.lock().unwrap().end();
    };
    let (won, ()) = tokio::join!(heir(&room, Wait::For(Duration::from_secs(10))), waits);
    assert_eq!(won, Ok(8));
    // Another operator has won meanwhile, on a majority or on one server only.
    for others in [2, 1] {
        let room = held_by_dead();
        for voter in 0..others {
            room.ask(voter, &Ballot::Release(dead.clone()));
            assert!(room.ask(voter, &claim(8, "elsewhere")).granted);
        }
        let refused = heir(&room, once).await.unwrap_err();
        assert!(matches!(refused, LeaseError::Taken { .. }), "{refused}");
        assert_eq!(room.ask(0, &Ballot::Look).holder, "elsewhere");
    }
}
