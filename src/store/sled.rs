//! [`State`] in a folder, by `sled` 0.34.7.
//!
//! `sled` loses writes in a power cut, and can panic on a damaged folder. So
//! nothing in it is the truth, and [`Sled::open`] reads everything once on a
//! thread whose panic is caught: what it returns is either usable or
//! [`Error::Damaged`], and then [`set_aside`] makes room for a new one.
