//! What is measured of receipts: a mailbox with 100 versions in a directory
//! and a log of the given size, three cosigners, no blobs, genesis known.
//!
//! The log's other leaves are stand-ins, since only their number counts in a
//! proof. Entries and payloads are in memory when a receipt is made.

use anyhow::{Context, bail};
use bytes::Bytes;
use syndicate::dime::{Address, Name, Timestamp, ed25519};
use syndicate::directory::Directory;
use syndicate::proof::checkpoint::Checkpoint;
use syndicate::proof::draft::{Draft, Place, UserDraft};
use syndicate::proof::entry::{DirectoryRoot, Entry, Event, Genesis, Kind, Level};
use syndicate::proof::map::{self, CHAIN_START};
use syndicate::proof::note::SigningKey;
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::{self, Asker, Hidden, Item, Leaf, Receipt, Seen, Subject, Verdict};
use syndicate::proof::replay::Change;
use syndicate::proof::vrf::{self, SecretKey};
use syndicate::proof::{Hash, Label, label, merkle};

use super::measure::{TIME, Took, label as other_label};

/// Versions in the history that is measured.
pub const VERSIONS: u64 = 100;

const ORIGIN: &str = "log.example/1";
const NAME: &str = "a.somewhat.longer.name@example.com";
const LOG_SEED: [u8; 32] = [11; 32];
const ROUNDS: u64 = 500;

/// Bytes, and microseconds of CPU.
pub struct Receipts {
    pub lookup_bytes: usize,
    /// With a fresh VRF proof.
    pub lookup_make_us: f64,
    /// Decoded and verified, all signatures of the log and its cosigners included.
    pub lookup_verify_us: f64,
    pub history_bytes: usize,
    /// VRF proof at hand.
    pub history_make_us: f64,
    /// All of it.
    pub history_whole_us: f64,
    /// Without the VRF proof and the signatures.
    #[allow(dead_code, reason = "the comparison with akd takes the whole")]
    pub history_verify_us: f64,
}

struct Mailbox {
    label: Label,
    vrf_proof: [u8; 80],
    items: Vec<Item>,
    /// Before the last version.
    chain: Hash,
}

struct Head {
    checkpoint: Bytes,
    root: Leaf,
    genesis: Bytes,
    seen: Seen,
}

pub fn receipts(directory: &Directory, labels: u64) -> anyhow::Result<Receipts> {
    let key = SecretKey::from_seed(&[7; 32]);
    let address: Address = NAME.parse().context("own address")?;
    let mailbox = mailbox(directory, &key, &address)?;
    let head = head(directory, &key, &mailbox, labels)?;
    let policy = Policy::parse(policy()?.as_bytes())?;
    let make = |first: usize| {
        let vrf_proof = mailbox.vrf_proof;
        receipt(directory, &mailbox, &head, &address, vrf_proof, first).encode()
    };
    let last = mailbox.items.len() - 1;
    let (_, made) = Took::thread(|| {
        for _ in 0..ROUNDS {
            let (_, vrf_proof) = key.prove(&label::alpha(&address));
            let receipt = receipt(directory, &mailbox, &head, &address, vrf_proof, last);
            std::hint::black_box(receipt.encode());
        }
    });
    let (_, history_made) = Took::thread(|| {
        for _ in 0..ROUNDS {
            std::hint::black_box(make(0));
        }
    });
    let (lookup, history) = (make(last), make(0));
    let lookup_verify_us = verify_us(&lookup, &head, &policy)?;
    let history_whole_us = verify_us(&history, &head, &policy)?;
    Ok(Receipts {
        lookup_bytes: lookup.len(),
        lookup_make_us: made.cpu_us(ROUNDS),
        lookup_verify_us,
        history_bytes: history.len(),
        history_make_us: history_made.cpu_us(ROUNDS),
        history_whole_us,
        history_verify_us: history_whole_us - vrf_us(&key)? - 5.0 * signature_us()?,
    })
}

/// Gives the mailbox all its versions, in one batch.
fn mailbox(directory: &Directory, key: &SecretKey, address: &Address) -> anyhow::Result<Mailbox> {
    let (output, vrf_proof) = key.prove(&label::alpha(address));
    let label = Label::from_vrf(&output);
    let mut mailbox = Mailbox { label, vrf_proof, items: Vec::new(), chain: CHAIN_START };
    let mut changes = Vec::new();
    for version in 1..=VERSIONS {
        let event = if version == 1 { Event::FirstSeen } else { Event::Rotated };
        let signet = Bytes::from(format!("signet {version}"));
        let draft = Draft::User(UserDraft {
            address: address.clone(),
            signet: Some(signet),
            level: Some(Level::Id),
            signers: vec![0, 0, 0],
            crypto_sha256: Some(map::entry_leaf_hash(&version.to_be_bytes())),
            observed: TIME,
            domain_version: Some(1),
            events: event.into(),
            hold: None,
            coalesced: None,
        });
        let placed = draft.place(&Place {
            time: TIME,
            version,
            previous_current: version - 1,
            held_until: None,
            origin: ORIGIN,
            label,
            opening: [version as u8; 32],
            domain_current: 1,
        })?;
        let private = placed.private.context("a mailbox has a payload")?;
        let hidden = Some(Hidden { payload: private.payload, opening: private.opening });
        changes.extend(Change::of(version, placed.entry.clone())?);
        if version < VERSIONS {
            let leaf = map::entry_leaf_hash(&placed.entry);
            mailbox.chain = map::chain_next(&mailbox.chain, &leaf);
        }
        mailbox.items.push(Item { entry: placed.entry, hidden });
    }
    let head = directory.apply(&changes)?;
    directory.publish(head.batch)?;
    Ok(mailbox)
}

