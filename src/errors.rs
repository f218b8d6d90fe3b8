//! Errors in words.

use std::error::Error;

/// An error with all that caused it, in one line: `cannot read the key: no such
/// file`.
pub fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
