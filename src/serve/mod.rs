//! The faces of a mirror: what strangers connect to.

pub mod budget;
pub mod dmtp;
pub mod dx;
pub mod identity;
mod percent;
pub mod syn;
