//! Protobuf with exactly one encoding, as our hashed messages need it.
//!
//! The wire format is protobuf's, so every tool reads it. The rules are
//! stricter: fields ascend, each stands at most once (repeated ones excepted),
//! varints are as short as they can be, a scalar that holds its default is not
//! written, and nothing unknown is there. The [`Reader`] is pulled field by field in
//! ascending order, so whatever breaks a rule is met where something else
//! was due, and what it accepts the [`Writer`] writes again byte for byte.

use super::Hash;
use crate::dime::Rejection;

/// Why bytes are not the one encoding of a message. The number is the field's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    #[error("it ends inside a field")]
    Truncated,
    #[error("a varint is longer than it needs to be, or than 64 bits")]
    Varint,
    #[error("field {0} is written although it holds its default")]
    Default(u32),
    #[error("field {0} is unknown, repeated, out of order or of another type")]
    Misplaced(u32),
    #[error("field {0} is missing")]
    Missing(u32),
    #[error("field {0} has the wrong length")]
    Length(u32),
    #[error("field {0} is not in its range or order: {1}")]
    Value(u32, &'static str),
}

impl Malformed {
    /// The rule's name, the same in the second verifier.
    pub fn rule(&self) -> &'static str {
        match self {
            Malformed::TooLong(_) => "wire-too-long",
            Malformed::Truncated => "wire-truncated",
            Malformed::Varint => "wire-varint",
            Malformed::Default(_) => "wire-default",
            Malformed::Misplaced(_) => "wire-misplaced",
            Malformed::Missing(_) => "wire-missing",
            Malformed::Length(_) => "wire-length",
            Malformed::Value(..) => "wire-value",
        }
    }
}

impl From<Malformed> for Rejection {
    fn from(fault: Malformed) -> Rejection {
        Rejection::new(fault.rule(), fault.to_string())
    }
}

const VARINT: u8 = 0;
const DELIMITED: u8 = 2;

