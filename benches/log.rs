//! Figures of the log: hashing entries into tiles, proving, verifying.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use syndicate::proof::merkle::{self, Hash, leaf_hash};
use syndicate::proof::tile::{Edge, TileCoordinate};
use syndicate::proof::tile_set::{TileSet, tiles_for_consistency, tiles_for_inclusion};
use syndicate::proof::whole_tree;

/// Leaves of the tree that proofs are made in.
const SIZE: u64 = 1_000_000;
/// Entries of a batch.
const BATCH: u64 = 10_000;

fn leaves(range: std::ops::Range<u64>) -> Vec<Hash> {
    range.map(|number| leaf_hash(&number.to_be_bytes())).collect()
}

fn integration(c: &mut Criterion) {
    let (edge, _) = Edge::new().integrate(&leaves(0..SIZE));
    let batch = leaves(SIZE..SIZE + BATCH);
    let mut group = c.benchmark_group("integration");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("10,000 leaves after a million", |b| b.iter(|| edge.integrate(&batch)));
    group.throughput(Throughput::Elements(1));
    group.bench_function("one leaf after a million", |b| b.iter(|| edge.integrate(&batch[..1])));
    let tile = &batch[..256];
    group.throughput(Throughput::Elements(256));
    group.bench_function("seal a tile, rs_merkle", |b| b.iter(|| whole_tree::root(tile)));
    group.bench_function("seal a tile, frontier", |b| b.iter(|| merkle::root_from_leaves(tile)));
    group.finish();
}

fn proofs(c: &mut Criterion) {
    let (edge, tiles) = Edge::new().integrate(&leaves(0..SIZE));
    let root = edge.root();
    let tiles: BTreeMap<TileCoordinate, Vec<u8>> =
        tiles.into_iter().map(|tile| (tile.at, tile.bytes)).collect();
    let fetch = |needed: Vec<TileCoordinate>| -> Vec<_> {
        needed.into_iter().map(|at| (at, &tiles[&at])).collect()
    };
    let index = SIZE / 3;
    let needed = tiles_for_inclusion(index, SIZE).expect("the leaf is in the tree");
    let set = TileSet::verified(SIZE, &root, fetch(needed.clone())).expect("the tiles are sound");
    let (leaf, proof) = set.inclusion(index).expect("the tiles suffice");

    let mut group = c.benchmark_group("inclusion in a million");
    group.bench_function("check the tiles", |b| {
        b.iter_batched(
            || fetch(needed.clone()),
            |tiles| TileSet::verified(SIZE, &root, tiles),
            BatchSize::SmallInput,
        )
    });
    group.bench_function("prove from checked tiles", |b| {
        b.iter(|| merkle::inclusion_proof(&set, black_box(index), SIZE))
    });
    group.bench_function("prove, and rs_merkle checks", |b| {
        b.iter(|| set.inclusion(black_box(index)))
    });
    group.bench_function("verify", |b| {
        b.iter(|| merkle::verify_inclusion(black_box(index), SIZE, &leaf, &proof, &root))
    });
    group.finish();

    let old = SIZE - BATCH;
    let needed = tiles_for_consistency(old, SIZE).expect("a smaller size");
    let set = TileSet::verified(SIZE, &root, fetch(needed)).expect("the tiles are sound");
    let proof = merkle::consistency_proof(&set, old, SIZE).expect("the tiles suffice");
    let old_root = Edge::new().integrate(&leaves(0..old)).0.root();
    let mut group = c.benchmark_group("consistency in a million");
    group.bench_function("prove from checked tiles", |b| {
        b.iter(|| merkle::consistency_proof(&set, black_box(old), SIZE))
    });
    group.bench_function("verify", |b| {
        b.iter(|| merkle::verify_consistency(black_box(old), SIZE, &old_root, &root, &proof))
    });
    group.finish();
}

criterion_group!(benches, integration, proofs);
criterion_main!(benches);
