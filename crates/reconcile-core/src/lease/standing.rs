//! Whether an operator is alive, as the voters on its lease know it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{TTL, Vote};
use crate::model::HostName;

/// What the voters know of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Standing {
    /// Somebody holds it.
    Held {
        /// Who.
        holder: String,
        /// How long ago it was granted or renewed, in milliseconds.
        renewed_ms: u64,
    },
    /// Nobody does.
    Free {
        /// Who did last, as far as the voters that answered remember anybody.
        last: Option<String>,
    },
    /// Those that answered cannot tell.
    Unknown {
        /// Voters that answered.
        answered: usize,
        /// All voters.
        voters: usize,
        /// Who holds it, if those that did not answer say so as well.
        perhaps: Option<String>,
        /// Why one of the others does not answer.
        why: String,
    },
}

/// What follows from the voters' answers. It is held while a majority grants it, and free where no
/// majority can: a minority's word runs out by itself.
pub fn standing(votes: &BTreeMap<HostName, Result<Vote, String>>) -> Standing {
    let needed = votes.len() / 2 + 1;
    let known: Vec<&Vote> = votes.values().filter_map(|vote| vote.as_ref().ok()).collect();
    let silent = votes.len() - known.len();
    let newest = known.iter().max_by_key(|vote| (vote.token, vote.left_ms));
    let newest = newest.filter(|vote| vote.token > 0);
    let grants = |vote: &&&Vote| {
        vote.left_ms > 0
            && newest
                .is_some_and(|newest| (vote.token, &vote.holder) == (newest.token, &newest.holder))
    };
    let granting = known.iter().filter(grants);
    let (count, left_ms) = (granting.clone().count(), granting.map(|vote| vote.left_ms).max());
    let holder = newest.map(|vote| vote.holder.clone());
    match (holder, left_ms) {
        (Some(holder), Some(left_ms)) if count >= needed => {
            let ttl = u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX);
            Standing::Held { holder, renewed_ms: ttl.saturating_sub(left_ms) }
        }
        (last, _) if count + silent < needed => Standing::Free { last },
        (holder, left_ms) => Standing::Unknown {
            answered: known.len(),
            voters: votes.len(),
            perhaps: holder.filter(|_| left_ms.is_some()),
            why: votes.values().find_map(|vote| vote.as_ref().err()).cloned().unwrap_or_default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Ballot, Claimant, Voter},
        *,
    };

    /// Three servers that have granted the lease at 0, but for those that were away.
    fn granted(away: &[usize]) -> [Voter; 3] {
        let mut voters = <[Voter; 3]>::default();
        for (number, voter) in voters.iter_mut().enumerate() {
            if !away.contains(&number) {
                let claim = Claimant { token: 7, holder: "ada@ops1/4711/0".to_owned() };
                assert!(voter.vote(&Ballot::Claim(claim), 0).granted);
            }
        }
        voters
    }

    /// What is known at `now_ms` where some do not answer.
    fn at(now_ms: u64, voters: &mut [Voter; 3], silent: &[usize]) -> Standing {
        let answers = voters.iter_mut().enumerate().map(|(number, voter)| {
            let answer = if silent.contains(&number) {
                Err(format!("node{number} is silent"))
            } else {
                Ok(voter.vote(&Ballot::Look, now_ms))
            };
            (HostName::new(format!("node{number}")), answer)
        });
        standing(&answers.collect())
    }

    #[test]
    fn a_majority_says_whether_it_is_held() {
        let holder = || "ada@ops1/4711/0".to_owned();
        let held = |renewed_ms| Standing::Held { holder: holder(), renewed_ms };
        assert_eq!(at(3_000, &mut granted(&[]), &[]), held(3_000));
        assert_eq!(at(3_000, &mut granted(&[2]), &[]), held(3_000), "one has not heard of it");
        assert_eq!(at(3_000, &mut granted(&[]), &[0]), held(3_000), "two of three know it");
        let free = Standing::Free { last: Some(holder()) };
        assert_eq!(at(15_000, &mut granted(&[]), &[]), free, "it ran out");
        assert_eq!(at(15_000, &mut granted(&[]), &[1]), free);
        assert_eq!(at(3_000, &mut granted(&[0, 1]), &[]), free, "a minority is nobody's word");
        assert_eq!(at(0, &mut <[Voter; 3]>::default(), &[]), Standing::Free { last: None });
    }

    #[test]
    fn who_does_not_answer_does_not_say_that_nobody_holds_it() {
        let unknown = |answered, perhaps: Option<&str>| Standing::Unknown {
            answered,
            voters: 3,
            perhaps: perhaps.map(str::to_owned),
            why: "node0 is silent".to_owned(),
        };
        assert_eq!(at(0, &mut granted(&[]), &[0, 1, 2]), unknown(0, None));
        assert_eq!(at(3_000, &mut granted(&[]), &[0, 1]), unknown(1, Some("ada@ops1/4711/0")));
        assert_eq!(at(20_000, &mut granted(&[]), &[0, 1]), unknown(1, None));
        // One knows it, one does not, and the third would tell.
        assert_eq!(at(3_000, &mut granted(&[1]), &[0]), unknown(2, Some("ada@ops1/4711/0")));
    }

    #[test]
    fn what_another_holds_by_now_counts() {
        let mut voters = granted(&[]);
        let claim = Claimant { token: 8, holder: "eve@ops2/12/16".to_owned() };
        for voter in &mut voters[..2] {
            assert!(voter.vote(&Ballot::Claim(claim.clone()), 16_000).granted);
        }
        let Standing::Held { holder, renewed_ms } = at(17_000, &mut voters, &[]) else {
            panic!("it is held")
        };
        assert_eq!((holder.as_str(), renewed_ms), ("eve@ops2/12/16", 1_000));
    }
}
