//! Talking to DX hosts: one bounded connection at a time (reference §6).
//!
//! [`address`] says where a stranger's DNS may send us, [`tls`] makes the
//! handshake and gathers facts about the certificate, [`client`] speaks DMTP.
//! [`reach`] finds the way there, with the manners of [`hosts`] and, if so told,
//! through a [`proxy`]. What hosts say may take so much memory at once ([`budget`]).
//! What to believe is the caller's.

pub mod address;
pub mod budget;
pub mod client;
pub mod hosts;
pub mod kept;
pub mod proxy;
pub mod reach;
pub mod tls;
pub mod x509;

pub use address::{AddressFilter, Network};
pub use budget::{Budget, Held};
pub use client::{Connected, Entrance, Error, Fault, Options, Session, Target, connect, open};
pub use hosts::Hosts;
pub use kept::Kept;
pub use proxy::Proxy;
pub use tls::Roots;

/// TLS from the first byte (§6.1).
pub const PORT: u16 = 26;
/// In the clear, then STARTTLS; the second if the first does not connect (§6.1).
pub const DUAL_PORTS: [u16; 2] = [25, 587];
