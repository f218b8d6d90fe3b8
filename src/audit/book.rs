//! What an auditor holds of one log between two runs: where it stands in the
//! tree and in the replay, the map, what the domains were seen with, and the
//! bytes that the log still owes.
//!
//! One file: a line of JSON; 81 bytes for each label (label, 1 for a domain or 2
//! for a mailbox, version and `current` as u64, chain); a line of JSON with the
//! domains; SHA-256 of all that. It is believed only after its hash, its tree
//! and its map root have been made again.

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Tree;
use super::compare::Seen;
use crate::client::follow;
use crate::dime::{Domain, Timestamp};
use crate::proof::entry::Holder;
use crate::proof::map::empty_root;
use crate::proof::replay::{self, Tip, Unknown};
use crate::proof::{Hash, Label};

/// The `format` that this code writes and knows.
const FORMAT: u64 = 1;
/// Bytes of a label in the file.
const TIP: usize = 81;
/// Batch ends that are remembered: two weeks of heartbeats.
pub const MAX_ENDS: usize = 2016;
/// Largest file that is read, bytes: about 20 million labels.
pub const MAX_BOOK: u64 = 2 << 30;

/// See the module. Always between two batches.
#[derive(Debug)]
pub struct Book {
    /// In the log's tree.
    pub position: follow::Position,
    pub replay: replay::Position,
    pub tree: Tree,
    /// The last directory root.
    pub root: Hash,
    pub domains: BTreeMap<Domain, Arc<Seen>>,
    /// Entries of domains whose bytes were not fetched and judged: index and entry.
    pub owed: BTreeMap<u64, Vec<u8>>,
    /// A DNSSEC chain of this log led to the DNS root that is believed.
    pub rooted: bool,
    /// The tree's root at the end of each of the last 2,016 batches, by
    /// size: an older checkpoint is one of them.
    pub ends: BTreeMap<u64, Hash>,
}

