//! Why something received was refused.

use std::fmt;

/// A stranger's fault, with the rule it broke. A value, not a failure of ours.
///
/// `rule` is the short name used in the reference and in vectors: `S-1` to
/// `S-4` (structure), `G1` to `G16` (gaps of libdime), `A1` to `A35` (decided
/// ambiguities), or a word such as `incomplete`, `signature`, `pok-mismatch`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Rejection {
    pub rule: &'static str,
    pub message: String,
}

impl Rejection {
    pub fn new(rule: &'static str, message: impl Into<String>) -> Rejection {
        Rejection { rule, message: message.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.rule)
    }
}
