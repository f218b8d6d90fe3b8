//! A log small enough to keep in memory, with every proof made the plain way,
//! and a little world of domains and mailboxes in it.

// Each test binary uses its own part.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use syndicate::dime::key::{Owner, PrivateKey};
use syndicate::dime::signet::build::{self, Content, SignTo};
use syndicate::dime::signet::{Dialect, SecondaryKey, Signet, field};
use syndicate::dime::{Address, Dnssec, Name, Timestamp, org, record, user};
use syndicate::proof::checkpoint::Checkpoint;
use syndicate::proof::draft::{DomainDraft, Draft, Place, Private, UserDraft};
use syndicate::proof::entry::{
    Blob, Closing, DirectoryRoot, Event, Events, Genesis, SignetFacts, UserPayload,
};
use syndicate::proof::map::{CHAIN_START, PlainMap};
use syndicate::proof::note::{SigningKey, VerifierKey};
use syndicate::proof::receipt::{Hidden, Item, Leaf, Receipt, Seen, Subject};
use syndicate::proof::replay::{Change, MapEngine};
use syndicate::proof::{Entry, Hash, Kind, Label, label, map, merkle, vrf};

pub const ORIGIN: &str = "log.example/1";
pub const LOG_SEED: [u8; 32] = [11; 32];
pub const VRF_SEED: [u8; 32] = [12; 32];
/// The times of everything are counted from here.
pub const START: u64 = 1_795_449_600_000;
pub const MINUTE: u64 = 60_000;
pub const HOUR: u64 = 60 * MINUTE;

pub fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

/// A log and all that its owner keeps beside it.
pub struct MiniLog {
    pub entries: Vec<Bytes>,
    pub map: PlainMap,
    pub vrf: vrf::SecretKey,
    pub origin: &'static str,
    /// Of the log key.
    pub seed: [u8; 32],
    /// Entries of each label, by version.
    versions: BTreeMap<Label, Vec<Bytes>>,
    holds: BTreeMap<Label, Timestamp>,
    private: BTreeMap<(Label, u64), Private>,
    pub blobs: BTreeMap<Hash, Bytes>,
    /// Of the last root.
    pub time: Timestamp,
    openings: u8,
}

impl MiniLog {
    /// A log with its genesis entry and its first root.
    pub fn new() -> MiniLog {
        MiniLog::of(ORIGIN, LOG_SEED)
    }

    /// The same for another log.
    pub fn of(origin: &'static str, seed: [u8; 32]) -> MiniLog {
        MiniLog::begun(origin, seed, at(0))
    }

    /// The same, begun at this time.
    pub fn starting(time: Timestamp) -> MiniLog {
        MiniLog::begun(ORIGIN, LOG_SEED, time)
    }

    fn begun(origin: &'static str, seed: [u8; 32], time: Timestamp) -> MiniLog {
        let vrf = vrf::SecretKey::from_seed(&VRF_SEED);
        let genesis = Genesis {
            origin,
            log_key: syndicate::dime::ed25519::public_key(&seed),
            vrf_key: vrf.public(),
            predecessor: None,
        };
        let genesis = Entry::new(time, Kind::Genesis(genesis)).encode();
        let mut log = MiniLog {
            entries: vec![genesis.into()],
            map: PlainMap::new(),
            vrf,
            origin,
            seed,
            versions: BTreeMap::new(),
            holds: BTreeMap::new(),
            private: BTreeMap::new(),
            blobs: BTreeMap::new(),
            time,
            openings: 0,
        };
        log.close(time);
        log
    }

    /// One batch: domains first, mailboxes by label, then the root.
    pub fn batch(&mut self, time: Timestamp, drafts: impl IntoIterator<Item = Draft>) {
        let mut drafts: Vec<(Label, Draft)> =
            drafts.into_iter().map(|draft| (draft.label(&self.vrf), draft)).collect();
        drafts.sort_by_key(|(label, draft)| match draft {
            Draft::Domain(_) => (0, Label([0; 32])),
            _ => (1, *label),
        });
        for (label, draft) in drafts {
            self.append(time, label, &draft);
        }
        self.close(time);
    }

