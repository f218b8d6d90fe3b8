//! The private DIME internet: DNS, and what lives in it. Everything is on
//! loopback, and its DNS root is trusted by nobody but those who are told to.

pub mod dns;
