//! One writer at a time: a lease that a majority of voters grants, with a token that only grows.
//!
//! A voter is a server. It grants one holder at a time and remembers the highest token that it has
//! seen, for good. Every effect carries its holder's token, and a server refuses one that is older
//! than what it has seen. So a holder that slept past its lease and wakes in the middle of
//! something can do no harm: it is refused where the effect would take place.
//!
//! [`Voter`] is the rule; the simulator runs it as it is, a real server as a script that does the
//! same. There is no clock here: the voter's own comes with each call.

mod standing;

use std::{future::Future, time::Duration};

use serde::Serialize;

pub use standing::{Standing, standing};

use crate::{model::HostName, ports::EffectError};

/// How long a grant lasts without renewal.
pub const TTL: Duration = Duration::from_secs(15);

/// How long a voter remembers that somebody asked for the lease.
pub const ASKED: Duration = Duration::from_secs(10);

/// What a candidate or holder asks of a voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ballot {
    /// Who holds it?
    Look,
    /// This holder-to-be asks whoever holds it to give it back. Nobody is made to.
    Ask(String),
    /// Grant or renew it.
    Claim(Claimant),
    /// The same, also while `of` still has it: the claimant knows for certain that `of` is no more.
    TakeOver {
        /// Who asks.
        by: Claimant,
        /// Whose end it is not to wait for.
        of: String,
    },
    /// Give it back.
    Release(Claimant),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// Its token.
    pub token: u64,
    /// Its name, of no blanks, different for each process that asks.
    pub holder: String,
}

/// A voter's answer: how things are there after the ballot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vote {
    /// The ballot was followed.
    pub granted: bool,
    /// The highest token that the voter has seen; 0: none.
    pub token: u64,
    /// Whose token that is.
    pub holder: String,
    /// How long the lease lasts from now if nobody renews it, in milliseconds; 0: it is free.
    pub left_ms: u64,
    /// An effect under that token is under way there.
    pub busy: bool,
    /// Who asked for the lease, if that was not long ago and it was not granted since.
    pub asked: Option<String>,
}

/// A voter's memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Voter {
    token: u64,
    holder: String,
    until_ms: u64,
    /// Effects under way under `token`.
    effects: usize,
    /// Who asked for it, and until when that counts.
    asked: Option<(String, u64)>,
}

impl Voter {
    /// Answers a ballot at `now_ms` of the voter's own clock.
    pub fn vote(&mut self, ballot: &Ballot, now_ms: u64) -> Vote {
        let live = self.until_ms > now_ms;
        let lasts = |ttl: Duration| now_ms + u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let granted = match ballot {
            Ballot::Look | Ballot::Ask(_) => true,
            Ballot::Claim(who) if who.token == self.token => who.holder == self.holder,
            Ballot::Claim(who) => {
                let free = !live || who.holder == self.holder;
                who.token > self.token && free && self.effects == 0
            }
            Ballot::TakeOver { by, of } => {
                let free = !live || [&by.holder, of].contains(&&self.holder);
                by.token > self.token && free && self.effects == 0
            }
            Ballot::Release(who) => who.token == self.token && who.holder == self.holder,
        };
        if granted {
            match ballot {
                Ballot::Look => {}
                Ballot::Ask(who) => self.asked = Some((who.clone(), lasts(ASKED))),
                Ballot::Claim(who) | Ballot::TakeOver { by: who, .. } => {
                    self.token = who.token;
                    self.holder.clone_from(&who.holder);
                    self.until_ms = lasts(TTL);
                }
                Ballot::Release(_) => self.until_ms = now_ms,
            }
        }
        // Who has it needs it no longer, nor does who gave it back.
        if let Ballot::Claim(who) | Ballot::TakeOver { by: who, .. } | Ballot::Release(who) = ballot
            && granted
        {
            self.asked.take_if(|(by, _)| *by == who.holder);
        }
        let asked = self.asked.as_ref().filter(|(_, until)| *until > now_ms);
        Vote {
            granted,
            token: self.token,
            holder: self.holder.clone(),
            left_ms: self.until_ms.saturating_sub(now_ms),
            busy: self.effects > 0,
            asked: asked.map(|(by, _)| by.clone()),
        }
    }

    /// An effect under `who` begins: refused where a newer token is known, or an effect under an
    /// older one is not over yet. The error names the holder.
    pub fn begin(&mut self, who: &Claimant) -> Result<(), String> {
        if who.token < self.token || (who.token == self.token && who.holder != self.holder) {
            return Err(format!(
                "refused: {} holds the lease by now (token {}, this is {})",
                self.holder, self.token, who.token
            ));
        }
        if who.token > self.token {
            if self.effects > 0 {
                return Err("an effect of an earlier holder is still under way".to_owned());
            }
            let asked = self.asked.take();
            *self = Self { token: who.token, holder: who.holder.clone(), asked, ..Self::default() };
        }
        self.effects += 1;
        Ok(())
    }