    fn append(&mut self, time: Timestamp, label: Label, draft: &Draft) {
        let domain = Label::of_domain(draft.domain());
        self.openings += 1;
        let tip = self.map.tip(&label).copied();
        let place = Place {
            time,
            version: tip.map_or(1, |tip| tip.version + 1),
            previous_current: tip.map_or(0, |tip| tip.current),
            held_until: self.holds.get(&label).copied(),
            origin: self.origin,
            label,
            opening: [self.openings; 32],
            domain_current: self.map.tip(&domain).map_or(0, |tip| tip.current),
        };
        let placed = draft.place(&place).expect("a legal draft");
        match Entry::decode(&placed.entry).expect("its entry").kind {
            Kind::Domain(entry) => entry.held_until,
            Kind::User(entry) => entry.held_until,
            _ => None,
        }
        .map(|until| self.holds.insert(label, until));
        self.blobs.extend(placed.blobs);
        if let Some(private) = placed.private {
            self.blobs.extend(private.signet.clone());
            self.private.insert((label, placed.version), private);
        }
        self.versions.entry(label).or_default().push(placed.entry.clone());
        let index = self.entries.len() as u64;
        let change = Change::of(index, placed.entry.clone()).expect("decodes").expect("moves");
        self.map.apply(&[change]).expect("the next version");
        self.entries.push(placed.entry);
    }

    /// Ends the log.
    pub fn end(&mut self, time: Timestamp) {
        let vrf_key = self.vrf.public();
        let log_key = syndicate::dime::ed25519::public_key(&[99; 32]);
        let closing = Closing { origin: "log.example/2", log_key, vrf_key };
        self.entries.push(Entry::new(time, Kind::Closing(closing)).encode().into());
        self.close(time);
    }

    /// A directory root over all that is there.
    pub fn close(&mut self, time: Timestamp) {
        let head = self.map.head();
        let covered = self.entries.len() as u64;
        let root = DirectoryRoot { root: head.root, labels: head.labels, covered };
        self.entries.push(Entry::new(time, Kind::Root(root)).encode().into());
        self.time = time;
    }

    /// Forgets what the operator erased or withdrew.
    pub fn erase(&mut self, address: &Address) {
        let label = Label::of_address(&self.vrf, address);
        for version in 1.. {
            let Some(entries) = self.versions.get(&label) else { return };
            if version > entries.len() as u64 {
                return;
            }
            let forgotten = Entry::decode(&entries[version as usize - 1]).unwrap();
            if matches!(forgotten.kind, Kind::Forgotten(_)) {
                return;
            }
            self.private.remove(&(label, version));
        }
    }

    pub fn leaves(&self) -> Vec<Hash> {
        self.entries.iter().map(|entry| map::entry_leaf_hash(entry)).collect()
    }

    pub fn leaf(&self, index: usize) -> Leaf {
        let leaves = self.leaves();
        let path =
            merkle::inclusion_proof(leaves.as_slice(), index as u64, leaves.len() as u64).unwrap();
        Leaf { entry: self.entries[index].clone(), path }
    }

    /// Signed by the log, then by each cosigner at its time.
    pub fn checkpoint(&self, cosigners: &[(&SigningKey, Timestamp)]) -> Bytes {
        let root = merkle::root_from_leaves(&self.leaves());
        let checkpoint = Checkpoint::new(self.origin, self.entries.len() as u64, root).unwrap();
        let mut signed = checkpoint.sign(&self.key(), self.time).unwrap();
        for (key, time) in cosigners {
            let signature = signed.cosign(key, *time);
            signed.add(&key.verifier(), signature).unwrap();
        }
        signed.to_string().into_bytes().into()
    }

    /// The log's key.
    pub fn key(&self) -> SigningKey {
        SigningKey::ed25519(self.origin, &self.seed).unwrap()
    }

    pub fn directory_root(&self) -> Hash {
        self.map.root()
    }

    /// Everything about a name from version `from` on (0: the version in force),
    /// with all blobs that its entries name, seen at `seen`.
    pub fn receipt(
        &self,
        name: &str,
        from: u64,
        checkpoint: Bytes,
        seen: Option<Timestamp>,
    ) -> Receipt {
        let name: Name = name.parse().unwrap();
        let mut needed = u64::MAX;
        let subject = self.subject(&name, from, seen, &mut needed);
        let domain = match &name {
            Name::Domain(_) => None,
            Name::Address(address) if needed < u64::MAX => {
                let domain = Name::Domain(address.domain().clone());
                Some(self.subject(&domain, needed, None, &mut needed))
            }
            Name::Address(_) => None,
        };
        let mut receipt = Receipt {
            name,
            checkpoint,
            root: self.leaf(self.entries.len() - 1),
            genesis: Some(self.leaf(0)),
            subject,
            domain,
            blobs: Vec::new(),
            withdrawn: Vec::new(),
            closing: None,
        };
        let named = self.named(&receipt);
        receipt.set_blobs(named.iter().filter_map(|hash| self.blobs.get(hash).cloned()));
        receipt
    }

