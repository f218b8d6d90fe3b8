//! The one written form: a JSON object, keys ascending, no spaces (RFC 8785),
//! bytes in base64 (standard alphabet, padded), times as milliseconds, notes and
//! keys as text. Any other layout of the same object is read, and written anew
//! in this one: the id is of this form.

use std::fmt::Display;
use std::str::FromStr;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    CLIENT, Entries, Evidence, FORMAT, Fork, Incident, Kind, MAX_BLOBS, MAX_INCIDENT, MAX_LEAVES,
    MAX_MESSAGE, MAX_RECEIPTS, MAX_RECEIVED, MAX_ROUNDS, MAX_RULE, Placed, Receipts, Received,
    Round, Shown, TipProof, Victim,
};
use crate::dime::{Name, Rejection, Timestamp};
use crate::proof::checkpoint::{MAX_ORIGIN, SignedCheckpoint};
use crate::proof::dnssec::MAX_CHAIN;
use crate::proof::entry::MAX_ENTRY;
use crate::proof::map::CHAIN_START;
use crate::proof::merkle::MAX_PROOF;
use crate::proof::note::VerifierKey;
use crate::proof::receipt::json::{Base64, Json as ReceiptJson, LeafJson, MapJson, is_zero};
use crate::proof::receipt::{Leaf, Receipt, decode_map};
use crate::proof::wire::{Reader, Writer};
use crate::proof::{Hash, Label};

/// Times above this are no whole numbers for every reader of JSON.
const MAX_TIME: u64 = (1 << 53) - 1;

impl Incident {
    /// The canonical file.
    pub fn to_bytes(&self) -> Bytes {
        self.to_json().to_string().into()
    }

    /// The same as an object, for those who put it into another one.
    pub fn to_json(&self) -> serde_json::Value {
        // Strings, numbers and maps with string keys always serialize.
        serde_json::to_value(File::of(self)).unwrap_or_default()
    }

    /// Rule `incident` for anything that is not one of [`FORMAT`], of at most
    /// [`MAX_INCIDENT`] bytes, whose parts are within their limits and belong
    /// to its kind. Says nothing about whether it is true.
    pub fn read(bytes: &[u8]) -> Result<Incident, Rejection> {
        if bytes.len() > MAX_INCIDENT {
            return Err(refuse("it is longer than 8 MiB"));
        }
        let file: File = serde_json::from_slice(bytes).map_err(refuse)?;
        let incident = file.into_incident()?;
        // Another layout of it may have been shorter.
        if incident.to_bytes().len() > MAX_INCIDENT {
            return Err(refuse("it is longer than 8 MiB"));
        }
        Ok(incident)
    }

    /// Whether the bytes look like an incident rather than a receipt: a JSON
    /// object with `kind` and `evidence`.
    pub fn is_one(bytes: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Head {
            #[expect(dead_code, reason = "that it is there counts")]
            kind: String,
            #[expect(dead_code, reason = "that it is there counts")]
            evidence: serde::de::IgnoredAny,
        }
        bytes.trim_ascii_start().first() == Some(&b'{')
            && serde_json::from_slice::<Head>(bytes).is_ok()
    }
}

