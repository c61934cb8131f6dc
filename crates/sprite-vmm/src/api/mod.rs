//! The control socket: HTTP/1.1 over a Unix socket, in the form that Firecracker published.
//!
//! One thread looks after all clients. It owns nothing of the machine: a request becomes a
//! [`Command`](crate::command::Command), which the thread that owns the machine does, one at a time.
//!
//! Whoever reaches the socket may do everything; the file's permissions say who does. All the same nothing
//! that a client sends or fails to send stops the others: lengths are checked before anything is kept, every
//! wait has a deadline, and the number of clients has a limit.

mod connection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod request;
mod response;
mod route;
mod server;
mod table;

pub use server::Server;
pub use table::{Field, ROUTES, Route, Support};