    /// `needed` becomes the lowest version of the domain that a payload names.
    fn subject(
        &self,
        name: &Name,
        from: u64,
        seen: Option<Timestamp>,
        needed: &mut u64,
    ) -> Subject {
        let (label, vrf_proof) = match name {
            Name::Domain(domain) => (Label::of_domain(domain), None),
            Name::Address(address) => {
                let (output, proof) = self.vrf.prove(&label::alpha(address));
                (Label::from_vrf(&output), Some(proof))
            }
        };
        let tip = self.map.tip(&label);
        let latest = tip.map_or(0, |tip| tip.version);
        let current = tip.map_or(0, |tip| tip.current);
        let in_force = if current == 0 { latest } else { current };
        let first = if from == 0 { in_force } else { from.min(in_force) }.max(1);
        let versions = self.versions.get(&label).map_or(&[][..], Vec::as_slice);
        let mut chain = CHAIN_START;
        let mut items = Vec::new();
        for (version, entry) in (1..).zip(versions) {
            if version < first {
                chain = map::chain_next(&chain, &map::entry_leaf_hash(entry));
                continue;
            }
            let hidden = self.private.get(&(label, version)).map(|private| {
                let payload = UserPayload::decode(&private.payload).unwrap();
                *needed = payload.domain_version.min(*needed);
                Hidden { payload: private.payload.clone(), opening: private.opening }
            });
            items.push(Item { entry: entry.clone(), hidden });
        }
        if items.is_empty() {
            chain = CHAIN_START;
        }
        let root = self.directory_root();
        let seen = seen.map(|time| {
            Seen::sign(&self.seed, self.origin, &label, latest, time, time.plus(5), &root)
        });
        Subject { vrf_proof, map: self.map.prove(&label), chain, items, seen, carries: Vec::new() }
    }

    /// The hashes of the blobs that a receipt's items name.
    pub fn named(&self, receipt: &Receipt) -> BTreeSet<Hash> {
        let mut named = BTreeSet::new();
        for part in [Some(&receipt.subject), receipt.domain.as_ref()].into_iter().flatten() {
            for item in &part.items {
                if let Kind::Domain(entry) = Entry::decode(&item.entry).unwrap().kind {
                    let blobs = [entry.record, entry.org_signet, entry.dnssec_chain];
                    named.extend(blobs.into_iter().flatten().map(|blob: Blob| blob.sha256));
                }
                if let Some(hidden) = &item.hidden {
                    let payload = UserPayload::decode(&hidden.payload).unwrap();
                    named.extend(payload.signet.map(|signet| signet.sha256));
                }
            }
        }
        named
    }
}

pub fn log_key() -> SigningKey {
    SigningKey::ed25519(ORIGIN, &LOG_SEED).unwrap()
}

pub fn log_vkey() -> VerifierKey {
    log_key().verifier()
}

/// Three cosigners of other operators.
pub fn cosigners() -> Vec<SigningKey> {
    (0..3)
        .map(|i| SigningKey::cosigner(&format!("witness.example/w{i}"), &[21 + i; 32]).unwrap())
        .collect()
}

/// A policy that asks for `threshold` of them, two of which replay.
pub fn policy_text(threshold: usize) -> String {
    let mut text = format!("log {}\n", log_vkey());
    for (i, key) in cosigners().iter().enumerate() {
        text.push_str(&format!("witness w{i} {}\n", key.verifier()));
    }
    text.push_str(&format!("group all {threshold} w0 w1 w2\nquorum all\n"));
    text
}

/// A key made of one byte.
pub fn key(owner: Owner, byte: u8) -> PrivateKey {
    PrivateKey::from_secrets(owner, [byte; 32], [byte; 32]).unwrap()
}

/// An organization: POK, secondary keys, record, org signet.
pub struct Org {
    pub domain: &'static str,
    pub pok: PrivateKey,
    pub soks: Vec<PrivateKey>,
    pub dialect: Dialect,
}

impl Org {
    pub fn signet(&self) -> Signet {
        let soks: Vec<SecondaryKey> = self
            .soks
            .iter()
            .map(|key| SecondaryKey {
                permissions: SecondaryKey::MAY_SIGN_SIGNETS,
                key: key.signing_key(),
            })
            .collect();
        let to = match self.dialect {
            Dialect::P => SignTo::Crypto,
            _ => SignTo::Id(self.domain),
        };
        build::org(&self.pok, self.dialect, &soks, &[], to).unwrap()
    }

