//! The broker through its front door: frames in, frames out, over a disk in memory.
//!
//! One file per API or concern. `host` is the world that they share: it carries effects out at
//! once, unless a test holds disk work back, and moves time only when it is told to.

mod host;
mod requests;

mod api_versions;
mod compatibility;
mod configs;
mod fetch;
mod groups;
mod hostile;
mod lifecycle;
mod offsets;
mod produce;
mod replaced_files;
mod sessions;
mod topics;
mod transactions;
