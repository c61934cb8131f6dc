//! The API from outside: a server on a host of fakes, spoken to over TCP.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod setup;

mod auth;
mod browser;
mod control;
mod document;
mod exec;
mod exec_http;
mod files;
mod hostile;
mod hostile_streams;
mod inside;
mod live_list;
mod made;
mod policy;
mod proxy;
mod services;
mod sessions;
mod sprites;
mod streams;
mod tasks;
mod url;
mod usage;
