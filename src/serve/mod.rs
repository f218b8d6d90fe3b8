//! The faces of a mirror: what strangers connect to.

pub mod budget;
pub mod dmtp;
pub mod dx;
pub mod http;
pub mod identity;
pub mod metrics;
mod percent;
pub mod syn;
