//! Holding the lease: winning a majority of the voters, renewing it, stopping when it is lost.
//!
//! A majority, so that two cannot both win; and none of those that answer may object, so that what
//! an earlier holder still has under way is over first. What a holder believes is bounded by its own clock, counted from *before* it asked: it stops
//! believing before any voter stops granting. What it nevertheless sends is refused by the token.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use reconcile_core::{
    lease::{Ballot, Claimant, TTL, Vote, Voters},
    model::HostName,
    ports::{EffectError, Retry},
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// A holder stops believing in its lease this much before the voters do.
const MARGIN: Duration = Duration::from_secs(3);
/// Between two renewals.
const RENEW: Duration = Duration::from_secs(4);
/// A voter that has not answered by then does not count.
const ANSWER: Duration = Duration::from_secs(5);
/// How much longer than its patience a candidate waits for an effect that is under way: packages may
/// take so long to install.
const UNDER_WAY: Duration = Duration::from_secs(300);
/// Between two looks while somebody else holds it.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A lease that was won.
#[derive(Debug)]
pub struct Held {
    claimant: Claimant,
    until: Mutex<Instant>,
    lost: CancellationToken,
    asked: CancellationToken,
    give_back: Mutex<Option<GiveBack>>,
}

impl Held {
    /// A lease that nobody has: everything but effects is possible under it.
    pub fn none() -> Arc<Self> {
        let claimant = Claimant { token: 0, holder: "-".to_owned() };
        let lost = CancellationToken::new();
        lost.cancel();
        Arc::new(Self {
            claimant,
            until: Mutex::new(Instant::now()),
            lost,
            asked: CancellationToken::new(),
            give_back: Mutex::default(),
        })
    }

    /// True while nobody else can hold it.
    pub fn holds(&self) -> bool {
        !self.lost.is_cancelled()
            && Instant::now() < *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it lasts unless it is renewed; zero once it is lost.
    pub fn left(&self) -> Duration {
        if self.lost.is_cancelled() {
            return Duration::ZERO;
        }
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.saturating_duration_since(Instant::now())
    }

    /// Cancelled when it is lost.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Cancelled when somebody asks for it, and when a server that did not grant it would refuse our
    /// effects. Who holds it all the time then gives it back, and waits for it again: the next token
    /// is above all that are known.
    pub fn asked(&self) -> &CancellationToken {
        &self.asked
    }

    /// Why it is to be given back, once [`Held::asked`] is cancelled.
    pub fn give_back(&self) -> Option<GiveBack> {
        self.give_back.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An error unless it holds; for asking right before an effect.
    pub fn check(&self, host: Option<&HostName>) -> Result<(), EffectError> {
        if self.holds() {
            return Ok(());
        }
        let cause = "the lease of this cluster is not ours: another operator may act by now";
        Err(EffectError::new(host, "go on", cause, Retry::Later))
    }

    /// Whose it is.
    pub fn claimant(&self) -> &Claimant {
        &self.claimant
    }
}

/// Why a lease that holds is given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GiveBack {
    /// Somebody asked for it.
    #[error("{by} asked for it")]
    Asked {
        /// Who.
        by: String,
    },
    /// A server that did not answer when it was won would refuse our effects.
    #[error("{host} knows number {token} as {holder}'s, and this one has {own}")]
    Outdated {
        /// Which.
        host: HostName,
        /// The number that it knows.
        token: u64,
        /// Whose that is.
        holder: String,
        /// Our number.
        own: u64,
    },
}

/// Why the lease was not won.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else has it.
    #[error("{holder} holds the lease of this cluster")]
    Taken {
        /// Who.
        holder: String,
    },
    /// It is free, and somebody else asked for it first.
    #[error("{by} asked for the lease of this cluster")]
    Asked {
        /// Who.
        by: String,
    },
    /// It ran out, but an effect of its holder is not over.
    #[error("an effect of {holder} is still under way on {host}")]
    Busy {
        /// Who.
        holder: String,
        /// Where.
        host: HostName,
    },
    /// Too few voters answer for anybody to hold it.
    #[error("{answered} of {voters} servers answer, {needed} must grant the lease: {why}")]
    Minority {
        /// Voters that answered.
        answered: usize,
        /// All voters.
        voters: usize,
        /// How many must grant.
        needed: usize,
        /// Why one of the others does not answer.
        why: String,
    },
    /// It was asked to stop while it waited.
    #[error("stopped while waiting for the lease of this cluster")]
    Stopped,
}

/// How a lease is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it is free, for ever; whoever asks for it goes first.
    Behind,
    /// Until it is free, for so long.
    For(Duration),
    /// The same, and whoever holds it all the time is asked to give it back.
    Asking(Duration),
}

