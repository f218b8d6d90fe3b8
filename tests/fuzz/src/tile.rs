//! Entries of logs, tiles and bundles; a bundle replayed as a log's beginning.

use std::str::from_utf8;

use bytes::Bytes;
use syndicate::dime::Domain;
use syndicate::proof::entry::{self, MAX_ENTRY, OutlineKind, UserPayload, outline};
use syndicate::proof::map::PlainMap;
use syndicate::proof::replay::{Change, Expected, MapEngine as _, Replayer};
use syndicate::proof::tile::{
    MAX_PATH, Resource, TileCoordinate, WIDTH, decode_bundle, decode_bundle_prefix, encode_bundle,
};
use syndicate::proof::{Entry, Kind, Label};

use super::mini_log::{LOG_SEED, ORIGIN};

pub fn entry(bytes: &[u8]) {
    if let Ok(payload) = UserPayload::decode(bytes) {
        assert_eq!(payload.encode(), bytes);
    }
    let outlined = outline(bytes);
    let Ok(entry) = Entry::decode(bytes) else { return };
    assert!(bytes.len() <= MAX_ENTRY);
    assert_eq!(entry.encode(), bytes);
    assert_eq!(entry::format_of(bytes), Ok(entry::FORMAT));
    // A reader of another format sees the same of it.
    let outlined = outlined.expect("what is decoded has an outline");
    assert_eq!(outlined.time, entry.time);
    let moves = match &entry.kind {
        Kind::Domain(it) => {
            let domain: Domain = it.domain.parse().expect("a name that was read");
            assert_eq!(domain.as_str(), it.domain);
            Some((Label::of_domain(&domain), it.version, it.current))
        }
        Kind::User(it) => Some((it.label, it.version, it.current)),
        Kind::Forgotten(it) => Some((it.label, it.version, 0)),
        Kind::Root(root) => {
            assert_eq!(outlined.kind, OutlineKind::Root(*root));
            None
        }
        _ => None,
    };
    if let Some((label, version, current)) = moves {
        let OutlineKind::Moves { label: l, version: v, current: c, .. } = outlined.kind else {
            panic!("{:?}", outlined.kind);
        };
        assert_eq!((label, version, current), (l, v, c));
        assert!(current <= version);
    }
    let change = Change::of(7, Bytes::copy_from_slice(bytes)).expect("decoded before");
    assert!(change.is_none_or(|change| change.version > 0));
}

/// The first byte: the width of the bundle.
pub fn tile(bytes: &[u8]) {
    if let Ok(text) = from_utf8(bytes)
        && let Ok(resource) = text.parse::<Resource>()
    {
        assert_eq!(resource.to_string(), text);
        assert!(text.len() <= MAX_PATH);
    }
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let width = u16::from(first) + 1;
    assert!(width <= WIDTH);
    let at = TileCoordinate { level: 0, index: 0, width };
    if let Ok(hashes) = at.hashes(bytes) {
        assert_eq!(hashes.len(), usize::from(width));
    }
    // The beginning of a full bundle.
    if let Ok(prefix) = decode_bundle_prefix(bytes, width) {
        let full = decode_bundle(bytes, WIDTH).expect("only full bundles are cut");
        assert_eq!(prefix, full[..usize::from(width)]);
    }
    let Ok(entries) = decode_bundle(bytes, width) else { return };
    assert_eq!(encode_bundle(&entries).as_deref(), Ok(bytes));
    replay(&entries);
}

/// What is replayed is one map: of the same entries the same root.
fn replay(entries: &[&[u8]]) {
    let expected = Expected {
        origin: ORIGIN.into(),
        log_key: syndicate::dime::ed25519::public_key(&LOG_SEED),
    };
    let (mut replayer, mut map) = (Replayer::new(expected), PlainMap::new());
    for entry in entries {
        let index = replayer.next_index();
        match replayer.push(&mut map, Bytes::copy_from_slice(entry)) {
            Ok(Some(batch)) => {
                assert_eq!(batch.index, index);
                assert_eq!(replayer.next_index(), replayer.position().size);
                assert_eq!(map.head().root, batch.root.root);
                assert_eq!(map.len() as u64, batch.root.labels);
            }
            Ok(None) => assert_eq!(replayer.next_index(), index + 1),
            Err(_) => {
                // It stays stopped.
                assert!(replayer.push(&mut map, Bytes::copy_from_slice(entry)).is_err());
                return;
            }
        }
    }
}
