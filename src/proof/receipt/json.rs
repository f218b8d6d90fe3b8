//! The receipt as JSON: the same fields under the same names, bytes in base64
//! (standard alphabet, padded), times as numbers. What counts is the binary
//! form: reading JSON means encoding it and decoding that.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{End, FORMAT, MapProof, Receipt, Subject, Writer, encode_map};
use crate::dime::Rejection;
use crate::proof::map::CHAIN_START;
use crate::proof::wire::Reader;

impl Receipt {
    /// One object, no line feeds.
    pub fn to_json(&self) -> serde_json::Value {
        // Strings, numbers and maps with string keys always serialize.
        serde_json::to_value(Json::of(self)).unwrap_or_default()
    }

    /// Rule `json` for what is not such an object, else as [`Receipt::decode`].
    pub fn from_json(text: &[u8]) -> Result<Receipt, Rejection> {
        if text.len() > 2 * super::MAX_RECEIPT {
            return Err(Rejection::new("json", "the receipt is longer than 64 MiB"));
        }
        let json: Json = serde_json::from_slice(text)
            .map_err(|error| Rejection::new("json", format!("not a receipt: {error}")))?;
        Ok(Receipt::decode(&json.encode())?)
    }

    /// From either form, told apart by the first byte: `{` begins no binary one.
    pub fn read(bytes: &[u8]) -> Result<Receipt, Rejection> {
        match bytes.trim_ascii_start().first() {
            Some(b'{') => Receipt::from_json(bytes),
            _ => Ok(Receipt::decode(bytes)?),
        }
    }
}

/// Bytes that are base64 in JSON.
#[derive(Default, PartialEq, Eq)]
pub(in crate::proof) struct Base64(pub(in crate::proof) Vec<u8>);

impl Base64 {
    pub(in crate::proof) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(Base64).map_err(serde::de::Error::custom)
    }
}