impl Wait {
    fn patience(self) -> Option<Duration> {
        match self {
            Self::Behind => None,
            Self::For(patience) | Self::Asking(patience) => Some(patience),
        }
    }
}

/// Who asks.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// Its name, of this process alone.
    pub holder: &'a str,
    /// Whether a holder is no more, for certain: no process of that name is left that could act.
    pub gone: &'a (dyn Fn(&str) -> bool + Sync),
}

impl<'a> From<&'a str> for Candidate<'a> {
    /// One that knows of nobody that he is gone.
    fn from(holder: &'a str) -> Self {
        Self { holder, gone: &|_| false }
    }
}

/// Asks until the lease is won or the patience is over; `waits` hears why it waits, once for each
/// cause.
pub async fn win<V: Voters>(
    port: &V,
    candidate: impl Into<Candidate<'_>>,
    wait: Wait,
    jitter: fn() -> f64,
    waits: impl Fn(&LeaseError),
    stop: &CancellationToken,
) -> Result<Arc<Held>, LeaseError> {
    let candidate = candidate.into();
    let end = wait.patience().map(|patience| Instant::now() + patience);
    let mut told = None;
    let mut taking_over = None;
    loop {
        let error = match attempt(port, candidate, wait, &mut taking_over).await {
            Ok(held) => return Ok(held),
            Err(error) => error,
        };
        if let (Wait::Asking(_), LeaseError::Taken { .. }) = (wait, &error) {
            ballot(port, &port.voters(), &Ballot::Ask(candidate.holder.to_owned())).await;
        }
        // What is still under way ends by itself, by its own deadline.
        let extra =
            if matches!(error, LeaseError::Busy { .. }) { UNDER_WAY } else { Duration::ZERO };
        if end.is_some_and(|end| Instant::now() >= end + extra) {
            return Err(error);
        }
        if told.as_ref() != Some(&error) {
            waits(&error);
            told = Some(error);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN.mul_f64(0.5 + jitter() / 2.0)) => {}
            () = stop.cancelled() => return Err(LeaseError::Stopped),
        }
    }
}

/// One round: look, then claim with a token above all that were seen. `taking_over`: until when only
/// all voters together can give what some gave in the place of one that is gone.
async fn attempt<V: Voters>(
    port: &V,
    candidate: Candidate<'_>,
    wait: Wait,
    taking_over: &mut Option<Instant>,
) -> Result<Arc<Held>, LeaseError> {
    let holder = candidate.holder;
    let all = port.voters();
    let some = taking_over.is_some_and(|until| Instant::now() < until);
    let mut needed = if some { all.len() } else { all.len() / 2 + 1 };
    let votes = ballot(port, &all, &Ballot::Look).await;
    let known: Vec<&Vote> = votes.iter().filter_map(|vote| vote.as_ref().ok()).collect();
    if known.len() < needed {
        return Err(minority(&votes, needed));
    }
    // A minority's word that outlived its holder runs out by itself.
    let live = |vote: &&&Vote| vote.left_ms > 0 && vote.holder != holder;
    let gone = known.iter().find(live).map(|vote| vote.holder.clone());
    if let Some(gone) = &gone {
        // What its process sent may still be on its way to a server: only where every one of them
        // knows the new token before we act can none of it take effect any more.
        let all_know = known.len() == all.len();
        let alone = known.iter().filter(live).all(|vote| vote.holder == *gone);
        if !(all_know && alone && (candidate.gone)(gone)) {
            return Err(LeaseError::Taken { holder: gone.clone() });
        }
        needed = all.len();
    }
    // Of two that ask, whoever comes first: they would wait for each other. Of one that is gone
    // clients may wait, and nobody else could take the lease yet.
    if !matches!(wait, Wait::Asking(_))
        && gone.is_none()
        && let Some(by) = known.iter().find_map(|vote| asked_by_other(vote, holder))
    {
        return Err(LeaseError::Asked { by: by.to_owned() });
    }
    let busy = all.iter().zip(&votes).find_map(|(host, vote)| {
        let vote = vote.as_ref().ok().filter(|vote| vote.busy)?;
        Some(LeaseError::Busy { holder: vote.holder.clone(), host: host.clone() })
    });
    if let Some(busy) = busy {
        return Err(busy);
    }
    let token = known.iter().map(|vote| vote.token).max().unwrap_or(0) + 1;
    let claimant = Claimant { token, holder: holder.to_owned() };
    let asked = Instant::now();
    let by = claimant.clone();
    let claim = if let Some(of) = gone {
        // The dead one renews no more: from the first try on.
        taking_over.get_or_insert(Instant::now() + TTL + MARGIN);
        Ballot::TakeOver { by, of }
    } else {
        Ballot::Claim(by)
    };
    let votes = ballot(port, &all, &claim).await;
    let granted =
        votes.iter().filter(|vote| matches!(vote, Ok(Vote { granted: true, .. }))).count();
    let refused = votes.iter().flatten().any(|vote| !vote.granted);
    // A voter that gave the same token to another would refuse our effects as long as we hold it.
    if granted >= needed && !refused {
        port.carry(&claimant);
        let until = Mutex::new(asked + TTL.saturating_sub(MARGIN));
        let (lost, asked) = (CancellationToken::new(), CancellationToken::new());
        return Ok(Arc::new(Held { claimant, until, lost, asked, give_back: Mutex::default() }));
    }
    // What was granted must not keep others waiting; but what was granted in the place of one that is
    // gone stands for the time that everybody else would have had to wait for its end.
    if matches!(claim, Ballot::Claim(_)) && !some {
        ballot(port, &all, &Ballot::Release(claimant)).await;
    }
    let other = votes.iter().filter_map(|vote| vote.as_ref().ok()).find(|vote| !vote.granted);
    Err(match other {
        Some(vote) => LeaseError::Taken { holder: vote.holder.clone() },
        None => minority(&votes, needed),
    })
}

