//! What a sprite does next: `(state, event, now) → (state, actions)`, without clock, I/O or waiting.
//!
//! ```text
//!              ┌─────────────────────── Destroy, in every state ──────────────────────┐
//!              │                                                                      ▼
//! Creating ─▶ Waking ─▶ Running ─▶ FallingAsleep ─▶ Warm ─▶ Waking …   Marking ─▶ Destroying ─▶ Gone
//!              ▲  │        │            │             │
//!              │  ▼        ▼            ▼             ▼
//!             Cold ◀─── Stopping ◀──────┴─────────────┘
//!                          └──▶ Failed: something of a machine may be left; only a restart or a destroy goes on
//! ```
//!
//! # How it is used
//! Whoever owns a sprite keeps its [`State`], hands every [`Event`] to [`step`], and does the [`Action`]s in the
//! order given. At most one [`Operation`] is under way at a time; its end is the event [`Event::Finished`].
//! [`State::deadline`] says when [`Event::Tick`] is wanted.
//!
//! # What always holds
//! * A boot or a load is asked for only in a state in which no machine exists.
//! * Memory in a snapshot is dropped only where a person asked for it: by a restart or a destroy.
//! * Every request is answered exactly once, given that operations end.
//! * A destroy is accepted in every state. What cannot be done now waits for the next state at rest.
//! * Every state meets every event; one that does not fit changes nothing.
//!
//! What a sprite uses meanwhile is counted in [`metering`].
#![warn(missing_docs)]

mod event;
mod holds;
pub mod metering;
mod rest;
mod state;
mod step;

pub use event::{
    Action, Answer, Connections, DestroyStep, Event, Fault, Left, Memory, Moment, Operation,
    Policy, Refusal, Request, RequestId, Stop, Traffic, Why,
};
pub use holds::{Hold, Holds};
pub use state::{Phase, Rest, Sleep, State, Wake};
pub use step::step;
