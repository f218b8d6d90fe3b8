//! Percent-encoding of one path segment (RFC 3986 §2.1).

use std::fmt::Write as _;

/// Unreserved characters and `@` as they are, every other byte as `%XX`.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #[test]
    fn encodes_what_would_end_a_segment() {
        assert_eq!(super::segment("a/b?c#d%e@x.y"), "a%2Fb%3Fc%23d%25e@x.y");
    }
}