    /// An effect is over.
    pub fn end(&mut self) {
        self.effects = self.effects.saturating_sub(1);
    }
}

/// The port to the voters.
pub trait Voters: Send + Sync {
    /// The servers that vote.
    fn voters(&self) -> Vec<HostName>;

    /// Brings a ballot to a voter. It is followed in one piece or not at all.
    fn vote(
        &self,
        voter: &HostName,
        ballot: &Ballot,
    ) -> impl Future<Output = Result<Vote, EffectError>> + Send;

    /// Effects from here on are those of `claimant`.
    fn carry(&self, claimant: &Claimant);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(token: u64, holder: &str) -> Claimant {
        Claimant { token, holder: holder.to_owned() }
    }

    #[test]
    fn one_holder_at_a_time_and_tokens_only_grow() {
        let mut voter = Voter::default();
        assert!(voter.vote(&Ballot::Claim(who(1, "a")), 0).granted);
        assert!(!voter.vote(&Ballot::Claim(who(2, "b")), 14_999).granted, "it is held");
        assert!(!voter.vote(&Ballot::Claim(who(1, "b")), 20_000).granted, "that token is taken");
        assert!(voter.vote(&Ballot::Claim(who(1, "a")), 14_000).granted, "renewed");
        assert!(!voter.vote(&Ballot::Claim(who(2, "b")), 28_999).granted);
        assert!(voter.vote(&Ballot::Claim(who(2, "b")), 29_000).granted, "it ran out");
        assert!(!voter.vote(&Ballot::Claim(who(1, "a")), 60_000).granted, "too late");
        assert!(voter.begin(&who(1, "a")).is_err(), "refused where it would take place");
        assert!(!voter.vote(&Ballot::Release(who(1, "a")), 60_000).granted);
        assert!(voter.vote(&Ballot::Release(who(2, "b")), 30_000).granted);
        assert_eq!(voter.vote(&Ballot::Look, 30_000).left_ms, 0);
    }

    #[test]
    fn only_the_one_that_is_named_is_taken_over_and_not_in_the_middle_of_an_effect() {
        let mut voter = Voter::default();
        let over = |token, of: &str| Ballot::TakeOver { by: who(token, "b"), of: of.to_owned() };
        assert!(voter.vote(&Ballot::Claim(who(1, "a")), 0).granted);
        assert!(!voter.vote(&over(2, "c"), 1_000).granted, "another has it");
        assert!(!voter.vote(&over(1, "a"), 1_000).granted, "tokens only grow");
        assert_eq!(voter.begin(&who(1, "a")), Ok(()));
        assert!(!voter.vote(&over(2, "a"), 1_000).granted, "an effect of it is under way");
        voter.end();
        assert!(voter.vote(&over(2, "a"), 1_000).granted);
        assert!(voter.begin(&who(1, "a")).is_err(), "what it sent is refused from now on");
        let late = Ballot::TakeOver { by: who(3, "c"), of: "a".to_owned() };
        assert!(!voter.vote(&late, 2_000).granted, "somebody else has it by now");
        assert!(voter.vote(&Ballot::Claim(who(3, "c")), 17_000).granted, "it ends as any other");
    }

    #[test]
    fn what_is_asked_for_is_remembered_for_a_while() {
        let mut voter = Voter::default();
        assert!(voter.vote(&Ballot::Claim(who(1, "a")), 0).granted);
        let asks = Ballot::Ask("b".to_owned());
        assert_eq!(voter.vote(&asks, 1_000).asked.as_deref(), Some("b"));
        let renewed = voter.vote(&Ballot::Claim(who(1, "a")), 4_000);
        assert!(renewed.granted, "nobody is made to give it back");
        assert_eq!(renewed.asked.as_deref(), Some("b"), "the holder hears of it");
        assert_eq!(voter.vote(&Ballot::Look, 11_000).asked, None, "who asks no more has gone");
        voter.vote(&asks, 12_000);
        assert!(voter.vote(&Ballot::Release(who(1, "a")), 12_500).granted);
        assert_eq!(voter.vote(&Ballot::Look, 13_000).asked.as_deref(), Some("b"));
        assert_eq!(voter.vote(&Ballot::Claim(who(2, "b")), 13_000).asked, None, "he has it");
    }

    #[test]
    fn nobody_takes_over_in_the_middle_of_an_effect() {
        let mut voter = Voter::default();
        assert!(voter.vote(&Ballot::Claim(who(1, "a")), 0).granted);
        assert_eq!(voter.begin(&who(1, "a")), Ok(()));
        let vote = voter.vote(&Ballot::Claim(who(2, "b")), 60_000);
        assert!(!vote.granted && vote.busy && vote.left_ms == 0);
        assert!(voter.begin(&who(2, "b")).is_err());
        voter.end();
        assert!(voter.vote(&Ballot::Claim(who(2, "b")), 60_000).granted);
        assert_eq!(voter.begin(&who(3, "c")), Ok(()), "one that has not voted learns of it so");
        assert!(voter.begin(&who(2, "b")).is_err());
    }
}
