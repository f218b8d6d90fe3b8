//! The trie against a map that is built from nothing, by the plain rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::proof::entry::{Event, Holder};
use crate::proof::map::PlainMap;
use crate::proof::replay::{Broken, What};
use crate::store::Blobs;

fn proves(label: &Label, lookup: &Lookup) -> bool {
    let root = &lookup.head.root;
    match lookup.tip {
        Some(tip) => lookup.proof.verify_present(root, label, tip.version, &tip.chain).is_ok(),
        None => lookup.proof.verify_absent(root, label).is_ok(),
    }
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

/// What a generated change does, before it has a version.
type Step = (Label, u8, [u8; 4]);

/// Batches that name labels only; versions come from [`versioned`].
fn batches() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = (label(), any::<u8>(), any::<[u8; 4]>());
    prop::collection::vec(prop::collection::vec(step, 0..40), 1..8)
}

/// Gives each change of a batch the label's next version and sorts it.
fn versioned(map: &PlainMap, batch: &[Step]) -> Vec<Change> {
    let mut known: BTreeMap<Label, (u64, u64)> = BTreeMap::new();
    let mut changes: Vec<Change> = Vec::new();
    for (index, &(label, kind, entry)) in batch.iter().enumerate() {
        let tip = MapEngine::tip(map, &label).map_or((0, 0), |tip| (tip.version, tip.current));
        let (version, current) = known.entry(label).or_insert(tip);
        *version += 1;
        let (what, now) = match (*current, kind) {
            (0, _) => (What::Observed(Event::FirstSeen.into()), *version),
            (_, 0..30) => (What::Forgotten, 0),
            (current, 30..80) => (What::Observed(Event::Reverted.into()), current),
            _ => (What::Observed(Event::Rotated.into()), *version),
        };
        *current = now;
        changes.push(Change {
            label,
            index: index as u64,
            entry: Bytes::copy_from_slice(&entry),
            holder: Holder::User,
            version: *version,
            current: now,
            what,
        });
    }
    changes.sort_by_key(|change| (change.label, change.index));
    changes
}

/// All that a directory says, against a plain map of its served head.
fn agrees(directory: &Directory, map: &PlainMap, others: &[Label]) {
    let head = directory.served();
    assert_eq!((head.root, head.labels), (map.root(), map.len() as u64));
    for (nth, label) in map.iter().map(|(label, _)| label).chain(others).enumerate() {
        let lookup = directory.lookup(label);
        assert_eq!(lookup.head, head);
        assert_eq!(lookup.tip, MapEngine::tip(map, label));
        assert!(proves(label, &lookup), "{label}: {lookup:?}");
        // The plain map builds every proof from all labels.
        if nth % (map.len() / 8 + 1) == 0 && map.len() < 1_000 {
            assert_eq!(lookup.proof, map.prove(label));
        }
    }
}

fn options(threads: usize, follow: bool, place: &Place) -> Options {
    Options { threads, pending: 1_000_000, follow, place: place.clone() }
}

/// In memory, and in a file: what is promised is promised of both.
fn both() -> [Place; 2] {
    [Place::Memory, Place::Disk(std::env::temp_dir())]
}

fn place() -> impl Strategy<Value = Place> {
    any::<prop::sample::Index>().prop_map(|index| index.get(&both()).clone())
}

/// Labels spread over the map, ascending.
fn spread(count: u64) -> Vec<Label> {
    let hash = |n: u64| Label(crate::proof::map::entry_leaf_hash(&n.to_be_bytes()));
    let mut labels: Vec<Label> = (0..count).map(hash).collect();
    labels.sort();
    labels
}

