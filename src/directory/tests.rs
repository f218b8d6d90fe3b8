//! The trie against a map that is built from nothing, by the plain rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::proof::map;
use crate::store::Blobs;

/// The whole map, the slow way.
#[derive(Clone, Default)]
struct Oracle(BTreeMap<Hash, LabelState>);

impl Oracle {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let start = LabelState { version: 0, current: 0, chain: map::CHAIN_START };
            let state = self.0.entry(change.label.0).or_insert(start);
            state.version = change.version;
            state.current = change.current;
            state.chain = map::chain_next(&state.chain, &change.leaf);
        }
    }

    fn root(&self) -> Hash {
        let leaves: Vec<_> = self.0.iter().collect();
        if leaves.is_empty() { map::empty_root() } else { node(&leaves) }
    }
}

fn node(leaves: &[(&Hash, &LabelState)]) -> Hash {
    let (first, last) = (leaves[0].0, leaves[leaves.len() - 1].0);
    if leaves.len() == 1 {
        return map::leaf_hash(&Label(*first), leaves[0].1.version, &leaves[0].1.chain);
    }
    let fork = (0..=255).find(|&at| Label(*first).bit(at) != Label(*last).bit(at)).unwrap();
    let middle = leaves.partition_point(|leaf| !Label(*leaf.0).bit(fork));
    let (left, right) = leaves.split_at(middle);
    map::inner_hash(fork, &masked(first, fork), &node(left), &node(right))
}

fn masked(label: &Hash, length: u8) -> Hash {
    std::array::from_fn(|byte| {
        (0..8).fold(0, |kept, bit| {
            let at = byte * 8 + bit;
            if at < usize::from(length) { kept | label[byte] & (0x80 >> bit) } else { kept }
        })
    })
}

/// Whether a lookup's proof leads from what it claims to its root.
fn holds(label: &Label, lookup: &Lookup) -> bool {
    let (mut hash, mut below) = match (&lookup.proof.end, lookup.state) {
        (MapEnd::Present, Some(state)) => (map::leaf_hash(label, state.version, &state.chain), 256),
        (MapEnd::Empty, None) => {
            return lookup.proof.path.is_empty() && lookup.head.root == map::empty_root();
        }
        (MapEnd::Leaf { label: other, version, chain }, None) if *other != label.0 => {
            (map::leaf_hash(&Label(*other), *version, chain), common(&label.0, other))
        }
        (MapEnd::Inner { length, prefix, left, right }, None) => {
            let shared = common(&label.0, prefix);
            if shared >= u16::from(*length) || *prefix != masked(prefix, *length) {
                return false;
            }
            (map::inner_hash(*length, prefix, left, right), shared)
        }
        _ => return false,
    };
    for &(length, other) in &lookup.proof.path {
        if u16::from(length) >= below {
            return false;
        }
        below = length.into();
        let prefix = masked(&label.0, length);
        hash = if label.bit(length) {
            map::inner_hash(length, &prefix, &other, &hash)
        } else {
            map::inner_hash(length, &prefix, &hash, &other)
        };
    }
    hash == lookup.head.root
}

fn common(a: &Hash, b: &Hash) -> u16 {
    (0..256).find(|&at| Label(*a).bit(at as u8) != Label(*b).bit(at as u8)).unwrap_or(256)
}

/// Labels that fork late, early, and one bit apart.
fn label() -> impl Strategy<Value = Label> {
    let far = any::<[u8; 32]>();
    let near = (0u8..4, 0usize..32, any::<u8>()).prop_map(|(base, at, flip)| {
        let mut label = [base.wrapping_mul(0x55); 32];
        label[at] ^= flip;
        label
    });
    let one_bit = (0u8..2, 0usize..256).prop_map(|(base, at)| {
        let mut label = [base.wrapping_mul(0xff); 32];
        label[at / 8] ^= 0x80 >> (at % 8);
        label
    });
    let end = (0u8..3, any::<u16>()).prop_map(|(base, tail)| {
        let mut label = [base; 32];
        label[30..].copy_from_slice(&tail.to_be_bytes());
        label
    });
    prop_oneof![far, near, one_bit, end].prop_map(Label)
}

