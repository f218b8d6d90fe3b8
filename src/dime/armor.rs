//! PEM armour for signets, requests and keys (reference §2.6), read strictly.
//!
//! ```text
//! -----BEGIN USER SIGNET-----
//! base64, padded, 64 characters a line
//! =CRC4                                   base64 of the 3-byte CRC-24
//! -----END USER SIGNET-----
//! ```
//!
//! Strict means: one block, a tag that agrees with the object's type number, a
//! checksum that is there and right, canonical base64, nothing behind the
//! checksum. Space around lines, their width, CRLF and text around the block
//! are no one's fault and are read over. libdime takes the first user block
//! wherever it stands, appends data behind the checksum, and skips characters
//! it does not know: three ways to show two readers two objects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Rejection;
use super::signet::FORMAT_LIMIT;

/// Longest text that [`decode`] reads, bytes: the largest object in base64
/// with the line ends and indentation of a patient person.
pub const TEXT_LIMIT: usize = FORMAT_LIMIT * 2;
/// Characters of base64 on a line that [`encode`] writes.
const WIDTH: usize = 64;

/// What stands in the BEGIN and END lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    OrgSignet,
    UserSignet,
    Request,
    OrgKey,
    UserKey,
    /// A bare Ed25519 seed of 32 bytes: the POK file of the record tools.
    Ed25519Key,
}

impl Tag {
    pub const ALL: [Tag; 6] =
        [Tag::OrgSignet, Tag::UserSignet, Tag::Request, Tag::OrgKey, Tag::UserKey, Tag::Ed25519Key];

    pub const fn text(self) -> &'static str {
        match self {
            Tag::OrgSignet => "ORGANIZATIONAL SIGNET",
            Tag::UserSignet => "USER SIGNET",
            Tag::Request => "SIGNET SIGNING REQUEST",
            Tag::OrgKey => "ORGANIZATIONAL KEY",
            Tag::UserKey => "USER KEY",
            Tag::Ed25519Key => "ED25519 PRIVATE KEY",
        }
    }

    /// The tag for an object, by its type number. A request gets the tag that
    /// libdime reads and writes for it only with [`Tag::OrgSignet`] (A25);
    /// this is the tag that says what it is.
    pub fn of(object: &[u8]) -> Option<Tag> {
        match object {
            [0x06, 0xf0, ..] => Some(Tag::OrgSignet),
            [0x06, 0xfd, ..] => Some(Tag::UserSignet),
            [0x04, 0xbf, ..] => Some(Tag::Request),
            [0x07, 0xa0, ..] => Some(Tag::OrgKey),
            [0x07, 0xdd, ..] => Some(Tag::UserKey),
            _ => None,
        }
    }

    /// Whether `object` may stand under this tag.
    fn fits(self, object: &[u8]) -> bool {
        match self {
            Tag::Ed25519Key => object.len() == 32,
            Tag::OrgSignet => {
                matches!(Tag::of(object), Some(Tag::OrgSignet | Tag::Request))
            }
            _ => Tag::of(object) == Some(self),
        }
    }
}

/// Whether `bytes` are meant as armour: they contain a BEGIN line and do not
/// begin like a binary object, whose first byte is below 8.
pub fn is_armored(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first >= 8)
        && bytes.windows(11).any(|window| window == b"-----BEGIN ")
}

/// The armoured form of `object`, with a line end behind the last line.
pub fn encode(object: &[u8], tag: Tag) -> String {
    // Keys pass through here: one buffer, wiped, and a text that never moves.
    let base64 = Zeroizing::new(STANDARD.encode(object));
    let mut text = String::with_capacity(base64.len() + base64.len() / WIDTH + 128);
    text.push_str(&format!("-----BEGIN {}-----\n", tag.text()));
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(WIDTH));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push('=');
    text.push_str(&STANDARD.encode(checksum(object)));
    text.push_str(&format!("\n-----END {}-----\n", tag.text()));
    text
}