    pub fn record(&self) -> String {
        let poks = vec![self.pok.signing_key()];
        record::Template { poks, ..record::Template::default() }.text()
    }

    pub fn draft(&self, events: &[Event], dnssec: Dnssec) -> Draft {
        let bogus = dnssec == Dnssec::Bogus;
        let chain = matches!(dnssec, Dnssec::Secure | Dnssec::Insecure);
        Draft::Domain(DomainDraft {
            domain: self.domain.parse().unwrap(),
            poks: if bogus { vec![] } else { vec![self.pok.signing_key()] },
            dnssec,
            record: (!bogus).then(|| self.record().into()),
            org_signet: (!bogus).then(|| Bytes::copy_from_slice(self.signet().bytes())),
            dnssec_chain: chain.then(|| format!("chain of {}", self.domain).into()),
            events: Events::of(events),
            hold: None,
            coalesced: None,
        })
    }

    /// An entry about a record that is gone.
    pub fn gone(&self, events: &[Event]) -> Draft {
        Draft::Domain(DomainDraft {
            domain: self.domain.parse().unwrap(),
            poks: vec![],
            dnssec: Dnssec::Indeterminate,
            record: None,
            org_signet: None,
            dnssec_chain: None,
            events: Events::of(events),
            hold: None,
            coalesced: None,
        })
    }

    /// A user signet made by the POK, or by the n-th secondary key.
    pub fn user(
        &self,
        address: &str,
        key: &PrivateKey,
        previous: Option<&PrivateKey>,
        sok: Option<usize>,
    ) -> Signet {
        let request = build::request(key, self.dialect, previous).unwrap();
        let signer = sok.map_or(&self.pok, |n| &self.soks[n]);
        let to = match self.dialect {
            Dialect::P => SignTo::Crypto,
            _ => SignTo::Id(address),
        };
        build::user(&request, signer.seed(), &[], to).unwrap()
    }

    /// The same with this photo, signed by the POK: the crypto part stays.
    pub fn user_with(&self, address: &str, key: &PrivateKey, photo: Vec<u8>) -> Signet {
        let request = build::request(key, self.dialect, None).unwrap();
        let photo = [Content::Known(field::PHOTO, photo)];
        build::user(&request, self.pok.seed(), &photo, SignTo::Id(address)).unwrap()
    }

    pub fn user_draft(
        &self,
        address: &str,
        signet: &Signet,
        event: Event,
        observed: Timestamp,
    ) -> Draft {
        let org = org::validate(&self.signet(), &[self.pok.signing_key()], None).unwrap();
        let address: Address = address.parse().unwrap();
        let facts = SignetFacts::of(&user::validate(signet, &org, Some(&address)).unwrap());
        let facts = facts.unwrap();
        Draft::User(UserDraft {
            address,
            signet: Some(Bytes::copy_from_slice(signet.bytes())),
            level: Some(facts.level),
            signers: facts.signers,
            crypto_sha256: Some(facts.crypto_sha256),
            observed,
            domain_version: None,
            events: event.into(),
            hold: Events::from(event).hold().then_some(72 * HOUR),
            coalesced: None,
        })
    }

    /// The DX answered 450.
    pub fn absent_draft(&self, address: &str, observed: Timestamp) -> Draft {
        Draft::User(UserDraft {
            address: address.parse().unwrap(),
            signet: None,
            level: None,
            signers: vec![],
            crypto_sha256: None,
            observed,
            domain_version: None,
            events: Event::Withdrawn.into(),
            hold: None,
            coalesced: None,
        })
    }
}

/// A log with `alice@one.example`, whose signet is issued anew again and again, each
/// time with a photo of this length, and then, if it is `forged`, with another key.
pub fn reissues(photos: u8, length: usize, forged: bool) -> MiniLog {
    const ALICE: &str = "alice@one.example";
    let [one, ..] = orgs();
    let mut log = MiniLog::new();
    log.batch(at(MINUTE), [one.draft(&[Event::FirstSeen], Dnssec::Secure)]);
    let mine = key(Owner::User, 1);
    let first = one.user(ALICE, &mine, None, None);
    log.batch(at(MINUTE), [one.user_draft(ALICE, &first, Event::FirstSeen, at(MINUTE))]);
    for photo in 0..photos {
        let again = one.user_with(ALICE, &mine, vec![photo; length]);
        log.batch(at(MINUTE), [one.user_draft(ALICE, &again, Event::Reissued, at(MINUTE))]);
    }
    if forged {
        let other = one.user(ALICE, &key(Owner::User, 66), None, None);
        log.batch(at(MINUTE), [one.user_draft(ALICE, &other, Event::Restarted, at(MINUTE))]);
    }
    log.batch(at(WORLD), []);
    log
}

