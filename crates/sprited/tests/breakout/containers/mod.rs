//! Machines that share the host's kernel: its doors are shut, its ids are mapped, and the agent is a process of the
//! host, in walls of its own. In a virtual machine the kernel is the sprite's, and its root may do what root may.

mod agent;
mod disk;
mod files;
mod kernel;
mod processes;