/// The same version of every label.
fn all(labels: &[Label], version: u64) -> Vec<Change> {
    let change = |(index, &label): (usize, &Label)| {
        let holder = if label.0[0] < 128 { Holder::User } else { Holder::Domain };
        let event = match holder {
            _ if version == 1 => Event::FirstSeen,
            Holder::User => Event::Rotated,
            Holder::Domain => Event::PokAdded,
        };
        Change {
            label,
            index: index as u64,
            entry: Bytes::copy_from_slice(&label.0),
            holder,
            version,
            current: version,
            what: What::Observed(event.into()),
        }
    };
    labels.iter().enumerate().map(change).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_batches_give_the_map_that_is_built_from_nothing(
        batches in batches(), others in prop::collection::vec(label(), 20), threads in 1usize..3,
        place in place(),
    ) {
        let directory = Directory::new(options(threads, true, &place));
        let mut oracle = PlainMap::new();
        agrees(&directory, &oracle, &others);
        for batch in &batches {
            let changes = versioned(&oracle, batch);
            directory.apply(&changes).unwrap();
            oracle.apply(&changes).unwrap();
            agrees(&directory, &oracle, &others);
        }
    }

    #[test]
    fn the_served_head_is_proved_while_later_batches_wait(
        batches in batches(), others in prop::collection::vec(label(), 10), lag in 1usize..4,
        place in place(),
    ) {
        let directory = Directory::new(options(1, false, &place));
        let mut oracles = vec![PlainMap::new()];
        for batch in &batches {
            let mut oracle = oracles[oracles.len() - 1].clone();
            let changes = versioned(&oracle, batch);
            let head = directory.apply(&changes).unwrap();
            oracle.apply(&changes).unwrap();
            prop_assert_eq!(head.root, oracle.root());
            for (label, tip) in oracle.iter() {
 prop_assert_eq!(directory.tip(label), Some(*tip));
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
        place in place(),
    ) {
        let directory = Directory::new(options(1, false, &place));
        let mut oracles = vec![PlainMap::new()];
        for batch in &batches {
            let mut oracle = oracles[oracles.len() - 1].clone();
            let changes = versioned(&oracle, batch);
            directory.apply(&changes).unwrap();
            oracle.apply(&changes).unwrap();
            oracles.push(oracle);
        }
        let keep = keep.min(batches.len());
        prop_assert_eq!(directory.rollback(keep as u64).unwrap().root, oracles[keep].root());
        agrees(&directory, &oracles[0], &others);
        // And on from there, by another way.
        let mut oracle = oracles[keep].clone();
        let changes = versioned(&oracle, &batches[0]);
        let head = directory.apply(&changes).unwrap();
        oracle.apply(&changes).unwrap();
        directory.publish(head.batch).unwrap();
        agrees(&directory, &oracle, &others);
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was(batches in batches(), place in place()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = Arc::new(Directory::new(options(1, false, &place)));
        let blobs = Blobs::memory();
        let mut oracle = PlainMap::new();
        let (last, before) = batches.split_last().unwrap();
        for batch in before {
            let changes = versioned(&oracle, batch);
            directory.apply(&changes).unwrap();
            oracle.apply(&changes).unwrap();
        }
        let batch = before.len() as u64;
        // One more batch waits; the snapshot is of what was before it.
        directory.apply(&versioned(&oracle, last)).unwrap();
        let restored = runtime.block_on(async {
            write(&directory, &blobs, batch, 77, b"notes").await.unwrap();
            assert_eq!(sizes(&blobs).await.unwrap(), [77]);
            restore(&blobs, 77, options(2, false, &place)).await.unwrap().unwrap()
        });
        prop_assert_eq!((restored.size, &restored.notes[..]), (77, &b"notes"[..]));
        agrees(&restored.directory, &oracle, &[]);
        // Versions in force are carried over, and the next batch applies.
        let changes = versioned(&oracle, last);
        let head = restored.directory.apply(&changes).unwrap();
        oracle.apply(&changes).unwrap();
        prop_assert_eq!(head.root, oracle.root());
        for (label, tip) in oracle.iter() {
 prop_assert_eq!(restored.directory.tip(label), Some(*tip));
 }
    }
}

#[test]
fn large_batches_on_several_threads_agree_with_one() {
    let labels = spread(5_000);
    let [memory, disk] = both();
    let one = Directory::new(options(1, true, &memory));
    let many = Directory::new(options(4, true, &disk));
    let mut oracle = PlainMap::new();
    for version in [1, 2, 3] {
        let changes = all(&labels, version + version / 2);
        let changes = if version == 1 {
            all(&labels, 1)
        } else {
            // Two versions of every label.
            let (even, odd) = (all(&labels, 2 * version - 2), all(&labels, 2 * version - 1));
            let mut both: Vec<Change> = even.into_iter().chain(odd).collect();
            for (index, change) in both.iter_mut().enumerate() {
                change.index = index as u64;
            }
            both.sort_by_key(|change| (change.label, change.index));
            assert_eq!(changes.len() * 2, both.len());
            both
        };
        let head = many.apply(&changes).unwrap();
        assert_eq!(one.apply(&changes).unwrap(), head);
        assert_eq!(oracle.apply(&changes).unwrap(), head.into());
    }
}

#[test]
fn a_refused_batch_changes_nothing() {
    let labels = spread(3_000);
    for (threads, place) in [1, 3].into_iter().zip(both()) {
        let directory = Directory::new(options(threads, false, &place));
        let mut oracle = PlainMap::new();
        let old: Vec<Label> = labels.iter().copied().step_by(2).collect();
        directory.apply(&all(&old, 1)).unwrap();
        oracle.apply(&all(&old, 1)).unwrap();
        let before = directory.committed();
        // New labels and new versions of old ones.
        let changes: Vec<Change> = all(&labels, 1)
            .into_iter()
            .zip(all(&labels, 2))
            .map(|(new, next)| if directory.tip(&new.label).is_some() { next } else { new })
            .collect();
        // Two faults, by index against the order of the labels.
        let mut bad = changes.clone();
        bad[200].version = 9;
        bad[2_900].current = 9;
        for index in [1, 3_500] {
            bad[2_900].index = index;
            let Err(EngineStop::Fault(fault)) = directory.apply(&bad) else { panic!("applied") };
            assert_eq!(oracle.apply(&bad), Err(EngineStop::Fault(fault)));
            let expected = if index == 1 { bad[2_900].index } else { bad[200].index };
            assert_eq!(fault.index, expected);
            assert!(matches!(fault.broken, Broken::Version { .. } | Broken::Current { .. }));
            assert_eq!(directory.committed(), before);
            agrees(&directory, &PlainMap::new(), &labels[..3]);
        }
        // Out of order: between shards, and in one.
        for (a, b) in [(0, 2_999), (0, 1)] {
            let mut bad = changes.clone();
            bad.swap(a, b);
            let refused = directory.apply(&bad);
            assert!(matches!(refused, Err(EngineStop::Engine(Error::Order))));
        }
        let mut bad = changes.clone();
        bad[7].what = What::Unknown;
        bad[7].current = u64::MAX;
        assert!(matches!(directory.apply(&bad), Err(EngineStop::Engine(Error::Full(_)))));
        assert_eq!(directory.tip(&labels[1]), None);
        let head = directory.apply(&changes).unwrap();
        assert_eq!(oracle.apply(&changes).unwrap(), head.into());
        directory.publish(head.batch).unwrap();
        agrees(&directory, &oracle, &[]);
    }
}

#[test]
fn what_waits_for_publication_is_bounded() {
    let labels = spread(30);
    let directory = Directory::new(Options { threads: 1, pending: 20, ..Options::default() });
    let first = directory.apply(&all(&labels[..15], 1)).unwrap();
    let refused = directory.apply(&all(&labels[15..21], 1));
    assert!(matches!(
        refused,
        Err(EngineStop::Engine(Error::Pending { pending: 15, batch: 6, limit: 20 }))
    ));
    let second = directory.apply(&all(&labels[15..20], 1)).unwrap();
    assert!(matches!(directory.publish(3), Err(Error::Head { asked: 3, first: 0, last: 2 })));
    assert_eq!(directory.publish(first.batch).unwrap(), first);
    assert!(matches!(directory.rollback(0), Err(Error::Head { asked: 0, first: 1, last: 2 })));
    assert_eq!(directory.committed(), second);
    directory.apply(&all(&labels[20..], 1)).unwrap();
    assert_eq!(directory.publish(0).unwrap(), first);
}

/// Labels that share up to 255 bits with a neighbour, and one that stands alone.
fn crowded() -> Vec<Label> {
    let mut labels = vec![Label([0x80; 32])];
    for at in [0, 7, 8, 9, 100, 238, 239, 240, 255] {
        let mut label = [0x3c; 32];
        label[at / 8] ^= 0x80 >> (at % 8);
        labels.push(Label(label));
    }
    labels.push(Label([0x3c; 32]));
    labels.sort();
    labels
}

#[test]
fn every_changed_byte_of_a_proof_is_refused() {
    let labels = crowded();
    let directory = Directory::new(options(1, true, &both()[1]));
    directory.apply(&all(&labels, 1)).unwrap();
    let absent = (0..=255).map(|at| {
        let mut label = [0x3c; 32];
        label[at / 8] ^= 0x80 >> (at % 8);
        label[31] ^= 0x10;
        Label(label)
    });
    for label in labels.iter().copied().chain(absent) {
        let lookup = directory.lookup(&label);
        assert!(proves(&label, &lookup));
        let refused = |change: &dyn Fn(&mut Lookup)| {
            let mut changed = lookup.clone();
            change(&mut changed);
            changed == lookup || !proves(&label, &changed)
        };
        for at in 0..lookup.proof.path.len() {
            assert!(refused(&|changed| {
                changed.proof.path.remove(at);
            }));
            for bit in 0..8 {
                assert!(refused(&|changed| changed.proof.path[at].length ^= 1 << bit));
            }
            for byte in 0..32 {
                assert!(refused(&|changed| changed.proof.path[at].sibling[byte] ^= 1));
            }
        }
        for byte in 0..32 {
            assert!(refused(&|changed| {
                match &mut changed.proof.end {
                    End::Present => changed.tip.as_mut().unwrap().chain[byte] ^= 1,
                    End::Leaf { label, .. } => label.0[byte] ^= 1,
                    End::Inner { prefix, .. } => prefix[byte] ^= 1,
                    End::Empty => {}
                }
            }));
            assert!(refused(&|changed| {
                match &mut changed.proof.end {
                    End::Leaf { chain, .. } => chain[byte] ^= 1,
                    End::Inner { left, .. } => left[byte] ^= 1,
                    End::Present | End::Empty => {}
                }
            }));
            assert!(refused(&|changed| {
                if let End::Inner { right, .. } = &mut changed.proof.end {
                    right[byte] ^= 1;
                }
            }));
        }
        assert!(refused(&|changed| {
            match &mut changed.proof.end {
                End::Present => changed.tip.as_mut().unwrap().version += 1,
                End::Leaf { version, .. } => *version += 1,
                End::Inner { length, .. } => *length ^= 1,
                End::Empty => {}
            }
        }));
        assert!(refused(&|changed| changed.head.root[0] ^= 1));
        // Nor does it prove anything of the neighbours.
        for other in labels.iter().filter(|other| **other != label) {
            assert!(lookup.tip.is_none() || !proves(other, &lookup));
        }
    }
}

#[test]
fn readers_see_one_head_while_a_writer_goes_on() {
    both().into_iter().for_each(|place| readers_see_one_head(&place));
}

fn readers_see_one_head(place: &Place) {
    let labels = spread(2_000);
    let directory = Directory::new(options(2, false, place));
    let head = directory.apply(&all(&labels, 1)).unwrap();
    directory.publish(head.batch).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looked = 0;
            while !done.load(Ordering::Relaxed) || looked == 0 {
                for label in labels.iter().step_by(97) {
                    let lookup = directory.lookup(label);
                    assert!(proves(label, &lookup));
                    assert_eq!(lookup.tip.unwrap().version, lookup.head.batch);
                    looked += 1;
                }
            }
        });
        for version in 2..20 {
            directory.apply(&all(&labels, version)).unwrap();
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
    let directory = Arc::new(Directory::new(options(1, false, &Place::Memory)));
    let head = directory.apply(&all(&labels, 1)).unwrap();
    let blobs = Blobs::memory();
    write(&directory, &blobs, head.batch, 9, b"n").await.unwrap();
    let names = ["snapshot/00000000000000000009", "snapshot/00000000000000000009.000"];
    for name in names {
        let good = blobs.get(name, 1 << 20).await.unwrap().unwrap();
        for at in (0..good.len()).step_by(if good.len() < 1000 { 1 } else { 89 }) {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            blobs.overwrite(name, bad.into()).await.unwrap();
            let refused = restore(&blobs, 9, options(1, false, &Place::Memory)).await;
            assert!(matches!(refused, Err(Error::Snapshot { size: 9, .. })), "{name} at {at}");
        }
        for cut in [0, 1, 72, good.len() - 1] {
            blobs.overwrite(name, good.slice(..cut)).await.unwrap();
            assert!(restore(&blobs, 9, options(1, false, &Place::Memory)).await.is_err());
        }
        blobs.overwrite(name, good).await.unwrap();
    }
    assert!(restore(&blobs, 9, options(1, false, &Place::Memory)).await.unwrap().is_some());
    blobs.delete(names[1]).await.unwrap();
    assert!(restore(&blobs, 9, options(1, false, &Place::Memory)).await.is_err());
    delete(&blobs, 9).await.unwrap();
    assert!(restore(&blobs, 9, options(1, false, &Place::Memory)).await.unwrap().is_none());
    assert!(sizes(&blobs).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_snapshot_needs_a_batch_that_is_kept() {
    let directory = Arc::new(Directory::new(options(1, true, &Place::Memory)));
    directory.apply(&all(&spread(3), 1)).unwrap();
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
    const { assert!(trie::NODE_BYTES <= 112) }
}

/// The test starts itself again where files may not get longer than 2 or 4 MiB
/// (blocks of 512 or 1,024 bytes), and the signal that comes with that is ignored.
#[test]
fn a_full_disk_refuses_a_batch_and_changes_nothing() {
    const AGAIN: &str = "SYNDICATE_TEST_ON_A_FULL_DISK";
    if std::env::var_os(AGAIN).is_none() {
        let itself = std::env::current_exe().unwrap();
        let script = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" --exact \"$1\" --nocapture";
        let name = "directory::tests::a_full_disk_refuses_a_batch_and_changes_nothing";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).arg(itself).arg(name).env(AGAIN, "1");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("the disk was full"), "{said}");
        return;
    }
    let directory = Directory::new(options(2, false, &both()[1]));
    let mut oracle = PlainMap::new();
    // In eight shards, of which some are done when one finds no room.
    let mut labels = spread(60_000);
    labels.iter_mut().for_each(|label| label.0[0] %= 8);
    labels.sort_by_key(|label| label.0[1]);
    let mut taken = 0;
    for part in labels.chunks(4_000) {
        let mut part = part.to_vec();
        part.sort();
        let before = directory.committed();
        match directory.apply(&all(&part, 1)) {
            Ok(head) => {
                assert_eq!(oracle.apply(&all(&part, 1)).unwrap(), head.into());
                taken += part.len();
            }
            Err(EngineStop::Engine(Error::File(_))) => {
                println!("the disk was full");
                assert_eq!(directory.committed(), before);
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(taken > 0 && taken < labels.len(), "{taken}");
    // What needs no room goes on, and all that was there is proved.
    let mut known = labels[..taken].to_vec();
    known.sort();
    known.truncate(1_000);
    let head = directory.apply(&all(&known, 2)).unwrap();
    assert_eq!(oracle.apply(&all(&known, 2)).unwrap(), head.into());
    directory.publish(head.batch).unwrap();
    agrees(&directory, &oracle, &labels[taken..taken + 10]);
}

#[test]
fn a_map_on_disk_needs_a_folder_and_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Disk(folder.path().join("maps"));
    let directory = Directory::new(options(1, true, &place));
    let labels = spread(20_000);
    let refused = directory.apply(&all(&labels, 1));
    assert!(matches!(refused, Err(EngineStop::Engine(Error::File(_)))));
    assert_eq!((directory.committed().labels, directory.bytes_on_disk()), (0, 0));
    std::fs::create_dir(folder.path().join("maps")).unwrap();
    directory.apply(&all(&labels, 1)).unwrap();
    assert!(directory.bytes_on_disk() >= 20_000 * trie::NODE_BYTES);
    assert!(directory.bytes() < 20_000 * trie::NODE_BYTES / 8, "{}", directory.bytes());
    assert_eq!(std::fs::read_dir(folder.path().join("maps")).unwrap().count(), 0);
}
