//! Test support: stores that break on command, and the contracts that every
//! engine keeps. Public because integration tests and other rooms need it.