/// The last root of [`world`] is this old.
pub const WORLD: u64 = 6 * MINUTE;

/// Everything that can happen to a name, once:
///
/// - `one.example` (dialect L, one secondary key) with `alice` (rotated),
///   `bob` (restarted, held), `carol` (forgotten), `dave` (withdrawn), `eve`
///   (signed by a secondary key that is then retired), `frank` (reverted);
/// - `two.example` (dialect M) with `ann`, the record then bogus;
/// - `three.example` (dialect P) with `ada`, the record then expired.
pub fn world() -> MiniLog {
    let [mut one, two, three] = orgs();
    let mut log = MiniLog::new();
    let key = |byte| key(Owner::User, byte);
    let alice = [key(1), key(2)];
    let user = |org: &Org, name: &str, signet: &Signet, event, minutes: u64| {
        org.user_draft(name, signet, event, at(minutes * MINUTE - 700))
    };
    let first = Event::FirstSeen;
    let alice_1 = one.user("alice@one.example", &alice[0], None, None);
    let alice_2 = one.user("alice@one.example", &alice[1], Some(&alice[0]), None);
    let bob_1 = one.user("bob@one.example", &key(3), None, None);
    let bob_2 = one.user("bob@one.example", &key(4), None, None);
    let carol = one.user("carol@one.example", &key(5), None, None);
    let dave = one.user("dave@one.example", &key(6), None, None);
    let eve = one.user("eve@one.example", &key(7), None, Some(0));
    let frank_1 = one.user("frank@one.example", &key(8), None, None);
    let frank_2 = one.user("frank@one.example", &key(9), Some(&key(8)), None);
    let ann = two.user("ann@two.example", &key(10), None, None);
    let ada = three.user("ada@three.example", &key(11), None, None);
    log.batch(
        at(MINUTE),
        [
            user(&one, "alice@one.example", &alice_1, first, 1),
            one.draft(&[first], Dnssec::Secure),
            user(&one, "bob@one.example", &bob_1, first, 1),
            user(&one, "carol@one.example", &carol, first, 1),
            user(&one, "dave@one.example", &dave, first, 1),
            user(&one, "eve@one.example", &eve, first, 1),
            user(&one, "frank@one.example", &frank_1, first, 1),
        ],
    );
    log.batch(
        at(2 * MINUTE),
        [
            two.draft(&[first], Dnssec::Insecure),
            three.draft(&[first, Event::NameConflict], Dnssec::Secure),
            user(&two, "ann@two.example", &ann, first, 2),
            user(&three, "ada@three.example", &ada, first, 2),
            user(&one, "frank@one.example", &frank_2, Event::Rotated, 2),
        ],
    );
    // Two versions of one label in one batch.
    log.batch(
        at(3 * MINUTE),
        [
            user(&one, "alice@one.example", &alice_2, Event::Rotated, 3),
            user(&one, "bob@one.example", &bob_2, Event::Restarted, 3),
            Draft::Forget { address: "carol@one.example".parse().unwrap() },
            one.absent_draft("dave@one.example", at(3 * MINUTE)),
            user(&one, "frank@one.example", &frank_1, Event::Reverted, 3),
            two.draft(&[Event::DnssecBogus], Dnssec::Bogus),
            three.gone(&[Event::RecordWithdrawn]),
        ],
    );
    log.erase(&"carol@one.example".parse().unwrap());
    one.soks = vec![];
    log.batch(
        at(4 * MINUTE),
        [
            one.draft(&[Event::OrgSignetChanged], Dnssec::Secure),
            three.gone(&[Event::RecordExpired]),
        ],
    );
    log.batch(at(5 * MINUTE), []);
    log.batch(at(WORLD), []);
    log
}

pub fn orgs() -> [Org; 3] {
    let org = |domain, byte, soks: &[u8], dialect| Org {
        domain,
        pok: key(Owner::Org, byte),
        soks: soks.iter().map(|byte| key(Owner::Org, *byte)).collect(),
        dialect,
    };
    [
        org("one.example", 101, &[111], Dialect::L),
        org("two.example", 102, &[], Dialect::M),
        org("three.example", 103, &[], Dialect::P),
    ]
}