/// Batches that name labels only; versions come from [`versioned`].
fn batches() -> impl Strategy<Value = Vec<Vec<(Label, u8, Hash)>>> {
    let change = (label(), any::<u8>(), any::<[u8; 32]>());
    prop::collection::vec(prop::collection::vec(change, 0..40), 1..8)
}

/// Gives each change of a batch the label's next version.
fn versioned(oracle: &Oracle, batch: &[(Label, u8, Hash)]) -> Vec<Change> {
    let mut next = BTreeMap::new();
    batch
        .iter()
        .map(|&(label, current, leaf)| {
            let known = oracle.0.get(&label.0).map_or(0, |state| state.version);
            let version = next.entry(label).or_insert(known);
            *version += 1;
            // Mostly the version itself, as in a log.
            let current = if current < 64 { u64::from(current) % *version } else { *version };
            Change { label, version: *version, current, leaf }
        })
        .collect()
}

/// All that a directory says, against the oracle of its served head.
fn agrees(directory: &Directory, oracle: &Oracle, others: &[Label]) {
    let head = directory.served();
    assert_eq!(head.root, oracle.root());
    assert_eq!(head.labels, oracle.0.len() as u64);
    for label in oracle.0.keys().map(|label| Label(*label)).chain(others.iter().copied()) {
        let lookup = directory.lookup(&label);
        assert_eq!(lookup.head, head);
        assert_eq!(lookup.state, oracle.0.get(&label.0).copied());
        assert!(holds(&label, &lookup), "{label}: {lookup:?}");
    }
}

fn options(threads: usize, follow: bool) -> Options {
    Options { threads, pending: 1_000_000, follow }
}

/// Labels spread over the map, by a counter.
fn spread(count: u64) -> Vec<Label> {
    (0..count).map(|n| Label(map::entry_leaf_hash(&n.to_be_bytes()))).collect()
}

