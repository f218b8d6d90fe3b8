//! The private DIME internet: DNS, DX hosts, and the domains that live there.
//! Everything is on loopback, and its DNS root and certificate authority are
//! trusted by nobody but those who are told to. Linux: every DX host has an
//! address of its own in 127.0.0.0/8, which needs no set-up there.

pub mod crowd;
pub mod dns;
pub mod host;
pub mod organization;
pub mod world;
