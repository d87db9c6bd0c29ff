//! Telling systemd how we are (`sd_notify`): ready, what we are at, still alive, about to end.
//!
//! One datagram each to the socket of `NOTIFY_SOCKET`; without the variable nothing is told. The
//! watchdog is told only while the loop advances, so that systemd ends one that hangs.

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reconcile_core::plan::counted;
use reconcile_engine::{Event, Listener};
use tokio::task::JoinHandle;

/// Told to whoever started us.
#[derive(Clone)]
pub(crate) struct Notify {
    to: Option<Arc<(UnixDatagram, SocketAddr)>>,
}

impl Notify {
    /// As the environment asks for it.
    pub(crate) fn from_environment() -> Self {
        let to = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = match name.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
                path => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(path))),
            };
            let opened = address.and_then(|address| Ok((UnixDatagram::unbound()?, address)));
            opened
                .inspect_err(|error| tracing::warn!(%error, "systemd cannot be told how we are"))
                .ok()
        });
        Self { to: to.map(Arc::new) }
    }

    fn tell(&self, words: &str) {
        let Some((socket, address)) = self.to.as_deref() else { return };
        if let Err(error) = socket.send_to_addr(words.as_bytes(), address) {
            tracing::debug!(%error, "systemd was not told");
        }
    }

    /// The loop has begun.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// What we are at, for `systemctl status`.
    pub(crate) fn status(&self, text: &str) {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.tell(&format!("STATUS={text}"));
    }

    /// No new steps are begun.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing the steps at hand");
    }

    /// Tells the watchdog, where one is asked for, as long as `alive`; dropped, it does not.
    pub(crate) fn watchdog(&self, alive: impl Fn() -> bool + Send + 'static) -> Watchdog {
        let Some(period) = self.to.as_ref().and_then(|_| watchdog_period()) else {
            return Watchdog(None);
        };
        let notify = self.clone();
        // On the loop's own thread: what blocks the loop blocks this as well.
        Watchdog(Some(tokio::spawn(async move {
            loop {
                if alive() {
                    notify.tell("WATCHDOG=1");
                }
                tokio::time::sleep(period).await;
            }
        })))
    }
}

/// Tells the watchdog until it is dropped.
pub(crate) struct Watchdog(Option<JoinHandle<()>>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// How often to tell: four times in the time that is given.
fn watchdog_period() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && ours)?;
    Some(Duration::from_micros(micros / 4))
}

/// Tells systemd what the loop is at, and hands events on.
pub(crate) struct Told<'a> {
    pub(crate) notify: &'a Notify,
    pub(crate) next: &'a dyn Listener,
    last: Mutex<String>,
    /// What the last proof of service said, where it did not hold: that goes before what is to be done.
    fails: Mutex<Option<String>>,
}

impl<'a> Told<'a> {
    pub(crate) fn new(notify: &'a Notify, next: &'a dyn Listener) -> Self {
        Self { notify, next, last: Mutex::default(), fails: Mutex::default() }
    }

    /// Once for each change.
    pub(crate) fn status(&self, text: String) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != text {
            self.notify.status(&text);
            *last = text;
        }
    }
}

impl Listener for Told<'_> {
    fn hear(&self, event: &Event<'_>) {
        let fails = || self.fails.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Planned(_) if fails().is_some() => {
                let told = fails().clone().unwrap_or_default();
                self.status(told);
            }
            Event::Planned(plan) if !plan.steps.is_empty() => {
                self.status(format!("{} to do", counted(plan.steps.len(), "step")));
            }
            Event::Planned(plan) if !plan.held.is_empty() => {
                self.status(format!("{} held", counted(plan.held.len(), "object")));
            }
            Event::Verified(report) if report.holds() => {
                *fails() = None;
                self.status("as desired and serving".to_owned());
            }
            Event::Verified(report) => {
                *fails() = Some(report.told());
                self.status(report.told());
            }
            Event::SourceBroken(_) => {
                self.status(
                    "the desired state cannot be read; the last good one is in force".to_owned(),
                );
            }
            Event::PassRefused(_) => self.status("a plan was refused; nothing was done".to_owned()),
            _ => {}
        }
        self.next.hear(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_socket_by_path_and_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("reconcile-notify-{}", std::process::id());
        for address in [
            SocketAddr::from_pathname(&path).expect("an address"),
            SocketAddr::from_abstract_name(&name).expect("an address"),
        ] {
            let socket = UnixDatagram::bind_addr(&address).expect("bound");
            let to = (UnixDatagram::unbound().expect("a socket"), address);
            let notify = Notify { to: Some(Arc::new(to)) };
            notify.ready();
            notify.status("two\nlines");
            let mut words = [0; 64];
            let mut next = || {
                let count = socket.recv(&mut words).expect("a datagram");
                String::from_utf8_lossy(&words[..count]).into_owned()
            };
            assert_eq!(next(), "READY=1");
            assert_eq!(next(), "STATUS=two lines");
        }
    }
}