fn first_versions(labels: &[Label]) -> Vec<Change> {
    labels.iter().map(|&label| Change { label, version: 1, current: 1, leaf: label.0 }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_batches_give_the_map_that_is_built_from_nothing(
        batches in batches(), others in prop::collection::vec(label(), 20), threads in 1usize..3,
    ) {
        let directory = Directory::new(options(threads, true));
        let mut oracle = Oracle::default();
        agrees(&directory, &oracle, &others);
        for batch in &batches {
            let changes = versioned(&oracle, batch);
            directory.apply(&changes).unwrap();
            oracle.apply(&changes);
            agrees(&directory, &oracle, &others);
        }
    }

    #[test]
    fn the_served_head_is_proved_while_later_batches_wait(
        batches in batches(), others in prop::collection::vec(label(), 10), lag in 1usize..4,
    ) {
        let directory = Directory::new(options(1, false));
        let mut oracles = vec![Oracle::default()];
        for batch in &batches {
            let mut oracle = oracles[oracles.len() - 1].clone();
            let changes = versioned(&oracle, batch);
            let head = directory.apply(&changes).unwrap();
            oracle.apply(&changes);
            prop_assert_eq!(head.root, oracle.root());
            for (label, state) in &oracle.0 {
                prop_assert_eq!(directory.state(&Label(*label)), Some(*state));
            }
            oracles.push(oracle);
            if let Some(batch) = (oracles.len() - 1).checked_sub(lag) {
                directory.publish(batch as u64).unwrap();
            }
            agrees(&directory, &oracles[directory.served().batch as usize], &others);
        }
    }

    #[test]
    fn batches_are_taken_back(
        batches in batches(), others in prop::collection::vec(label(), 10), keep in 0usize..8,
    ) {
        let directory = Directory::new(options(1, false));
        let mut oracles = vec![Oracle::default()];
        for batch in &batches {
            let mut oracle = oracles[oracles.len() - 1].clone();
            let changes = versioned(&oracle, batch);
            directory.apply(&changes).unwrap();
            oracle.apply(&changes);
            oracles.push(oracle);
        }
        let keep = keep.min(batches.len());
        prop_assert_eq!(directory.rollback(keep as u64).unwrap().root, oracles[keep].root());
        agrees(&directory, &oracles[0], &others);
        // And on from there, by another way.
        let mut oracle = oracles[keep].clone();
        let changes = versioned(&oracle, &batches[0]);
        let head = directory.apply(&changes).unwrap();
        oracle.apply(&changes);
        directory.publish(head.batch).unwrap();
        agrees(&directory, &oracle, &others);
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was(batches in batches()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = Arc::new(Directory::new(options(1, false)));
        let blobs = Blobs::memory();
        let mut oracle = Oracle::default();
        let (last, before) = batches.split_last().unwrap();
        for batch in before {
            let changes = versioned(&oracle, batch);
            directory.apply(&changes).unwrap();
            oracle.apply(&changes);
        }
        let batch = before.len() as u64;
        // One more batch waits; the snapshot is of what was before it.
        directory.apply(&versioned(&oracle, last)).unwrap();
        let restored = runtime.block_on(async {
            write(&directory, &blobs, batch, 77, b"notes").await.unwrap();
            assert_eq!(sizes(&blobs).await.unwrap(), [77]);
            restore(&blobs, 77, options(2, false)).await.unwrap().unwrap()
        });
        prop_assert_eq!((restored.size, &restored.notes[..]), (77, &b"notes"[..]));
        agrees(&restored.directory, &oracle, &[]);
        // Versions in force are carried over, and the next batch applies.
        let changes = versioned(&oracle, last);
        let head = restored.directory.apply(&changes).unwrap();
        oracle.apply(&changes);
        prop_assert_eq!(head.root, oracle.root());
        for (label, state) in &oracle.0 {
            prop_assert_eq!(restored.directory.state(&Label(*label)), Some(*state));
        }
    }
}

#[test]
fn large_batches_on_several_threads_agree_with_one() {
    let labels = spread(5_000);
    let one = Directory::new(options(1, true));
    let many = Directory::new(options(4, true));
    let changes = first_versions(&labels);
    assert_eq!(one.apply(&changes).unwrap(), many.apply(&changes).unwrap());
    let changes: Vec<Change> = labels
        .iter()
        .chain(&labels[..1_000])
        .enumerate()
        .map(|(n, &label)| {
            let version = if n < labels.len() { 2 } else { 3 };
            Change { label, version, current: 1, leaf: [n as u8; 32] }
        })
        .collect();
    let head = many.apply(&changes).unwrap();
    assert_eq!(one.apply(&changes).unwrap(), head);
    let mut oracle = Oracle::default();
    oracle.apply(&first_versions(&labels));
    oracle.apply(&changes);
    assert_eq!(head.root, oracle.root());
}

#[test]
fn a_refused_batch_changes_nothing() {
    let labels = spread(3_000);
    for threads in [1, 3] {
        let directory = Directory::new(options(threads, false));
        directory.apply(&first_versions(&labels[..2_000])).unwrap();
        let before = directory.committed();
        let mut changes = first_versions(&labels[2_000..]);
        changes.extend(first_versions(&labels[..500]).into_iter().map(|mut change| {
            change.version = 2;
            change
        }));
        for (version, expected) in [(1, 2), (3, 2), (0, 2), (u64::MAX, 2)] {
            changes[1_234].version = version;
            let error = directory.apply(&changes).unwrap_err();
            let Error::Version { label, expected: next, found } = error else { panic!("{error}") };
            assert_eq!((label, next, found), (changes[1_234].label, expected, version));
            assert_eq!(directory.committed(), before);
        }
        changes[1_234].version = 2;
        changes[1_234].current = 3;
        assert!(matches!(directory.apply(&changes), Err(Error::Current { current: 3, .. })));
        assert_eq!(directory.state(&labels[2_500]), None);
        let mut oracle = Oracle::default();
        oracle.apply(&first_versions(&labels[..2_000]));
        assert_eq!(directory.committed().root, oracle.root());
        changes[1_234].current = 0;
        let head = directory.apply(&changes).unwrap();
        oracle.apply(&changes);
        assert_eq!(head.root, oracle.root());
    }
}

#[test]
fn what_waits_for_publication_is_bounded() {
    let labels = spread(30);
    let directory = Directory::new(Options { threads: 1, pending: 20, follow: false });
    let first = directory.apply(&first_versions(&labels[..15])).unwrap();
    let refused = directory.apply(&first_versions(&labels[15..21]));
    assert!(matches!(refused, Err(Error::Pending { pending: 15, batch: 6, limit: 20 })));
    let second = directory.apply(&first_versions(&labels[15..20])).unwrap();
    assert!(matches!(directory.publish(3), Err(Error::Head { asked: 3, first: 0, last: 2 })));
    assert_eq!(directory.publish(first.batch).unwrap(), first);
    assert!(matches!(directory.rollback(0), Err(Error::Head { asked: 0, first: 1, last: 2 })));
    assert_eq!(directory.committed(), second);
    directory.apply(&first_versions(&labels[20..])).unwrap();
    assert_eq!(directory.publish(0).unwrap(), first);
}

#[test]
fn readers_see_one_head_while_a_writer_goes_on() {
    let labels = spread(2_000);
    let directory = Directory::new(options(2, false));
    let head = directory.apply(&first_versions(&labels)).unwrap();
    directory.publish(head.batch).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looked = 0;
            while !done.load(Ordering::Relaxed) || looked == 0 {
                for label in labels.iter().step_by(97) {
                    let lookup = directory.lookup(label);
                    assert!(holds(label, &lookup));
                    assert_eq!(lookup.state.unwrap().version, lookup.head.batch);
                    looked += 1;
                }
            }
        });
        for version in 2..20 {
            let changes: Vec<Change> = labels
                .iter()
                .map(|&label| Change { label, version, current: version, leaf: [7; 32] })
                .collect();
            directory.apply(&changes).unwrap();
            // Published one batch late.
            directory.publish(version - 1).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused() {
    let labels = spread(300);
    let directory = Arc::new(Directory::new(options(1, false)));
    let head = directory.apply(&first_versions(&labels)).unwrap();
    let blobs = Blobs::memory();
    write(&directory, &blobs, head.batch, 9, b"n").await.unwrap();
    let names = ["snapshot/00000000000000000009", "snapshot/00000000000000000009.000"];
    for name in names {
        let good = blobs.get(name, 1 << 20).await.unwrap().unwrap();
        for at in (0..good.len()).step_by(if good.len() < 1000 { 1 } else { 89 }) {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            blobs.overwrite(name, bad.into()).await.unwrap();
            let refused = restore(&blobs, 9, options(1, false)).await;
            assert!(matches!(refused, Err(Error::Snapshot { size: 9, .. })), "{name} at {at}");
        }
        for cut in [0, 1, 72, good.len() - 1] {
            blobs.overwrite(name, good.slice(..cut)).await.unwrap();
            assert!(restore(&blobs, 9, options(1, false)).await.is_err());
        }
        blobs.overwrite(name, good).await.unwrap();
    }
    assert!(restore(&blobs, 9, options(1, false)).await.unwrap().is_some());
    blobs.delete(names[1]).await.unwrap();
    assert!(restore(&blobs, 9, options(1, false)).await.is_err());
    delete(&blobs, 9).await.unwrap();
    assert!(restore(&blobs, 9, options(1, false)).await.unwrap().is_none());
    assert!(sizes(&blobs).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_snapshot_needs_a_batch_that_is_kept() {
    let directory = Arc::new(Directory::new(options(1, true)));
    directory.apply(&first_versions(&spread(3))).unwrap();
    let blobs = Blobs::memory();
    for batch in [0, 2] {
        let refused = write(&directory, &blobs, batch, 1, b"").await;
        assert!(matches!(refused, Err(Error::Head { first: 1, last: 1, .. })));
    }
    write(&directory, &blobs, 1, 1, b"").await.unwrap();
    assert_eq!(sizes(&blobs).await.unwrap(), [1]);
}

#[test]
fn labels_fit_the_memory_that_is_promised() {
    assert!(trie::NODE_BYTES <= 112);
}