/// Reads the one block in `text`: its tag and the object in it.
///
/// Refused with rule `armor`, or `A32` if the text is longer than
/// [`TEXT_LIMIT`]. The object itself is not looked into.
pub fn decode(text: &[u8]) -> Result<(Tag, Vec<u8>), Rejection> {
    if text.len() > TEXT_LIMIT {
        return Err(Rejection::new("A32", "the armoured text is too long"));
    }
    // Text around the block may be in any encoding.
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let tag = begin(&mut lines)?;
    let mut base64 = Zeroizing::new(Vec::with_capacity(text.len()));
    let crc = body(&mut lines, tag, &mut base64)?;
    if lines.any(|line| line.starts_with(b"-----BEGIN ")) {
        return Err(refuse("a second block"));
    }
    let object = STANDARD.decode(base64.as_slice()).map_err(|_| refuse("not canonical base64"))?;
    if crc != checksum(&object) {
        return Err(refuse("the checksum is another than that of the data"));
    }
    if !tag.fits(&object) {
        let message = format!("the tag {} is not that of the object in it", tag.text());
        return Err(refuse(message));
    }
    Ok((tag, object))
}

fn refuse(message: impl Into<String>) -> Rejection {
    Rejection::new("armor", message)
}

fn begin<'a>(lines: &mut impl Iterator<Item = &'a [u8]>) -> Result<Tag, Rejection> {
    let line = lines
        .find(|line| line.starts_with(b"-----BEGIN "))
        .ok_or_else(|| refuse("there is no BEGIN line"))?;
    Tag::ALL
        .into_iter()
        .find(|tag| line == format!("-----BEGIN {}-----", tag.text()).as_bytes())
        .ok_or_else(|| refuse("the BEGIN line has a tag that is not known"))
}

/// Collects the base64 characters through the END line; gives the checksum.
fn body<'a>(
    lines: &mut impl Iterator<Item = &'a [u8]>,
    tag: Tag,
    base64: &mut Vec<u8>,
) -> Result<[u8; 3], Rejection> {
    let end = format!("-----END {}-----", tag.text());
    let mut crc = None;
    for line in lines {
        match line {
            [] => {}
            _ if line == end.as_bytes() => {
                return crc.ok_or_else(|| refuse("there is no checksum"));
            }
            _ if line.starts_with(b"-----") => {
                return Err(refuse("the END line is another than the BEGIN line"));
            }
            _ if crc.is_some() => return Err(refuse("data behind the checksum")),
            [b'=', checksum @ ..] => {
                let bytes = STANDARD.decode(checksum).ok().and_then(|b| b.try_into().ok());
                crc = Some(bytes.ok_or_else(|| refuse("the checksum is not 3 bytes of base64"))?);
            }
            _ => base64.extend_from_slice(line),
        }
    }
    Err(refuse("there is no END line"))
}

/// CRC-24 of OpenPGP (RFC 4880 §6.1), big-endian.
fn checksum(object: &[u8]) -> [u8; 3] {
    let mut crc: u32 = 0xb7_04ce;
    for byte in object {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x100_0000 != 0 {
                crc ^= 0x186_4cfb;
            }
        }
    }
    let [_, high, middle, low] = crc.to_be_bytes();
    [high, middle, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_standard_example() {
        assert_eq!(checksum(b"123456789"), [0x21, 0xcf, 0x02]);
    }

    #[test]
    fn reads_what_it_writes() {
        for length in [0, 1, 43, 48, 49, 300] {
            let mut object = vec![0x06, 0xf0];
            object.extend(vec![7; length]);
            let text = encode(&object, Tag::OrgSignet);
            assert!(text.lines().all(|line| line.len() <= WIDTH));
            assert_eq!(decode(text.as_bytes()).unwrap(), (Tag::OrgSignet, object));
        }
    }

    #[test]
    fn refuses_what_two_readers_may_read_differently() {
        let text = encode(&[0x06, 0xf0, 1], Tag::OrgSignet);
        let refused = |text: &str| decode(text.as_bytes()).unwrap_err().message;
        assert!(refused(&text.replace("ORG", "org")).contains("tag"));
        assert!(refused(&format!("{text}{text}")).contains("second"));
        assert!(refused(&text.replace("\n-----END", "\nAAAA\n-----END")).contains("behind"));
        assert!(refused(&text.replace("BvAB", "Bv*AB")).contains("canonical"));
        assert!(refused(&text.replace("ORGANIZATIONAL", "USER")).contains("tag"));
        assert!(refused(&encode(&[0x06, 0xfd], Tag::OrgSignet)).contains("tag"));
        assert!(decode(encode(&[0x04, 0xbf], Tag::OrgSignet).as_bytes()).is_ok());
        assert!(decode(encode(&[0x04, 0xbf], Tag::Request).as_bytes()).is_ok());
    }
}
