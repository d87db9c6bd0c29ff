//! Following a branch: a thread that looks now and then, and at once when it is asked to.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use crate::mirror::{GitError, Mirror, Snapshot};

/// What a look gave.
pub type News = Result<Snapshot, GitError>;

/// A branch that is followed. Dropped, the thread ends after the look at hand.
pub struct Follower {
    news: Arc<Mutex<Option<News>>>,
    wake: Waker,
    _thread: JoinHandle<()>,
}

/// Makes the follower look at once.
#[derive(Clone)]
pub struct Waker(mpsc::SyncSender<()>);

impl Waker {
    /// Looks at once; where that is asked for already, nothing.
    pub fn wake(&self) {
        // Full: a look is due anyhow. Closed: the thread ends.
        let _due = self.0.try_send(());
    }
}

impl Follower {
    /// Begins to follow. `pause` gives the time between two looks, anew for each; `looked` is told
    /// of each look that has news, or that was asked for.
    pub fn start(
        mirror: Mirror,
        pause: impl Fn() -> Duration + Send + 'static,
        looked: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let news: Arc<Mutex<Option<News>>> = Arc::default();
        let (wake, woken) = mpsc::sync_channel(1);
        let slot = Arc::clone(&news);
        let thread = std::thread::Builder::new().name("git".to_owned()).spawn(move || {
            let mut told = None;
            let mut asked = false;
            loop {
                let look = mirror.newest();
                let key = match &look {
                    Ok(snapshot) => Ok(snapshot.revision.commit.clone()),
                    Err(error) => Err(error.sort()),
                };
                let news = told.as_ref() != Some(&key);
                if news {
                    told = Some(key);
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(look);
                }
                if news || asked {
                    looked();
                }
                asked = match woken.recv_timeout(pause()) {
                    Ok(()) => true,
                    Err(mpsc::RecvTimeoutError::Timeout) => false,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                };
            }
        })?;
        Ok(Self { news, wake: Waker(wake), _thread: thread })
    }

    /// What is new since the last call, if anything.
    pub fn news(&self) -> Option<News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// For whoever hears of a push.
    pub fn waker(&self) -> Waker {
        self.wake.clone()
    }
}
