//! The API from outside: a server on a host of fakes, spoken to over TCP.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod setup;

mod auth;
mod control;
mod document;
mod exec;
mod exec_http;
mod files;
mod hostile;
mod inside;
mod live_list;
mod policy;
mod proxy;
mod sessions;
mod sprites;
mod tasks;