/// The file is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kept state is damaged: {0}")]
pub struct Damage(pub &'static str);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: u64,
    key: String,
    size: u64,
    time: u64,
    vrf_key: String,
    closed: bool,
    unknown: Option<(u64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    carrying: Option<String>,
    root: String,
    labels: u64,
    position: String,
    owed: BTreeMap<u64, String>,
    rooted: bool,
    ends: Vec<(u64, String)>,
}

/// Of a domain: its version in force, whether earlier ones are left out, and
/// for each version kept its number, time, POKs and org signet.
type Line = (u64, bool, Vec<(u64, u64, String, Option<String>)>);

impl Default for Book {
    fn default() -> Book {
        let replay = replay::Position {
            size: 0,
            time: Timestamp::from_millis(0),
            vrf_key: [0; 32],
            closed: false,
            unknown: None,
            carrying: None,
        };
        Book {
            position: follow::Position::new(),
            replay,
            tree: Tree::new(),
            root: empty_root(),
            domains: BTreeMap::new(),
            owed: BTreeMap::new(),
            rooted: false,
            ends: BTreeMap::new(),
        }
    }
}

impl Book {
    /// The file, for the log of this key.
    pub fn write(&self, key: &str) -> Vec<u8> {
        let head = Head {
            format: FORMAT,
            key: key.to_owned(),
            size: self.replay.size,
            time: self.replay.time.millis(),
            vrf_key: hex::encode(self.replay.vrf_key),
            closed: self.replay.closed,
            carrying: self.replay.carrying.as_ref().map(|carrying| hex::encode(carrying.encode())),
            unknown: self.replay.unknown.map(|unknown| (unknown.index, unknown.format)),
            root: hex::encode(self.root),
            labels: self.tree.labels(),
            position: hex::encode(self.position.encode()),
            owed: self.owed.iter().map(|(at, entry)| (*at, hex::encode(entry))).collect(),
            rooted: self.rooted,
            ends: self.ends.iter().map(|(size, root)| (*size, hex::encode(root))).collect(),
        };
        // Numbers, strings and maps with string keys always serialize.
        let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
        bytes.push(b'\n');
        self.tree.for_each(|label, tip| {
            bytes.extend_from_slice(&label.0);
            bytes.push(match tip.holder {
                Holder::Domain => 1,
                Holder::User => 2,
            });
            bytes.extend_from_slice(&tip.version.to_be_bytes());
            bytes.extend_from_slice(&tip.current.to_be_bytes());
            bytes.extend_from_slice(&tip.chain);
        });
        let domains: BTreeMap<&str, Line> = self
            .domains
            .iter()
            .map(|(domain, seen)| {
                let parts = seen.parts().map(|(version, time, poks, org)| {
                    (version, time, hex::encode(poks), org.map(hex::encode))
                });
                (domain.as_str(), (seen.current, seen.cut, parts.collect()))
            })
            .collect();
        bytes.extend(serde_json::to_vec(&domains).unwrap_or_default());
        bytes.push(b'\n');
        let hash: Hash = Sha256::digest(&bytes).into();
        bytes.extend_from_slice(&hash);
        bytes
    }

    /// Reads it back and makes everything again that can be made.
    pub fn read(bytes: &[u8], key: &str) -> Result<Book, Damage> {
        let (body, hash) = bytes.split_last_chunk::<32>().ok_or(Damage("it is too short"))?;
        if *hash != <Hash>::from(Sha256::digest(body)) {
            return Err(Damage("its hash is another one"));
        }
        let line = body.iter().position(|byte| *byte == b'\n').ok_or(Damage("no first line"))?;
        let (head, rest) = body.split_at(line);
        let head: Head = serde_json::from_slice(head).map_err(|_| Damage("its first line"))?;
        if head.format != FORMAT {
            return Err(Damage("its format is not known"));
        }
        if head.key != key {
            return Err(Damage("it is of another log"));
        }
        let rest = rest.get(1..).unwrap_or_default();
        let length = usize::try_from(head.labels).ok().and_then(|n| n.checked_mul(TIP));
        let (tips, rest) =
            length.and_then(|n| rest.split_at_checked(n)).ok_or(Damage("it is too short"))?;
        let mut tree = Tree::new();
        for tip in tips.chunks_exact(TIP) {
            let (label, tip) = read_tip(tip).ok_or(Damage("a label"))?;
            tree.insert(label, tip);
        }
        let root = hash32(&head.root)?;
        if tree.root() != root || tree.labels() != head.labels {
            return Err(Damage("its labels do not make its root"));
        }
        let position = hex::decode(&head.position).map_err(|_| Damage("its position"))?;
        let position = follow::Position::decode(&position).map_err(|_| Damage("its position"))?;
        if position.size() != head.size {
            return Err(Damage("its position is at another size"));
        }
        let lines: BTreeMap<String, Line> =
            serde_json::from_slice(rest).map_err(|_| Damage("its domains"))?;
        let mut domains = BTreeMap::new();
        for (domain, (current, cut, parts)) in lines {
            let domain = Domain::from_str(&domain).map_err(|_| Damage("a domain"))?;
            let mut seen = Seen { sights: Vec::new(), current, cut };
            for (version, time, poks, org) in parts {
                let org = org.map(|org| hash32(&org)).transpose()?;
                seen.push_part(version, time, hash32(&poks)?, org);
            }
            domains.insert(domain, Arc::new(seen));
        }
        let mut owed = BTreeMap::new();
        for (index, entry) in head.owed {
            owed.insert(index, hex::decode(entry).map_err(|_| Damage("an entry"))?);
        }
        let mut ends = BTreeMap::new();
        for (size, root) in head.ends {
            ends.insert(size, hash32(&root)?);
        }
        let carrying = match &head.carrying {
            None => None,
            Some(text) => {
                let bytes = hex::decode(text).ok();
                let read = bytes.and_then(|bytes| replay::Carrying::decode(&bytes));
                Some(read.ok_or(Damage("what is carried over"))?)
            }
        };
        let replay = replay::Position {
            size: head.size,
            time: Timestamp::from_millis(head.time),
            vrf_key: hash32(&head.vrf_key)?,
            closed: head.closed,
            unknown: head.unknown.map(|(index, format)| Unknown { index, format }),
            carrying,
        };
        Ok(Book { position, replay, tree, root, domains, owed, rooted: head.rooted, ends })
    }
}

fn read_tip(bytes: &[u8]) -> Option<(Label, Tip)> {
    let (label, rest) = bytes.split_first_chunk::<32>()?;
    let (holder, rest) = rest.split_first()?;
    let holder = match holder {
        1 => Holder::Domain,
        2 => Holder::User,
        _ => return None,
    };
    let (version, rest) = rest.split_first_chunk::<8>()?;
    let (current, chain) = rest.split_first_chunk::<8>()?;
    let tip = Tip {
        holder,
        version: u64::from_be_bytes(*version),
        current: u64::from_be_bytes(*current),
        chain: chain.try_into().ok()?,
    };
    Some((Label(*label), tip))
}

fn hash32(text: &str) -> Result<Hash, Damage> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| Damage("a hash"))?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        let mut book = Book::default();
        for byte in 0..20u8 {
            let holder = if byte % 3 == 0 { Holder::Domain } else { Holder::User };
            let version = 1 + u64::from(byte);
            let tip = Tip { holder, version, current: version, chain: [byte; 32] };
            book.tree.insert(Label([byte.wrapping_mul(13); 32]), tip);
        }
        book.root = book.tree.root();
        let mut seen = Seen { current: 2, ..Seen::default() };
        seen.push_part(1, 1000, [1; 32], None);
        seen.push_part(2, 2000, [2; 32], Some([3; 32]));
        book.domains.insert("one.example".parse().unwrap(), Arc::new(seen));
        book.owed.insert(7, vec![1, 2, 3]);
        book.ends.insert(5, [4; 32]);
        book
    }

    #[test]
    fn it_comes_back_as_it_went() {
        let book = book();
        let bytes = book.write("key");
        let mut read = Book::read(&bytes, "key").unwrap();
        assert_eq!((read.root, read.tree.root()), (book.root, book.root));
        assert_eq!(read.domains, book.domains);
        assert_eq!((&read.owed, &read.ends), (&book.owed, &book.ends));
        assert_eq!(read.replay, book.replay);
        assert_eq!(read.write("key"), bytes);
        assert!(Book::read(&bytes, "another").is_err());
    }

    #[test]
    fn no_changed_byte_is_believed() {
        let bytes = book().write("key");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Book::read(&changed, "key").is_err(), "byte {at}");
            assert!(Book::read(&bytes[..at], "key").is_err(), "cut at {at}");
        }
    }
}
