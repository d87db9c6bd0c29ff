//! The database cluster from a client's side: does it serve, end to end?
//!
//! Streams come from a [`reconcile_dial::Dialer`], so nothing has to be reachable from here.
//!
//! What this crate must not hold: a decision, or any change beyond the probe table's rows.

mod admin;
mod etcd;
mod http;
mod knock;
mod session;
mod verify;

pub use admin::Console;
pub use etcd::{KeyEvents, watch_keys};
pub use http::{Endpoint, Login, exchange, servers_up};
pub use hyper::{Method, StatusCode};
pub use knock::{Silence, answers_http, answers_postgresql};
pub use verify::verify;
