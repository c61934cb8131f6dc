//! The public API over a [`Host`](sprite_host::Host): REST, WebSockets, and who may use them.
//!
//! # The way of a request
//! [`serve`] accepts connections and bounds them; the router of [`Api`] finds the handler. Every request but those for
//! `/healthz`, `/openapi.json` and `/streams.json` shows a token, which stands for an organisation; a sprite of another
//! organisation does not exist for it. A handler asks the host, and answers JSON.
//!
//! # Exec
//! Nothing is answered before the machine has answered: a command that cannot start is an HTTP status, not a
//! stream that breaks. From then on a hold keeps the sprite awake, one stream of the link carries the session,
//! and bytes flow at the pace of the slower side: no frame is taken from the machine before the one before it
//! was handed to the client's socket, none from the client before the machine took the last.
//! A client that goes away detaches; a machine that goes away is an error on the wire, never an exit.
//!
//! Source: behaviour reference §1, §8, §9, §11.
#![warn(missing_docs)]

mod answer;
mod auth;
mod body;
mod browsers;
mod checkpoints;
mod config;
mod connection;
mod control;
mod domains;
mod edge;
mod exec;
mod fs;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod inside;
mod metrics;
mod named;
mod openapi;
mod organization;
mod policy;
mod ports;
mod problem;
mod proxy;
mod routes;
mod serve;
mod services;
mod sleep;
mod sprites;
mod streams;
mod tasks;
mod usage;
mod ws;

pub use config::{CustomDomains, Front, ServerConfig, SpriteUrls, UrlScheme};
pub use edge::UrlKey;
pub use openapi::{document, document_inside};
pub use routes::Api;
pub use serve::{ServeLimits, Tls, TlsError, serve, serve_tls, serve_with};
pub use streams::document as document_of_streams;