/// Writes one message. Fields must be written in ascending order.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new() -> Writer {
        Writer::default()
    }

    pub fn with_capacity(bytes: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(bytes) }
    }

    /// A number; 0 is the default and not written.
    pub fn uint(&mut self, field: u32, value: u64) -> &mut Writer {
        if value != 0 {
            self.tag(field, VARINT);
            put_varint(&mut self.bytes, value);
        }
        self
    }

    /// Bytes or text; empty is the default and not written.
    pub fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Writer {
        if !value.is_empty() {
            self.delimited(field, value);
        }
        self
    }

    /// A message, or an element of a repeated field: written even when empty.
    pub fn delimited(&mut self, field: u32, value: &[u8]) -> &mut Writer {
        self.tag(field, DELIMITED);
        put_varint(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(value);
        self
    }

    /// A message built by `fill`.
    pub fn message(&mut self, field: u32, fill: impl FnOnce(&mut Writer)) -> &mut Writer {
        let mut inner = Writer::new();
        fill(&mut inner);
        self.delimited(field, &inner.bytes)
    }

    /// A packed list of numbers; an empty one is not written.
    pub fn packed(&mut self, field: u32, values: impl IntoIterator<Item = u64>) -> &mut Writer {
        let mut list = Vec::new();
        for value in values {
            put_varint(&mut list, value);
        }
        self.bytes(field, &list)
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn tag(&mut self, field: u32, wire_type: u8) {
        put_varint(&mut self.bytes, u64::from(field) << 3 | u64::from(wire_type));
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Reads one message, field by field in ascending order, without allocating.
#[derive(Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// A reader that refuses more than `limit` bytes.
    pub fn limited(bytes: &'a [u8], limit: usize) -> Result<Reader<'a>, Malformed> {
        if bytes.len() > limit {
            return Err(Malformed::TooLong(limit));
        }
        Ok(Reader::new(bytes))
    }

    /// A number, 0 where the field is absent.
    pub fn uint(&mut self, field: u32) -> Result<u64, Malformed> {
        if !self.take_tag(field, VARINT)? {
            return Ok(0);
        }
        match self.varint()? {
            0 => Err(Malformed::Default(field)),
            value => Ok(value),
        }
    }

    /// A number that must be there.
    pub fn required_uint(&mut self, field: u32) -> Result<u64, Malformed> {
        match self.uint(field)? {
            0 => Err(Malformed::Missing(field)),
            value => Ok(value),
        }
    }

    /// A number of at most 32 bits, 0 where the field is absent.
    pub fn uint32(&mut self, field: u32) -> Result<u32, Malformed> {
        u32::try_from(self.uint(field)?)
            .map_err(|_| Malformed::Value(field, "it does not fit into 32 bits"))
    }

    /// Bytes, empty where the field is absent.
    pub fn bytes(&mut self, field: u32) -> Result<&'a [u8], Malformed> {
        match self.delimited(field)? {
            None => Ok(&[]),
            Some([]) => Err(Malformed::Default(field)),
            Some(value) => Ok(value),
        }
    }

    /// Exactly `N` bytes, or `None` where the field is absent.
    pub fn array<const N: usize>(&mut self, field: u32) -> Result<Option<[u8; N]>, Malformed> {
        match self.bytes(field)? {
            [] => Ok(None),
            value => value.try_into().map(Some).map_err(|_| Malformed::Length(field)),
        }
    }

    /// Exactly 32 bytes that must be there.
    pub fn hash(&mut self, field: u32) -> Result<Hash, Malformed> {
        self.array(field)?.ok_or(Malformed::Missing(field))
    }

    /// UTF-8 text of 1 to `limit` bytes that must be there.
    pub fn text(&mut self, field: u32, limit: usize) -> Result<&'a str, Malformed> {
        let value = self.bytes(field)?;
        if value.is_empty() {
            return Err(Malformed::Missing(field));
        }
        if value.len() > limit {
            return Err(Malformed::Length(field));
        }
        std::str::from_utf8(value).map_err(|_| Malformed::Value(field, "it is not UTF-8"))
    }

    /// A message or one element of a repeated field; it may be empty.
    pub fn delimited(&mut self, field: u32) -> Result<Option<&'a [u8]>, Malformed> {
        if !self.take_tag(field, DELIMITED)? {
            return Ok(None);
        }
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Truncated)?;
        let (value, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(Some(value))
    }

    /// A message as a reader, or `None` where the field is absent.
    pub fn message(&mut self, field: u32) -> Result<Option<Reader<'a>>, Malformed> {
        Ok(self.delimited(field)?.map(Reader::new))
    }

    /// The numbers of a packed field, handed to `each` in order.
    pub fn packed(
        &mut self,
        field: u32,
        mut each: impl FnMut(u64) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut list = Reader::new(self.bytes(field)?);
        while !list.rest.is_empty() {
            each(list.varint()?)?;
        }
        Ok(())
    }

    /// Whether the next field is a delimited one of this number.
    pub fn at(&self, field: u32) -> bool {
        self.rest.first() == Some(&((field << 3) as u8 | DELIMITED)) && field < 16
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses whatever is left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.leftover()) }
    }

    /// The next field whatever it is: its number and either a number or bytes.
    /// For formats that this code does not know.
    pub fn any(&mut self) -> Result<Option<(u32, Field<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (field, wire_type) = self.clone().next_tag()?;
        match wire_type {
            VARINT => Ok(Some((field, Field::Number(self.uint(field)?)))),
            DELIMITED => {
                let value = self.delimited(field)?.ok_or(Malformed::Misplaced(field))?;
                Ok(Some((field, Field::Bytes(value))))
            }
            _ => Err(Malformed::Misplaced(field)),
        }
    }

    fn leftover(&self) -> Malformed {
        match self.clone().next_tag() {
            Ok((field, _)) => Malformed::Misplaced(field),
            Err(fault) => fault,
        }
    }

    fn next_tag(&mut self) -> Result<(u32, u8), Malformed> {
        let tag = self.varint()?;
        // Protobuf ends at 2^29 - 1; what is above is as unknown as the rest.
        let field = u32::try_from(tag >> 3).unwrap_or(u32::MAX);
        Ok((field, (tag & 7) as u8))
    }

    /// Takes the tag if it is the expected one.
    fn take_tag(&mut self, field: u32, wire_type: u8) -> Result<bool, Malformed> {
        if field < 16 {
            // One byte, the only case in our own messages.
            let expected = (field << 3) as u8 | wire_type;
            return Ok(match self.rest.split_first() {
                Some((&tag, rest)) if tag == expected => {
                    self.rest = rest;
                    true
                }
                _ => false,
            });
        }
        if self.rest.is_empty() {
            return Ok(false);
        }
        let mut ahead = self.clone();
        let found = ahead.next_tag()?;
        if found == (field, wire_type) {
            *self = ahead;
            return Ok(true);
        }
        Ok(false)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().enumerate() {
            // The tenth byte has room for the 64th bit only.
            if i == 9 && byte > 1 {
                return Err(Malformed::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                if byte == 0 && i > 0 {
                    return Err(Malformed::Varint);
                }
                self.rest = self.rest.get(i + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(Malformed::Truncated)
    }
}

/// The value of a field of a format that this code does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_every_second_encoding_of_a_number() {
        let number = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            let value = reader.uint(1)?;
            reader.end().map(|()| value)
        };
        assert_eq!(number(&[0x08, 0x01]), Ok(1));
        assert_eq!(number(&[]), Ok(0));
        assert_eq!(number(&[0x08, 0x00]), Err(Malformed::Default(1)));
        assert_eq!(number(&[0x08, 0x81, 0x00]), Err(Malformed::Varint));
        assert_eq!(number(&[0x88, 0x00, 0x01]), Err(Malformed::Varint));
        assert_eq!(number(&[0x08, 0x81]), Err(Malformed::Truncated));
        assert_eq!(number(&[0x08, 0x01, 0x08, 0x02]), Err(Malformed::Misplaced(1)));
        assert_eq!(number(&[0x08, 0x01, 0x10, 0x02]), Err(Malformed::Misplaced(2)));
        assert_eq!(number(&[0x0a, 0x01, 0x02]), Err(Malformed::Misplaced(1)));
        let most = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(number(&most), Ok(u64::MAX));
        let more = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(number(&more), Err(Malformed::Varint));
    }

    #[test]
    fn a_required_field_must_be_there() {
        // Field 2 before field 1.
        let mut reader = Reader::new(&[0x12, 0x01, 0x07, 0x08, 0x01]);
        assert_eq!(reader.required_uint(1), Err(Malformed::Missing(1)));
        let mut reader = Reader::new(&[0x08, 0x01, 0x08, 0x01]);
        assert_eq!(reader.required_uint(1), Ok(1));
        assert_eq!(reader.hash(2), Err(Malformed::Missing(2)));
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: u64) {
            let mut writer = Writer::new();
            writer.uint(3, value);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.uint(3), Ok(value));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn reading_never_panics(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while let Ok(Some(_)) = reader.any() {}
            let mut reader = Reader::new(&bytes);
            let _ = reader.uint(1);
            let _ = reader.bytes(2);
            let _ = reader.packed(3, |_| Ok(()));
            let _ = reader.end();
        }
    }
}
