//! The people's side of the watch loop: status, page, event stream, metrics and webhook over HTTP.
//!
//! The loop tells a [`Board`] what happens and never waits for anyone; requests are answered from
//! what the board holds, on a thread of their own. Nothing here can change a cluster: the only
//! thing that a request can do is to ask for a pass.

mod board;
mod clock;
mod convert;
mod document;
mod facts;
mod frames;
mod guard;
mod history;
mod metrics;
mod openapi;
mod options;
mod page;
mod routes;
mod serve;
mod stall;
mod stream;
mod tls;
mod validity;
mod webhook;

pub use board::{About, Board, Lease};
pub use options::{Listen, ListenError, Token};
pub use serve::{Served, start};
