//! Netlink: one system call per step of a slot, from a thread that stands in the right namespace.
//!
//! A socket speaks for ever with the namespace in which it was opened, wherever its thread goes later. All
//! calls block; they run on threads of their own or on tokio's blocking threads. The kernel works while
//! `send` runs, so nothing here ever waits for anyone but the kernel.

mod message;
mod socket;

#[cfg(test)]
pub(crate) use message::replies;
pub(crate) use message::{
    Message, Reply, address, attribute, attributes, big_endian, text, u32_at,
};
pub(crate) use socket::{Family, Refused, Socket};
