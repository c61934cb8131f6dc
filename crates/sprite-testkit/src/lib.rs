//! For tests only: fakes of machines, agents and disks, and waiting without sleeping.
//!
//! [`TestHost`] is a whole host on fakes: its catalog is a real one in a temporary directory, its machines are
//! [`FakeMachine`]s in memory whose agents speak the real protocol, and its disks are empty files. It needs neither
//! root nor a particular kernel. [`FakeDriver`] watches that what must always hold does: two machines of one
//! sprite, or a machine without its disk, are noted and fail the test ([`FakeDriver::assert_sound`]).
//!
//! Failures here are panics: this crate is never part of a program.
#![warn(missing_docs)]

mod agent;
mod cut;
mod disks;
mod driver;
mod eventually;
mod host;
mod machine;
mod seeded;
mod switch;

pub use disks::FakeDisks;
pub use driver::FakeDriver;
pub use eventually::eventually;
pub use host::{TestHost, quick};
pub use machine::FakeMachine;
pub use seeded::Seeded;
pub use switch::{Chance, Held, Luck, Step};
