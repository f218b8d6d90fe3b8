//! Proofs of inclusion and consistency, and those of the map: an honest one is
//! changed, and must then prove nothing.

use syndicate::proof::entry::Holder;
use syndicate::proof::map::{Ancestor, CHAIN_START, End, MapProof, PlainMap};
use syndicate::proof::replay::Tip;
use syndicate::proof::{Hash, Label, merkle};

use super::take;

/// Numbers first, then changes of three bytes each: what, where, how.
pub fn proof(mut bytes: &[u8]) {
    let [start, end, size] = std::array::from_fn(|_| u64::from_be_bytes(take(&mut bytes)));
    let [leaves, index, old, labels, asked] = take(&mut bytes);
    let loose: Vec<Hash> = bytes.chunks(8).take(70).map(|mut hash| take(&mut hash)).collect();
    let root = [1; 32];
    assert!(merkle::verify_subtree(start, end, size, &[0; 32], &loose, &root).is_err());
    let _ = merkle::verify_inclusion(start, size, &root, &loose, &root);
    let _ = merkle::verify_consistency(start, size, &root, &root, &loose);

    let leaves: Vec<Hash> = (0..1 + leaves % 19).map(|leaf| merkle::leaf_hash(&[leaf])).collect();
    inclusion(&leaves, usize::from(index) % leaves.len(), bytes);
    consistency(&leaves, usize::from(old) % leaves.len() + 1, bytes);
    map(labels % 8, asked, bytes);
}

fn inclusion(leaves: &[Hash], index: usize, changes: &[u8]) {
    let size = leaves.len() as u64;
    let root = merkle::root_from_leaves(leaves);
    let honest = merkle::inclusion_proof(leaves, index as u64, size).expect("all leaves are here");
    let proof = changed(&honest, changes);
    for (other, leaf) in (0..).zip(leaves) {
        let proved = merkle::verify_inclusion(other, size, leaf, &proof, &root).is_ok();
        assert_eq!(proved, other == index as u64 && proof == honest);
    }
}

fn consistency(leaves: &[Hash], old: usize, changes: &[u8]) {
    let size = leaves.len() as u64;
    let root = merkle::root_from_leaves(leaves);
    let honest = merkle::consistency_proof(leaves, old as u64, size).expect("all leaves are here");
    let proof = changed(&honest, changes);
    for other in 1..=leaves.len() {
        let prefix = merkle::root_from_leaves(&leaves[..other]);
        let proved = merkle::verify_consistency(other as u64, size, &prefix, &root, &proof).is_ok();
        let honest = merkle::consistency_proof(leaves, other as u64, size).expect("as above");
        assert_eq!(proved, proof == honest, "from {other} of {size}");
        assert!(merkle::verify_consistency(other as u64, size, &[9; 32], &root, &proof).is_err());
    }
}

fn map(labels: u8, asked: u8, changes: &[u8]) {
    let mut map = PlainMap::new();
    for label in 0..labels {
        map.insert(self::label(label.wrapping_mul(37)), tip(label));
    }
    let label = self::label(asked);
    let root = map.root();
    let honest = map.prove(&label);
    let proof = changed_map(&honest, changes);
    let held = map.tip(&label);
    assert_eq!(
        proof.verify_absent(&root, &label).is_ok(),
        held.is_none() && proof == honest,
        "{proof:?}"
    );
    for version in 0..4 {
        let chain = held.map_or(CHAIN_START, |tip| tip.chain);
        let is = held.is_some_and(|tip| tip.version == version) && proof == honest;
        assert_eq!(proof.verify_present(&root, &label, version, &chain).is_ok(), is);
        let entries: Vec<&[u8]> = changes.chunks(5).take(3).collect();
        assert!(proof.verify_history(&root, &label, version, &chain, entries).is_err());
    }
}

/// Labels that part early, late, and in between.
fn label(byte: u8) -> Label {
    let mut label = [0; 32];
    label[0] = byte & 0x81;
    label[15] = byte & 0x3c;
    label[31] = byte;
    Label(label)
}

fn tip(byte: u8) -> Tip {
    let version = u64::from(byte % 3) + 1;
    Tip { holder: Holder::User, version, current: version, chain: [byte; 32] }
}

/// One step of [`changed`]; a place beyond the end is none.
fn steps(changes: &[u8]) -> impl Iterator<Item = (u8, usize, u8)> {
    let (steps, _) = changes.as_chunks::<3>();
    steps.iter().take(4).map(|[what, place, how]| (*what, usize::from(*place), *how))
}

fn changed(honest: &[Hash], changes: &[u8]) -> Vec<Hash> {
    let mut proof = honest.to_vec();
    for (what, place, how) in steps(changes) {
        match what % 5 {
            0 if place < proof.len() => proof[place][usize::from(how) % 32] ^= 1 + how % 8,
            1 if place < proof.len() => drop(proof.remove(place)),
            2 if place <= proof.len() => proof.insert(place, [how; 32]),
            3 if place < proof.len() => {
                let other = usize::from(how) % proof.len();
                proof.swap(place, other);
            }
            _ => {}
        }
    }
    proof
}

fn changed_map(honest: &MapProof, changes: &[u8]) -> MapProof {
    let mut proof = honest.clone();
    for (what, place, how) in steps(changes) {
        match what % 9 {
            0 if place < proof.path.len() => proof.path[place].sibling[0] ^= how,
            1 if place < proof.path.len() => proof.path[place].length = how,
            2 if place < proof.path.len() => drop(proof.path.remove(place)),
            3 if place <= proof.path.len() => {
                proof.path.insert(place, Ancestor { length: how, sibling: [how; 32] });
            }
            4 => proof.end = End::Present,
            5 => proof.end = End::Empty,
            6 => {
                let (label, tip) = (self::label(how), tip(place as u8));
                proof.end = End::Leaf { label, version: tip.version, chain: tip.chain };
            }
            7 => match &mut proof.end {
                End::Leaf { label, version, .. } => {
                    label.0[place % 32] ^= how;
                    *version ^= u64::from(how >> 4);
                }
                End::Inner { length, prefix, .. } => {
                    *length ^= how >> 4;
                    prefix[place % 32] ^= how;
                }
                End::Present | End::Empty => {}
            },
            // An ancestor as the end.
            8 if !proof.path.is_empty() => {
                let Ancestor { length, sibling } = proof.path.remove(0);
                let prefix = syndicate::proof::map::prefix_of(&self::label(how).0, length);
                proof.end = End::Inner { length, prefix, left: sibling, right: [how; 32] };
            }
            _ => {}
        }
    }
    proof
}