/// Renews until the lease is lost or about to be given back; drop it to stop renewing.
pub async fn keep<V: Voters>(port: &V, held: &Held) {
    let all = port.voters();
    let needed = all.len() / 2 + 1;
    loop {
        tokio::select! {
            () = tokio::time::sleep(RENEW) => {}
            () = held.lost.cancelled() => return,
        }
        let asked = Instant::now();
        if held.holds() {
            let claim = &Ballot::Claim(held.claimant.clone());
            let mut votes: FuturesUnordered<_> = all
                .iter()
                .map(|host| async move { (host, ask(port, host, claim).await) })
                .collect();
            let mut granted = 0;
            while let Some((host, vote)) = votes.next().await {
                let Ok(vote) = vote else { continue };
                if let Some(why) = gives_back(held, host, &vote) {
                    held.give_back
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(why);
                    held.asked.cancel();
                }
                granted += usize::from(vote.granted);
                // At once: a voter that is cut off answers as late as the lease would have run out.
                if vote.granted && granted == needed {
                    *held.until.lock().unwrap_or_else(PoisonError::into_inner) =
                        asked + TTL.saturating_sub(MARGIN);
                }
            }
        }
        if !held.holds() {
            held.lost.cancel();
            return;
        }
    }
}

/// Gives it back, so that the next need not wait for its end. The renewals must be over: one that comes
/// after it is a grant again, and nobody could have the lease before that ends.
pub async fn release<V: Voters>(port: &V, held: &Held) {
    held.lost.cancel();
    ballot(port, &port.voters(), &Ballot::Release(held.claimant.clone())).await;
}

/// Who else asked for the lease.
fn asked_by_other<'a>(vote: &'a Vote, holder: &str) -> Option<&'a str> {
    vote.asked.as_deref().filter(|by| *by != holder)
}

async fn ballot<V: Voters>(
    port: &V,
    voters: &[HostName],
    ballot: &Ballot,
) -> Vec<Result<Vote, EffectError>> {
    join_all(voters.iter().map(|voter| ask(port, voter, ballot))).await
}

/// One voter's answer.
async fn ask<V: Voters>(port: &V, voter: &HostName, ballot: &Ballot) -> Result<Vote, EffectError> {
    timeout(ANSWER, port.vote(voter, ballot)).await.unwrap_or_else(|_| {
        let cause = format!("no answer within {} s", ANSWER.as_secs());
        Err(EffectError::new(
            Some(voter),
            format!("ask {voter} for the lease"),
            cause,
            Retry::Later,
        ))
    })
}

/// Why a vote wants the lease to be given back.
fn gives_back(held: &Held, host: &HostName, vote: &Vote) -> Option<GiveBack> {
    if let Some(by) = asked_by_other(vote, &held.claimant.holder) {
        return Some(GiveBack::Asked { by: by.to_owned() });
    }
    // It did not answer when this lease was won and remembers one that is over.
    (!vote.granted && vote.left_ms == 0).then(|| GiveBack::Outdated {
        host: host.clone(),
        token: vote.token,
        holder: vote.holder.clone(),
        own: held.claimant.token,
    })
}

fn minority(votes: &[Result<Vote, EffectError>], needed: usize) -> LeaseError {
    let why = votes.iter().find_map(|vote| vote.as_ref().err()).map(ToString::to_string);
    LeaseError::Minority {
        answered: votes.iter().filter(|vote| vote.is_ok()).count(),
        voters: votes.len(),
        needed,
        why: why.unwrap_or_default(),
    }
}