fn refuse(why: impl Display) -> Rejection {
    Rejection::new("incident", format!("not an incident: {why}"))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u64,
    kind: Text<Kind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Text<Name>>,
    at: Time,
    observer: String,
    evidence: EvidenceJson,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum EvidenceJson {
    Receipts(ReceiptsJson),
    Fork(ForkJson),
    Entries(EntriesJson),
    Received(ReceivedJson),
    Victim(VictimJson),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptsJson {
    receipts: Vec<ReceiptJson>,
    rounds: Vec<RoundJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoundJson {
    origin: String,
    at: Time,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForkJson {
    key: Text<VerifierKey>,
    smaller: Note,
    larger: Note,
    prefix: Fixed,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    proof: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntriesJson {
    key: Text<VerifierKey>,
    checkpoint: Note,
    leaves: Vec<PlacedJson>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tips: Vec<TipJson>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    blobs: Vec<Base64>,
    rule: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacedJson {
    index: u64,
    leaf: LeafJson,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TipJson {
    label: Fixed,
    #[serde(default, skip_serializing_if = "is_zero")]
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<Fixed>,
    map: MapJson,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<LastJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastJson {
    entry: Base64,
    chain: Fixed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceivedJson {
    rule: String,
    message: String,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    bytes: Base64,
    now: ShownJson,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<ShownJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShownJson {
    at: Time,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    record: Base64,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    chain: Base64,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    org_signet: Base64,
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    signet: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VictimJson {
    shown: ShownJson,
    receipts: Vec<ReceiptJson>,
}

/// What prints and parses as one text.
struct Text<T>(T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr<Err = Rejection> + Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = text.parse::<T>().map_err(D::Error::custom)?;
        match value.to_string() == text {
            true => Ok(Text(value)),
            false => Err(D::Error::custom("it is not in its normal form")),
        }
    }
}

/// A signed note, as text.
struct Note(SignedCheckpoint);

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Note {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Note, D::Error> {
        let text = String::deserialize(deserializer)?;
        SignedCheckpoint::parse(text.as_bytes()).map(Note).map_err(D::Error::custom)
    }
}

/// Milliseconds.
struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.millis())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let millis = u64::deserialize(deserializer)?;
        match millis <= MAX_TIME {
            true => Ok(Time(Timestamp::from_millis(millis))),
            false => Err(D::Error::custom("a time above 2^53-1")),
        }
    }
}

/// 32 bytes in base64.
struct Fixed(Hash);

impl Serialize for Fixed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Base64(self.0.to_vec()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fixed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fixed, D::Error> {
        let bytes = Base64::deserialize(deserializer)?.0;
        bytes.try_into().map(Fixed).map_err(|_| D::Error::custom("it does not have 32 bytes"))
    }
}

impl File {
    fn of(incident: &Incident) -> File {
        File {
            format: FORMAT,
            kind: Text(incident.kind),
            name: incident.name.clone().map(Text),
            at: Time(incident.at),
            observer: incident.observer.clone(),
            evidence: match &incident.evidence {
                Evidence::Receipts(seen) => EvidenceJson::Receipts(ReceiptsJson::of(seen)),
                Evidence::Fork(fork) => EvidenceJson::Fork(ForkJson::of(fork)),
                Evidence::Entries(entries) => EvidenceJson::Entries(EntriesJson::of(entries)),
                Evidence::Received(received) => EvidenceJson::Received(ReceivedJson::of(received)),
                Evidence::Victim(victim) => EvidenceJson::Victim(VictimJson {
                    shown: ShownJson::of(&victim.shown),
                    receipts: victim.receipts.iter().map(ReceiptJson::of).collect(),
                }),
            },
        }
    }

    fn into_incident(self) -> Result<Incident, Rejection> {
        if self.format != FORMAT {
            return Err(refuse("this format is not known"));
        }
        let observer = self.observer;
        let fits = (1..=MAX_ORIGIN).contains(&observer.len());
        if !fits || observer.contains(char::is_control) {
            return Err(refuse(format!("the observer is neither an origin nor {CLIENT:?}")));
        }
        let evidence = match self.evidence {
            EvidenceJson::Receipts(seen) => Evidence::Receipts(seen.into_parts()?),
            EvidenceJson::Fork(fork) => Evidence::Fork(Box::new(fork.into_fork()?)),
            EvidenceJson::Entries(entries) => Evidence::Entries(Box::new(entries.into_entries()?)),
            EvidenceJson::Received(received) => {
                Evidence::Received(Box::new(received.into_received()?))
            }
            EvidenceJson::Victim(victim) => Evidence::Victim(Box::new(Victim {
                shown: victim.shown.into_shown()?,
                receipts: receipts(&victim.receipts, 1)?,
            })),
        };
        let (kind, name) = (self.kind.0, self.name.map(|name| name.0));
        if !kind.rests_on(&evidence) || !kind.takes(name.as_ref()) {
            return Err(refuse("its kind has other evidence, or another sort of name"));
        }
        Ok(Incident { kind, name, at: self.at.0, observer, evidence })
    }
}

/// At most `limit` of them.
fn bounded<T>(list: Vec<T>, limit: usize, what: &str) -> Result<Vec<T>, Rejection> {
    match list.len() <= limit {
        true => Ok(list),
        false => Err(refuse(format!("more than {limit} {what}"))),
    }
}

fn short(bytes: Vec<u8>, limit: usize, what: &str) -> Result<Bytes, Rejection> {
    match bytes.len() <= limit {
        true => Ok(bytes.into()),
        false => Err(refuse(format!("{what} has more than {limit} bytes"))),
    }
}

fn words(text: String, limit: usize, what: &str) -> Result<String, Rejection> {
    match text.len() <= limit && !text.contains(char::is_control) {
        true => Ok(text),
        false => Err(refuse(format!("{what} is too long, or has control characters"))),
    }
}

fn receipts(list: &[ReceiptJson], at_least: usize) -> Result<Vec<Receipt>, Rejection> {
    if !(at_least..=MAX_RECEIPTS).contains(&list.len()) {
        return Err(refuse(format!("it has {} receipts", list.len())));
    }
    list.iter().map(|json| Ok(Receipt::decode(&json.encode())?)).collect()
}

fn hashes(bytes: &[u8]) -> Result<Vec<Hash>, Rejection> {
    match bytes.as_chunks::<32>() {
        (hashes, []) if hashes.len() <= MAX_PROOF => Ok(hashes.to_vec()),
        _ => Err(refuse("a proof is not up to 63 hashes")),
    }
}

fn entry(bytes: Vec<u8>) -> Result<Bytes, Rejection> {
    // A mirror may have signed an entry that is too long: tiles hold 64 KiB.
    short(bytes, MAX_ENTRY.max(usize::from(u16::MAX)), "an entry")
}

impl ReceiptsJson {
    fn of(seen: &Receipts) -> ReceiptsJson {
        let rounds = seen.rounds.iter();
        ReceiptsJson {
            receipts: seen.receipts.iter().map(ReceiptJson::of).collect(),
            rounds: rounds
                .map(|round| RoundJson { origin: round.origin.clone(), at: Time(round.at) })
                .collect(),
        }
    }

    fn into_parts(self) -> Result<Receipts, Rejection> {
        let rounds = bounded(self.rounds, MAX_ROUNDS, "rounds")?.into_iter();
        let rounds = rounds.map(|round| {
            Ok(Round { origin: words(round.origin, MAX_ORIGIN, "an origin")?, at: round.at.0 })
        });
        Ok(Receipts {
            receipts: receipts(&self.receipts, 2)?,
            rounds: rounds.collect::<Result<_, Rejection>>()?,
        })
    }
}

impl ForkJson {
    fn of(fork: &Fork) -> ForkJson {
        ForkJson {
            key: Text(fork.key.clone()),
            smaller: Note(fork.smaller.clone()),
            larger: Note(fork.larger.clone()),
            prefix: Fixed(fork.prefix),
            proof: Base64(fork.proof.concat()),
        }
    }

    fn into_fork(self) -> Result<Fork, Rejection> {
        Ok(Fork {
            key: self.key.0,
            smaller: self.smaller.0,
            larger: self.larger.0,
            prefix: self.prefix.0,
            proof: hashes(&self.proof.0)?,
        })
    }
}

impl EntriesJson {
    fn of(entries: &Entries) -> EntriesJson {
        let leaves = entries.leaves.iter();
        EntriesJson {
            key: Text(entries.key.clone()),
            checkpoint: Note(entries.checkpoint.clone()),
            leaves: leaves
                .map(|placed| PlacedJson { index: placed.index, leaf: LeafJson::of(&placed.leaf) })
                .collect(),
            tips: entries.tips.iter().map(TipJson::of).collect(),
            blobs: entries.blobs.iter().map(|blob| Base64(blob.to_vec())).collect(),
            rule: entries.rule.clone(),
        }
    }

    fn into_entries(self) -> Result<Entries, Rejection> {
        let leaves = bounded(self.leaves, MAX_LEAVES, "leaves")?;
        if leaves.is_empty() || !leaves.is_sorted_by(|one, next| one.index < next.index) {
            return Err(refuse("no leaves, or they do not ascend"));
        }
        let placed = leaves.into_iter().map(|placed| {
            let path = hashes(&placed.leaf.path.0)?;
            let leaf = Leaf { entry: entry(placed.leaf.entry.0)?, path };
            Ok(Placed { index: placed.index, leaf })
        });
        let tips = bounded(self.tips, MAX_LEAVES, "labels")?.into_iter().map(TipJson::into_tip);
        let blobs = bounded(self.blobs, MAX_BLOBS, "blobs")?.into_iter();
        Ok(Entries {
            key: self.key.0,
            checkpoint: self.checkpoint.0,
            leaves: placed.collect::<Result<_, Rejection>>()?,
            tips: tips.collect::<Result<_, Rejection>>()?,
            blobs: blobs
                .map(|blob| short(blob.0, MAX_RECEIVED, "a blob"))
                .collect::<Result<_, _>>()?,
            rule: words(self.rule, MAX_RULE, "a rule")?,
        })
    }
}

impl TipJson {
    fn of(tip: &TipProof) -> TipJson {
        TipJson {
            label: Fixed(tip.label.0),
            version: tip.version,
            chain: (tip.chain != CHAIN_START).then_some(Fixed(tip.chain)),
            map: MapJson::of(&tip.map),
            last: tip.last.as_ref().map(|(entry, chain)| LastJson {
                entry: Base64(entry.to_vec()),
                chain: Fixed(*chain),
            }),
        }
    }

    fn into_tip(self) -> Result<TipProof, Rejection> {
        let mut writer = Writer::new();
        self.map.encode(&mut writer);
        let map = decode_map(Reader::new(&writer.finish()), self.version > 0)?;
        let last = match self.last {
            Some(last) => Some((entry(last.entry.0)?, last.chain.0)),
            None => None,
        };
        Ok(TipProof {
            label: Label(self.label.0),
            version: self.version,
            chain: self.chain.map_or(CHAIN_START, |chain| chain.0),
            map,
            last,
        })
    }
}

impl ReceivedJson {
    fn of(received: &Received) -> ReceivedJson {
        ReceivedJson {
            rule: received.rule.clone(),
            message: received.message.clone(),
            bytes: Base64(received.bytes.to_vec()),
            now: ShownJson::of(&received.now),
            before: received.before.as_ref().map(ShownJson::of),
        }
    }

    fn into_received(self) -> Result<Received, Rejection> {
        Ok(Received {
            rule: words(self.rule, MAX_RULE, "a rule")?,
            message: words(self.message, MAX_MESSAGE, "a message")?,
            bytes: short(self.bytes.0, MAX_RECEIVED, "what was received")?,
            now: self.now.into_shown()?,
            before: self.before.map(ShownJson::into_shown).transpose()?,
        })
    }
}

impl ShownJson {
    fn of(shown: &Shown) -> ShownJson {
        ShownJson {
            at: Time(shown.at),
            record: Base64(shown.record.to_vec()),
            chain: Base64(shown.chain.to_vec()),
            org_signet: Base64(shown.org_signet.to_vec()),
            signet: Base64(shown.signet.to_vec()),
        }
    }

    fn into_shown(self) -> Result<Shown, Rejection> {
        Ok(Shown {
            at: self.at.0,
            record: short(self.record.0, MAX_RECEIVED, "a record")?,
            chain: short(self.chain.0, MAX_CHAIN, "a DNSSEC chain")?,
            org_signet: short(self.org_signet.0, MAX_RECEIVED, "an org signet")?,
            signet: short(self.signet.0, MAX_RECEIVED, "a signet")?,
        })
    }
}