pub(in crate::proof) fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::proof) struct Json {
    format: u64,
    name: String,
    checkpoint: Base64,
    root: LeafJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    genesis: Option<LeafJson>,
    subject: SubjectJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<SubjectJson>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    blob: Vec<Base64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    withdrawn: Vec<Base64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closing: Option<LeafJson>,
    /// What the sender says of it in words. Signed by nobody, so never read.
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "it may be there and is not read")]
    summary: Option<serde::de::IgnoredAny>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::proof) struct LeafJson {
    pub(in crate::proof) entry: Base64,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    pub(in crate::proof) path: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectJson {
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    vrf_proof: Base64,
    map: MapJson,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    chain: Base64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    item: Vec<ItemJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<SeenJson>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    carry: Vec<CarryJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CarryJson {
    entry: LeafJson,
    index: u64,
    genesis: LeafJson,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    vrf_proof: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::proof) struct MapJson {
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    path: Base64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<EndJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum EndJson {
    Leaf {
        label: Base64,
        version: u64,
        chain: Base64,
    },
    Inner {
        #[serde(default, skip_serializing_if = "is_zero")]
        length: u64,
        prefix: Base64,
        left: Base64,
        right: Base64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemJson {
    entry: Base64,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    payload: Base64,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    opening: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenJson {
    #[serde(default, skip_serializing_if = "is_zero")]
    confirmed_at: u64,
    attempted_at: u64,
    signature: Base64,
}

impl Json {
    pub(in crate::proof) fn of(receipt: &Receipt) -> Json {
        Json {
            format: FORMAT,
            name: receipt.name.to_string(),
            checkpoint: Base64(receipt.checkpoint.to_vec()),
            root: LeafJson::of(&receipt.root),
            genesis: receipt.genesis.as_ref().map(LeafJson::of),
            subject: SubjectJson::of(&receipt.subject),
            domain: receipt.domain.as_ref().map(SubjectJson::of),
            blob: receipt.blobs.iter().map(|blob| Base64(blob.to_vec())).collect(),
            withdrawn: receipt.withdrawn.iter().map(|hash| Base64(hash.to_vec())).collect(),
            closing: receipt.closing.as_ref().map(LeafJson::of),
            summary: None,
        }
    }

    /// As the fields stand; whatever they break, decoding tells.
    pub(in crate::proof) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(4096);
        writer
            .uint(1, self.format)
            .bytes(2, self.name.as_bytes())
            .bytes(3, &self.checkpoint.0)
            .message(4, |w| self.root.encode(w));
        if let Some(genesis) = &self.genesis {
            writer.message(5, |w| genesis.encode(w));
        }
        writer.message(6, |w| self.subject.encode(w));
        if let Some(domain) = &self.domain {
            writer.message(7, |w| domain.encode(w));
        }
        for blob in &self.blob {
            writer.delimited(8, &blob.0);
        }
        for hash in &self.withdrawn {
            writer.delimited(9, &hash.0);
        }
        if let Some(closing) = &self.closing {
            writer.message(10, |w| closing.encode(w));
        }
        writer.finish()
    }
}

impl LeafJson {
    pub(in crate::proof) fn of(leaf: &super::Leaf) -> LeafJson {
        LeafJson { entry: Base64(leaf.entry.to_vec()), path: Base64(leaf.path.concat()) }
    }

    fn encode(&self, writer: &mut Writer) {
        writer.bytes(1, &self.entry.0).bytes(2, &self.path.0);
    }
}

impl SubjectJson {
    fn of(subject: &Subject) -> SubjectJson {
        let chain = if subject.chain == CHAIN_START { Vec::new() } else { subject.chain.to_vec() };
        SubjectJson {
            vrf_proof: Base64(subject.vrf_proof.map_or_else(Vec::new, |proof| proof.to_vec())),
            map: MapJson::of(&subject.map),
            chain: Base64(chain),
            item: subject.items.iter().map(ItemJson::of).collect(),
            seen: subject.seen.as_ref().map(|seen| SeenJson {
                confirmed_at: seen.confirmed_at.millis(),
                attempted_at: seen.attempted_at.millis(),
                signature: Base64(seen.signature.to_vec()),
            }),
            carry: subject.carries.iter().map(CarryJson::of).collect(),
        }
    }

    fn encode(&self, writer: &mut Writer) {
        writer
            .bytes(1, &self.vrf_proof.0)
            .message(2, |w| self.map.encode(w))
            .bytes(3, &self.chain.0);
        for item in &self.item {
            writer.message(4, |w| {
                w.bytes(1, &item.entry.0).bytes(2, &item.payload.0).bytes(3, &item.opening.0);
            });
        }
        if let Some(seen) = &self.seen {
            writer.message(5, |w| {
                w.uint(1, seen.confirmed_at).uint(2, seen.attempted_at).bytes(3, &seen.signature.0);
            });
        }
        for carry in &self.carry {
            writer.message(6, |w| {
                w.message(1, |w| carry.entry.encode(w))
                    .uint(2, carry.index)
                    .message(3, |w| carry.genesis.encode(w))
                    .bytes(4, &carry.vrf_proof.0);
            });
        }
    }
}

impl CarryJson {
    fn of(carry: &super::Carry) -> CarryJson {
        CarryJson {
            entry: LeafJson::of(&carry.entry),
            index: carry.index,
            genesis: LeafJson::of(&carry.genesis),
            vrf_proof: Base64(carry.vrf_proof.map_or_else(Vec::new, |proof| proof.to_vec())),
        }
    }
}

impl ItemJson {
    fn of(item: &super::Item) -> ItemJson {
        let hidden = item.hidden.as_ref();
        ItemJson {
            entry: Base64(item.entry.to_vec()),
            payload: Base64(hidden.map_or_else(Vec::new, |hidden| hidden.payload.to_vec())),
            opening: Base64(hidden.map_or_else(Vec::new, |hidden| hidden.opening.to_vec())),
        }
    }
}

impl MapJson {
    pub(in crate::proof) fn of(map: &MapProof) -> MapJson {
        let mut writer = Writer::new();
        encode_map(map, &mut writer);
        let encoded = writer.finish();
        // The path is the first field of what has just been written.
        let path = Reader::new(&encoded).bytes(1).unwrap_or_default().to_vec();
        let end = match &map.end {
            End::Present | End::Empty => None,
            End::Leaf { label, version, chain } => Some(EndJson::Leaf {
                label: Base64(label.0.to_vec()),
                version: *version,
                chain: Base64(chain.to_vec()),
            }),
            End::Inner { length, prefix, left, right } => Some(EndJson::Inner {
                length: u64::from(*length),
                prefix: Base64(prefix.to_vec()),
                left: Base64(left.to_vec()),
                right: Base64(right.to_vec()),
            }),
        };
        MapJson { path: Base64(path), end }
    }

    pub(in crate::proof) fn encode(&self, writer: &mut Writer) {
        writer.bytes(1, &self.path.0);
        match &self.end {
            None => {}
            Some(EndJson::Leaf { label, version, chain }) => {
                writer.message(2, |w| {
                    w.message(1, |w| {
                        w.bytes(1, &label.0).uint(2, *version).bytes(3, &chain.0);
                    });
                });
            }
            Some(EndJson::Inner { length, prefix, left, right }) => {
                writer.message(2, |w| {
                    w.message(2, |w| {
                        w.uint(1, *length).bytes(2, &prefix.0).bytes(3, &left.0).bytes(4, &right.0);
                    });
                });
            }
        }
    }
}
