//! A client that remembers everything it was ever shown, and holds a log to it.
#![allow(dead_code)] // each test binary uses another part

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use syndicate::clock::Clock;
use syndicate::log::check::Checked;
use syndicate::proof::Hash;
use syndicate::proof::checkpoint::SignedCheckpoint;
use syndicate::proof::map::PlainMap;
use syndicate::proof::merkle::{self, HashReader, Node};
use syndicate::proof::note::VerifierKey;
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::{Asker, Receipt, Statement, verify};
use syndicate::proof::replay::{Expected, Replayer};
use syndicate::proof::tile::{TileCoordinate, decode_bundle, new_bundles};

pub struct Client {
    key: VerifierKey,
    policy: Policy,
    web: reqwest::Client,
    /// By which receipts are judged; the machine's unless set.
    pub clock: Clock,
    /// Root by size: everything that the log ever signed for us.
    pub heads: BTreeMap<u64, Hash>,
    /// Receipts that verified.
    pub receipts: Vec<Receipt>,
}

impl Client {
    pub fn new(key: VerifierKey) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let web = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        let policy = Policy::of_log(key.clone()).unwrap();
        let (clock, heads) = (Clock::system(), BTreeMap::new());
        Client { key, policy, web, clock, heads, receipts: Vec::new() }
    }

    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The body of a good answer that arrived whole.
    pub async fn get(&self, url: &str) -> Option<Bytes> {
        let response = self.web.get(url).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        response.bytes().await.ok()
    }

    /// Fetches the checkpoint. What it says is remembered as promised, and must
    /// not contradict or fall behind what was promised before. `None` if there
    /// was no answer.
    pub async fn look(&mut self, via: &str) -> Option<u64> {
        let note = self.get(&format!("{via}/checkpoint")).await?;
        let signed = SignedCheckpoint::parse(&note).unwrap();
        signed.verify(std::slice::from_ref(&self.key)).unwrap();
        let checkpoint = signed.checkpoint();
        let last = self.heads.last_key_value().map_or(0, |(size, _)| *size);
        assert!(checkpoint.size >= last, "the log shrank from {last} to {}", checkpoint.size);
        let root = self.heads.entry(checkpoint.size).or_insert(checkpoint.root);
        assert_eq!(*root, checkpoint.root, "a fork at size {}", checkpoint.size);
        Some(checkpoint.size)
    }

    /// Looks, and proves from tiles that every head ever seen is a prefix of
    /// the newest one.
    pub async fn prove_all(&mut self, via: &str) {
        let size = self.look(via).await.expect("a checkpoint");
        let root = self.heads[&size];
        for (&old, old_root) in &self.heads {
            let proof = self.consistency(via, old, size).await;
            merkle::verify_consistency(old, size, old_root, &root, &proof)
                .unwrap_or_else(|why| panic!("{old} is no prefix of {size}: {why}"));
        }
    }

    async fn consistency(&self, via: &str, old: u64, new: u64) -> Vec<Hash> {
        let mut tiles = Tiles { size: new, tiles: HashMap::new() };
        let ranges = merkle::subtree_proof_ranges(0, old, new).unwrap();
        for node in ranges.into_iter().flat_map(|(from, to)| merkle::complete_nodes(from, to)) {
            let (at, ..) = TileCoordinate::of_node(node, new).unwrap();
            if let Entry::Vacant(place) = tiles.tiles.entry(at) {
                place.insert(self.tile(via, at).await);
            }
        }
        merkle::consistency_proof(&tiles, old, new).unwrap()
    }

    /// Every published entry, from the public bundles alone: they are the signed
    /// tree, and replaying them gives each directory root that they claim.
    pub async fn entries(&mut self, via: &str) -> Vec<Bytes> {
        let size = self.look(via).await.expect("a checkpoint");
        let mut entries = Vec::new();
        for at in new_bundles(0, size) {
            // A partial bundle goes when the full one is old.
            let bundle = match self.get(&format!("{via}/{}", at.path())).await {
                Some(bundle) => bundle,
                None => panic!("no bundle {at}"),
            };
            let part = decode_bundle(&bundle, at.width).unwrap();
            entries.extend(part.into_iter().map(Bytes::copy_from_slice));
        }
        let mut tree = merkle::Frontier::new();
        let origin = self.key.name().to_owned();
        let log_key = *self.key.public_key().unwrap();
        let mut replayer = Replayer::new(Expected { origin, log_key });
        let mut map = PlainMap::new();
        for entry in &entries {
            tree.push(merkle::leaf_hash(entry));
            replayer.push(&mut map, entry.clone()).unwrap();
        }
        assert_eq!(tree.root(), self.heads[&size], "the bundles are another tree");
        replayer.finish().unwrap();
        entries
    }

    /// A tile, or the full one in the place of a partial one that went.
    async fn tile(&self, via: &str, at: TileCoordinate) -> Bytes {
        if let Some(bytes) = self.get(&format!("{via}/{}", at.path())).await {
            return bytes;
        }
        let full = self.get(&format!("{via}/{}", at.full().path())).await;
        let full = full.unwrap_or_else(|| panic!("no tile {}", at.path()));
        full.slice(..at.len())
    }

    /// Looks a name up and keeps the receipt. `None` if there was no answer.
    pub async fn look_up(&mut self, via: &str, name: impl std::fmt::Display) -> Option<Statement> {
        let answer = self.get(&format!("{via}/v1/lookup/{name}")).await?;
        let receipt = Receipt::read(&answer).unwrap();
        let statement = self.check(&receipt);
        let root = SignedCheckpoint::parse(&receipt.checkpoint).unwrap().checkpoint().root;
        assert_eq!(*self.heads.entry(statement.size).or_insert(root), root, "a fork");
        self.receipts.push(receipt);
        Some(statement)
    }

    fn check(&self, receipt: &Receipt) -> Statement {
        let asker = Asker { policy: Some(&self.policy), ..Asker::default() };
        let verdict = verify(receipt, &asker, self.clock.now()).unwrap();
        assert!(verdict.is_trusted());
        verdict.statement().clone()
    }

    /// All that was ever promised is in this log, where it was.
    pub fn hold_to(&self, log: &Checked) {
        for (&size, root) in &self.heads {
            let mut tree = merkle::Frontier::new();
            let promised = log.entries.get(..size as usize).expect("entries were lost");
            promised.iter().for_each(|entry| tree.push(merkle::leaf_hash(entry)));
            assert_eq!(tree.root(), *root, "another tree of size {size}");
        }
        for receipt in &self.receipts {
            let statement = self.check(receipt);
            let promised = &log.entries[..statement.size as usize];
            assert_eq!(promised.last(), Some(&receipt.root.entry));
            let subjects = [Some(&receipt.subject), receipt.domain.as_ref()];
            for item in subjects.into_iter().flatten().flat_map(|subject| &subject.items) {
                assert!(promised.contains(&item.entry), "an entry of a receipt was lost");
            }
        }
    }
}

struct Tiles {
    size: u64,
    tiles: HashMap<TileCoordinate, Bytes>,
}

impl HashReader for Tiles {
    fn node(&self, node: Node) -> Option<Hash> {
        let (at, first, count) = TileCoordinate::of_node(node, self.size)?;
        let hashes = at.hashes(self.tiles.get(&at)?).ok()?;
        Some(merkle::root_from_leaves(hashes.get(first..first + count)?))
    }
}