/// A log as long as the directory has labels, and its checkpoint.
fn head(
    directory: &Directory,
    key: &SecretKey,
    mailbox: &Mailbox,
    labels: u64,
) -> anyhow::Result<Head> {
    let log_key = ed25519::public_key(&LOG_SEED);
    let genesis = Genesis { origin: ORIGIN, log_key, vrf_key: key.public(), predecessor: None };
    let genesis = Bytes::from(Entry::new(TIME, Kind::Genesis(genesis)).encode());
    let mut leaves = vec![map::entry_leaf_hash(&genesis)];
    leaves.extend((0..labels).map(|n| other_label(n).0));
    let served = directory.served();
    let covered = leaves.len() as u64;
    let root = DirectoryRoot { root: served.root, labels: served.labels, covered };
    let entry = Bytes::from(Entry::new(TIME, Kind::Root(root)).encode());
    leaves.push(map::entry_leaf_hash(&entry));
    let size = leaves.len() as u64;
    let path = merkle::inclusion_proof(leaves.as_slice(), covered, size)?;
    let checkpoint = Checkpoint::new(ORIGIN, size, merkle::root_from_leaves(&leaves))?;
    let mut signed = checkpoint.sign(&SigningKey::ed25519(ORIGIN, &LOG_SEED)?, TIME)?;
    for cosigner in cosigners()? {
        let signature = signed.cosign(&cosigner, TIME);
        signed.add(&cosigner.verifier(), signature)?;
    }
    let seen = Seen::sign(&LOG_SEED, ORIGIN, &mailbox.label, VERSIONS, TIME, TIME, &served.root);
    Ok(Head {
        checkpoint: signed.to_string().into_bytes().into(),
        root: Leaf { entry, path },
        genesis,
        seen,
    })
}

fn cosigners() -> anyhow::Result<Vec<SigningKey>> {
    (0..3u8)
        .map(|i| {
            SigningKey::cosigner(&format!("witness.example/w{i}"), &[21 + i; 32])
                .context("own cosigner")
        })
        .collect()
}

fn policy() -> anyhow::Result<String> {
    let mut text = format!("log {}\n", SigningKey::ed25519(ORIGIN, &LOG_SEED)?.verifier());
    for (i, key) in cosigners()?.iter().enumerate() {
        text.push_str(&format!("witness w{i} {}\n", key.verifier()));
    }
    text.push_str("group all 3 w0 w1 w2\nquorum all\n");
    Ok(text)
}

/// The receipt from item `first` on, which is the first or the last.
fn receipt(
    directory: &Directory,
    mailbox: &Mailbox,
    head: &Head,
    address: &Address,
    vrf_proof: [u8; 80],
    first: usize,
) -> Receipt {
    let lookup = directory.lookup(&mailbox.label);
    Receipt {
        name: Name::Address(address.clone()),
        checkpoint: head.checkpoint.clone(),
        root: head.root.clone(),
        genesis: None,
        subject: Subject {
            vrf_proof: Some(vrf_proof),
            map: lookup.proof,
            chain: if first == 0 { CHAIN_START } else { mailbox.chain },
            items: mailbox.items.get(first..).unwrap_or_default().to_vec(),
            seen: Some(head.seen),
            carries: Vec::new(),
        },
        domain: None,
        blobs: Vec::new(),
        withdrawn: Vec::new(),
        closing: None,
    }
}

/// Decoding and judging, as a client with a policy does.
fn verify_us(bytes: &[u8], head: &Head, policy: &Policy) -> anyhow::Result<f64> {
    let genesis = Some(head.genesis.as_ref());
    let asker = Asker { policy: Some(policy), genesis, hashes_only: true, ..Asker::default() };
    let now: Timestamp = TIME.plus(1_000);
    let (outcome, took) = Took::thread(|| -> anyhow::Result<()> {
        for _ in 0..ROUNDS {
            let verdict = receipt::verify(&Receipt::decode(bytes)?, &asker, now)?;
            if !matches!(verdict, Verdict::Trusted(..)) {
                bail!("the receipt is not trusted");
            }
        }
        Ok(())
    });
    outcome?;
    Ok(took.cpu_us(ROUNDS))
}

fn vrf_us(key: &SecretKey) -> anyhow::Result<f64> {
    let public = key.public();
    let (_, proof) = key.prove(b"measured");
    let (outcome, took) = Took::thread(|| {
        (0..ROUNDS).try_for_each(|_| vrf::verify(&public, b"measured", &proof).map(drop))
    });
    outcome?;
    Ok(took.cpu_us(ROUNDS))
}

fn signature_us() -> anyhow::Result<f64> {
    let (key, text) = (ed25519::public_key(&LOG_SEED), [5; 160]);
    let signature = ed25519::sign(&LOG_SEED, &text);
    let (outcome, took) =
        Took::thread(|| (0..ROUNDS).try_for_each(|_| ed25519::verify(&key, &text, &signature)));
    outcome?;
    Ok(took.cpu_us(ROUNDS))
}
