//! Who has the primary, told when it is another and when it is lost: the one thing that everybody asks
//! after a failover.

use crate::{
    desired::Desired,
    model::{HostName, Observed},
    primary::{NoPrimary, primary},
    verify::missing_primary,
};

/// What was told so far.
#[derive(Debug, Default)]
pub struct Leads {
    /// Who had it last.
    last: Option<HostName>,
    lost: bool,
}

/// Something new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Led {
    /// A server has it.
    By {
        /// Which.
        host: HostName,
        /// Which had it before.
        before: Option<HostName>,
        /// Its timeline.
        timeline: u64,
    },
    /// Nobody is known to have it; why.
    Lost(String),
}

impl Led {
    /// In a line.
    pub fn told(&self) -> String {
        match self {
            Self::By { host, before: Some(before), timeline } if before != host => {
                format!("{host} is the primary now (it was {before}), timeline {timeline}")
            }
            Self::By { host, before: Some(_), timeline } => {
                format!("{host} is the primary again, timeline {timeline}")
            }
            Self::By { host, before: None, timeline } => {
                format!("{host} is the primary, timeline {timeline}")
            }
            Self::Lost(why) => why.clone(),
        }
    }
}

impl Leads {
    /// What a look has to say of it. The first primary that is seen is no news.
    pub fn looked(&mut self, desired: &Desired, observed: &Observed) -> Option<Led> {
        let host = match primary(desired, observed) {
            Ok(host) => host,
            Err(none) => {
                let had = self.last.is_some() && !std::mem::replace(&mut self.lost, true);
                let why = match &none {
                    NoPrimary::Several(_) => none.to_string(),
                    NoPrimary::Nowhere(_) | NoPrimary::Unknown(_) => {
                        missing_primary(desired, observed)
                    }
                };
                return had.then_some(Led::Lost(why));
            }
        };
        let before = self.last.replace(host.clone());
        let lost = std::mem::take(&mut self.lost);
        let news = lost || before.as_ref().is_some_and(|before| *before != host);
        let fact = observed.host(&host).and_then(|facts| facts.patroni.present());
        let timeline = fact.map_or(0, |fact| fact.timeline);
        news.then_some(Led::By { host, before, timeline })
    }
}
