//! A mirror's keys, and a log that goes on under other ones.

#[path = "support/mini_log.rs"]
mod mini_log;
#[path = "support/second_verifier.rs"]
mod second_verifier;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::json;
use syndicate::clock::Clock;
use syndicate::config::{Config, File};
use syndicate::daemon::migrate::{Migrated, Successor, migrate};
use syndicate::daemon::{Folder, Secrets};
use syndicate::dime::key::Owner;
use syndicate::dime::{Dnssec, Timestamp};
use syndicate::log::answer::{Answerer, Question, Span};
use syndicate::log::{self, Log, Opened, Sequencer};
use syndicate::proof::Label;
use syndicate::proof::draft::Draft;
use syndicate::proof::entry::{Carried, Entry, Event, Holder, Kind};
use syndicate::proof::map::PlainMap;
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::{self, Asker, Receipt, Statement, Word};
use syndicate::proof::replay::{Broken, Change, Expected, MapEngine as _, Replayer, Stop};
use syndicate::serve::identity::Identity;
use tokio_util::sync::CancellationToken;

use mini_log::{Org, orgs};

const ALICE: &str = "alice@one.example";
const GONE: &str = "gone@one.example";
const START: u64 = 1_700_000_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(START + seconds * 1000)
}

fn config(folder: &Path, origin: &str) -> Config {
    let mut file = File { data: Some(folder.to_owned()), ..File::default() };
    file.log.origin = Some(origin.into());
    file.check().unwrap()
}

/// A log in a folder, without a mirror around it.
struct Site {
    log: Log,
    sequencer: Sequencer,
    secrets: Secrets,
}

async fn open(folder: &Path, origin: &str, clock: &Clock) -> Site {
    let folder = Folder::new(folder);
    folder.make().unwrap();
    let secrets = Secrets::load_or_make(&folder.keys(), Some(origin)).unwrap();
    let state = std::sync::Arc::new(folder.open_state().await.unwrap());
    let mut options = log::Options::new(folder.guard());
    options.origin = Some(origin.into());
    let keys = secrets.keys();
    let opened = log::open(options, folder.store().unwrap(), state, keys, clock.clone());
    let Opened { log, sequencer } = opened.await.unwrap();
    Site { log, sequencer, secrets }
}

impl Site {
    /// Ends, and with it what goes on beside the rounds, which holds the index.
    async fn close(self, folder: &Path) {
        let stop = CancellationToken::new();
        stop.cancel();
        self.sequencer.run(stop).await.unwrap();
        drop(self.log);
        let ends = Instant::now() + Duration::from_secs(60);
        while let Err(error) = Folder::new(folder).open_state().await {
            assert!(Instant::now() < ends, "{error:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One batch of these.
    async fn put(&mut self, drafts: Vec<Draft>) {
        let submitted: Vec<_> = drafts
            .into_iter()
            .map(|draft| {
                let log = self.log.clone();
                tokio::spawn(async move { log.submit(draft).await.unwrap() })
            })
            .collect();
        while submitted.iter().any(|submitted| !submitted.is_finished()) {
            self.sequencer.round().await.unwrap();
            tokio::task::yield_now().await;
        }
    }

    async fn ask(&self, name: &str, span: Span) -> Receipt {
        let question = Question { name: name.parse().unwrap(), span, has_genesis: false };
        Answerer::new(self.log.reader()).receipt(&question).await.unwrap()
    }

    fn verify(&self, receipt: &Receipt, now: Timestamp) -> Result<Statement, receipt::Fault> {
        let policy = Policy::of_log(self.secrets.verifier()).unwrap();
        let asker = Asker { policy: Some(&policy), ..Asker::default() };
        // What is asked here is asked again from its bytes.
        let receipt = Receipt::decode(&receipt.encode()).unwrap();
        assert_eq!(
            Receipt::from_json(receipt.to_json().to_string().as_bytes()),
            Ok(receipt.clone())
        );
        receipt::verify(&receipt, &asker, now).map(|verdict| verdict.statement().clone())
    }

    /// All entries that are public.
    async fn entries(&self) -> Vec<Bytes> {
        let size = self.log.heads().published.unwrap().size;
        let mut entries = Vec::new();
        for index in 0..size {
            entries.push(self.log.reader().entry(index).await.unwrap().unwrap());
        }
        entries
    }
}

/// A mailbox's key made of one byte.
fn mailbox(
    org: &Org,
    name: &str,
    byte: u8,
    previous: Option<u8>,
    event: Event,
    observed: Timestamp,
) -> Draft {
    let key = |byte| mini_log::key(Owner::User, byte);
    let previous = previous.map(key);
    let signet = org.user(name, &key(byte), previous.as_ref(), None);
    org.user_draft(name, &signet, event, observed)
}

/// A domain with mailboxes: one rotated, one as it was, one forgotten.
async fn lived_in(folder: &Path, clock: &Clock) -> Org {
    let mut site = open(folder, "old.example/log", clock).await;
    let [org, ..] = orgs();
    clock.set(at(1));
    site.put(vec![org.draft(&[Event::FirstSeen], Dnssec::Indeterminate)]).await;
    clock.set(at(2));
    let first = |name: &str, byte| mailbox(&org, name, byte, None, Event::FirstSeen, at(1));
    site.put(vec![first(ALICE, 31), first("bob@one.example", 32)]).await;
    site.put(vec![first(GONE, 33)]).await;
    clock.set(at(3));
    site.put(vec![mailbox(&org, ALICE, 41, Some(31), Event::Rotated, at(3))]).await;
    let address = GONE.parse().unwrap();
    site.put(vec![Draft::Forget { address }]).await;
    site.close(folder).await;
    org
}

async fn moved(old: &Path, new: &Path, new_vrf_key: bool, clock: &Clock) -> Migrated {
    let successor = Successor { folder: new, origin: "new.example/log", new_vrf_key };
    let config = config(old, "old.example/log");
    migrate(&config, &successor, clock.clone(), &mut |_| ()).await.unwrap()
}

fn replay(entries: &[Bytes], key: [u8; 32]) -> Result<PlainMap, Broken> {
    let expected = Expected { origin: "new.example/log".into(), log_key: key };
    let (mut replayer, mut map) = (Replayer::new(expected), PlainMap::new());
    for entry in entries {
        replayer.push(&mut map, entry.clone()).map_err(|stop| match stop {
            Stop::Fault(fault) => fault.broken,
            other => panic!("{other}"),
        })?;
    }
    replayer.finish().map_err(|fault| fault.broken)?;
    Ok(map)
}

#[tokio::test]
async fn every_label_is_carried_over_and_goes_on() {
    for new_vrf_key in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let (old_folder, new_folder) = (home.path().join("old"), home.path().join("new"));
        let clock = Clock::manual(at(0));
        let org = lived_in(&old_folder, &clock).await;
        clock.set(at(10));
        let done = moved(&old_folder, &new_folder, new_vrf_key, &clock).await;
        assert_eq!(done.labels, 4);

        // The closed log says who goes on, to those who still trust its key.
        let old = open(&old_folder, "old.example/log", &clock).await;
        let mut sequencer = old.sequencer;
        sequencer.round().await.unwrap();
        let old = Site { sequencer, ..old };
        let last = old.ask(ALICE, Span::Latest).await;
        let statement = old.verify(&last, at(11)).unwrap();
        let successor = statement.successor.unwrap();
        assert_eq!(successor.origin, "new.example/log");
        assert_eq!(Some(&successor.log_key), done.key.public_key());
        let policy = Policy::of_log(old.secrets.verifier()).unwrap();

        // The new one answers for what stood in the old one.
        let mut new = open(&new_folder, "new.example/log", &clock).await;
        let whole = new.ask(ALICE, Span::From(0)).await;
        assert_eq!(whole.subject.items.len(), 2);
        assert_eq!(whole.subject.carries.len(), 1);
        let statement = new.verify(&whole, at(11)).unwrap();
        assert_eq!((statement.latest, statement.current), (2, 2));
        // Nobody is moved by a key that his policy does not name.
        let asker = Asker { policy: Some(&policy), ..Asker::default() };
        assert!(receipt::verify(&whole, &asker, at(11)).is_err());
        let domain = new.ask("one.example", Span::Latest).await;
        assert_eq!(new.verify(&domain, at(11)).unwrap().latest, 1);
        let gone = new.ask(GONE, Span::Latest).await;
        let word = new.verify(&gone, at(11)).unwrap().word;
        assert_eq!(word, if new_vrf_key { Word::Absent } else { Word::Forgotten });

        // And it goes on: version, chain and custody.
        clock.set(at(12));
        let rotated = mailbox(&org, ALICE, 51, Some(41), Event::Rotated, at(12));
        new.put(vec![rotated]).await;
        let whole = new.ask(ALICE, Span::From(0)).await;
        assert_eq!((whole.subject.items.len(), whole.subject.carries.len()), (3, 1));
        assert_eq!(new.verify(&whole, at(13)).unwrap().latest, 3);
        let latest = new.ask(ALICE, Span::Latest).await;
        assert!(latest.subject.carries.is_empty(), "no step back that nothing needs");
        assert_eq!(new.verify(&latest, at(13)).unwrap().current, 3);

        damaged(&new, &whole, new_vrf_key, at(13));
        let log_key = *new.secrets.verifier().public_key().unwrap();
        let entries = new.entries().await;
        assert!(replay(&entries, log_key).is_ok());
        cheats(&entries, log_key);

        // Once more, over two predecessors.
        old.close(&old_folder).await;
        new.close(&new_folder).await;
        let third = home.path().join("third");
        let successor = Successor { folder: &third, origin: "third.example/log", new_vrf_key };
        let config = config(&new_folder, "new.example/log");
        migrate(&config, &successor, clock.clone(), &mut |_| ()).await.unwrap();
        let third = open(&third, "third.example/log", &clock).await;
        let whole = third.ask(ALICE, Span::From(0)).await;
        assert_eq!((whole.subject.items.len(), whole.subject.carries.len()), (3, 2));
        assert_eq!(third.verify(&whole, at(13)).unwrap().latest, 3);
    }
}

/// Whatever is changed about a step back, the receipt no longer holds.
fn damaged(site: &Site, good: &Receipt, new_vrf_key: bool, now: Timestamp) {
    let mut cases = vec![(good.clone(), "")];
    let mut rule = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        let rule = site.verify(&receipt, now).unwrap_err().rule();
        cases.push((receipt, rule));
        rule
    };
    let step = good.subject.carries[0].clone();
    // Under one VRF key the label stays, and the origin alone differs.
    let (bare, again) =
        if new_vrf_key { ("label", "carry-entry") } else { ("commitment", "carry-inclusion") };
    assert_eq!(rule(&|receipt| receipt.subject.carries.clear()), bare);
    assert_eq!(rule(&|receipt| receipt.subject.carries.push(step.clone())), again);
    assert_eq!(rule(&|receipt| receipt.subject.carries[0].index += 1), "carry-inclusion");
    assert_eq!(rule(&|receipt| receipt.subject.carries[0].vrf_proof = None), "carry-label");
    assert_eq!(
        rule(&|receipt| receipt.subject.carries[0].genesis = receipt.root.clone()),
        "carry-genesis"
    );
    assert_eq!(
        rule(&|receipt| receipt.subject.carries[0].entry = receipt.root.clone()),
        "carry-entry"
    );
    let log = site.secrets.verifier().to_string();
    let asked = cases.iter().map(|(receipt, _)| {
        json!({ "receipt": BASE64.encode(receipt.encode()), "log": log, "now": now.millis() })
    });
    let Some(answers) = second_verifier::answers(&asked.collect::<Vec<_>>()) else { return };
    for ((_, rule), answer) in cases.iter().zip(&answers) {
        match *rule {
            "" => assert_eq!(answer["latest"], 3, "{answer}"),
            rule => assert_eq!(answer["fault"], rule, "{answer}"),
        }
    }
}

/// A mirror that leaves a label behind, or changes one, is found out by whoever
/// replays the new log alone.
fn cheats(entries: &[Bytes], key: [u8; 32]) {
    let carried: Vec<usize> = (0..entries.len())
        .filter(|&at| matches!(Entry::decode(&entries[at]).unwrap().kind, Kind::Carried(_)))
        .collect();
    assert_eq!(carried.len(), 4);
    let changed = |change: &dyn Fn(&mut Carried)| {
        let mut entries = entries.to_vec();
        let entry = Entry::decode(&entries[carried[1]]).unwrap();
        let Kind::Carried(mut carried_entry) = entry.kind else { unreachable!() };
        change(&mut carried_entry);
        let made = Entry::new(entry.time, Kind::Carried(carried_entry)).encode();
        entries[carried[1]] = made.into();
        found(&entries, key)
    };
    assert_eq!(changed(&|carried| carried.version += 1), "carried-root");
    assert_eq!(changed(&|carried| carried.chain[0] ^= 1), "carried-root");
    let mut missing = entries.to_vec();
    missing.remove(carried[1]);
    assert_eq!(found(&missing, key), "carried-count");
    let mut swapped = entries.to_vec();
    swapped.swap(carried[0], carried[1]);
    assert_eq!(found(&swapped, key), "carried-order");
    let mut late = entries.to_vec();
    late.insert(entries.len() - 1, entries[carried[3]].clone());
    assert_eq!(found(&late, key), "carried-misplaced");
}

/// A folder that a mirror ran in, with its certificate for everybody to read.
#[tokio::test]
async fn the_certificate_comes_along() {
    let home = tempfile::tempdir().unwrap();
    let (old_folder, new_folder) = (home.path().join("old"), home.path().join("new"));
    let clock = Clock::manual(at(0));
    lived_in(&old_folder, &clock).await;
    clock.set(at(10));
    let (certificate, key) = Folder::new(&old_folder).dmtp_pem();
    Identity::load_or_make(&certificate, &key, "old.example").unwrap();
    let mode = std::fs::metadata(&certificate).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o644);
    moved(&old_folder, &new_folder, true, &clock).await;
    let (new_certificate, new_key) = Folder::new(&new_folder).dmtp_pem();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap().trim_end().to_owned();
    assert_eq!(read(&certificate), read(&new_certificate));
    assert_eq!(read(&key), read(&new_key));
}

/// The rule broken by these entries, with their roots made anew so that nothing
/// else is wrong.
fn found(entries: &[Bytes], key: [u8; 32]) -> &'static str {
    let expected = Expected { origin: "new.example/log".into(), log_key: key };
    let (mut replayer, mut map) = (Replayer::new(expected), PlainMap::new());
    let mut pushed: Vec<String> = Vec::new();
    let mut batch: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (index, bytes) in (0u64..).zip(entries) {
        let entry = Entry::decode(bytes).unwrap();
        let mut bytes = bytes.clone();
        if let Kind::Root(mut root) = entry.kind {
            let mut next = map.clone();
            let changes: Vec<_> = std::mem::take(&mut batch).into_values().flatten().collect();
            if let Ok(head) = next.apply(&changes) {
                (root.root, root.labels) = (head.root, head.labels);
            }
            root.covered = index;
            bytes = Entry::new(entry.time, Kind::Root(root)).encode().into();
        } else if let Some(change) = Change::of(index, bytes.clone()).unwrap() {
            batch.entry(change.label).or_default().push(change);
        }
        pushed.push(BASE64.encode(&bytes));
        match replayer.push(&mut map, bytes) {
            Ok(_) => {}
            Err(Stop::Fault(fault)) => {
                let asked = json!({
                    "entries": pushed, "origin": "new.example/log", "log_key": hex::encode(key),
                });
                if let Some(answers) = second_verifier::answers(&[asked]) {
                    assert_eq!(answers[0]["fault"], fault.broken.rule());
                    assert_eq!(answers[0]["index"], fault.index);
                }
                return fault.broken.rule();
            }
            Err(other) => panic!("{other}"),
        }
    }
    "none"
}

#[tokio::test]
async fn a_migration_that_was_cut_off_is_finished() {
    let home = tempfile::tempdir().unwrap();
    let (old_folder, new_folder) = (home.path().join("old"), home.path().join("new"));
    let clock = Clock::manual(at(0));
    lived_in(&old_folder, &clock).await;
    clock.set(at(10));
    moved(&old_folder, &new_folder, true, &clock).await;
    // The same again changes nothing, and another successor is refused.
    let before = open(&new_folder, "new.example/log", &clock).await.log.heads().committed;
    moved(&old_folder, &new_folder, true, &clock).await;
    let after = open(&new_folder, "new.example/log", &clock).await.log.heads().committed;
    assert_eq!(before.map(|head| head.root), after.map(|head| head.root));
    let third = home.path().join("third");
    let successor = Successor { folder: &third, origin: "third.example/log", new_vrf_key: false };
    let config = config(&old_folder, "old.example/log");
    let refused = migrate(&config, &successor, clock.clone(), &mut |_| ()).await.unwrap_err();
    assert!(format!("{refused:#}").contains("another successor"), "{refused:#}");

    // A new log whose labels are missing takes nothing else.
    let part = home.path().join("part");
    let old = open(&old_folder, "old.example/log", &clock).await;
    let (predecessor, kept) = log::carry::predecessor(&old.log).await.unwrap();
    let folder = Folder::new(&part);
    folder.make().unwrap();
    let secrets = Secrets::load_or_make(&folder.keys(), Some("part.example/log")).unwrap();
    let store = folder.store().unwrap();
    store.private.put(syndicate::store::keys::PREDECESSOR, kept).await.unwrap();
    let mut options = log::Options::new(folder.guard());
    (options.origin, options.predecessor) = (Some("part.example/log".into()), Some(predecessor));
    let state = std::sync::Arc::new(folder.open_state().await.unwrap());
    let opened = log::open(options, store, state, secrets.keys(), clock.clone()).await.unwrap();
    let mut sequencer = opened.sequencer;
    let [org, ..] = orgs();
    let log = opened.log.clone();
    let draft = org.draft(&[Event::FirstSeen], Dnssec::Indeterminate);
    let waiting = tokio::spawn(async move { log.submit(draft).await });
    while !waiting.is_finished() {
        assert_eq!(sequencer.round().await.unwrap(), None);
        tokio::task::yield_now().await;
    }
    let refused = waiting.await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("syndicate migrate"), "{refused}");
    sequencer.carry_over(&old.log, &mut |_| ()).await.unwrap();
    assert_eq!(opened.log.directory().committed().labels, 4);
}

#[test]
fn an_entry_of_a_label_carried_over_has_one_encoding() {
    let carried = Carried {
        label: Label([1; 32]),
        holder: Holder::User,
        version: 3,
        current: 2,
        chain: [2; 32],
        predecessor_label: Label([3; 32]),
    };
    let entry = Entry::new(at(1), Kind::Carried(carried));
    assert_eq!(Entry::decode(&entry.encode()), Ok(entry.clone()));
    let domain = Carried { holder: Holder::Domain, ..carried };
    let refused = Entry::new(at(1), Kind::Carried(domain)).encode();
    assert!(Entry::decode(&refused).is_err(), "a domain keeps its label");
    let early = Carried { current: 4, ..carried };
    assert!(Entry::decode(&Entry::new(at(1), Kind::Carried(early)).encode()).is_err());
}

fn syndicate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_syndicate")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn keys_are_made_shown_checked_and_replaced() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let data = data.to_str().unwrap();
    let show = || -> serde_json::Value {
        let output = syndicate(&["keys", "show", "--data", data, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(syndicate(&["keys", "show", "--data", data]).status.code(), Some(1));
    assert_eq!(syndicate(&["keys", "make", "--data", data]).status.code(), Some(0));
    let first = show();
    assert_eq!(syndicate(&["keys", "make", "--data", data]).status.code(), Some(0));
    assert_eq!(show(), first, "made once");
    assert_eq!(syndicate(&["keys", "check", "--data", data]).status.code(), Some(0));

    for (which, other) in [("cosigner", "peer"), ("peer", "cosigner")] {
        let before = show();
        let output = syndicate(&["keys", "rotate", which, "--data", data]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let after = show();
        assert_ne!(before[which], after[which]);
        assert_eq!((&before[other], &before["log"]), (&after[other], &after["log"]));
        assert!(said(&output).contains(after[which].as_str().unwrap()));
    }
    let kept = std::fs::read_dir(Path::new(data).join("keys")).unwrap();
    let kept = kept.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_str().unwrap().starts_with("cosigner.key.")
    });
    assert_eq!(kept.count(), 1);
    for which in ["log", "vrf"] {
        let output = syndicate(&["keys", "rotate", which, "--data", data]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("syndicate migrate"), "{}", said(&output));
    }
    // The certificate of the DMTP face is one of them.
    let check = || syndicate(&["keys", "check", "--data", data]);
    assert!(said(&check()).contains("dmtp      there is none yet"), "{}", said(&check()));
    assert_eq!(syndicate(&["keys", "rotate", "dmtp", "--data", data]).status.code(), Some(0));
    assert!(said(&check()).contains("dmtp.crt"), "{}", said(&check()));
    let (certificate, _) = Folder::new(data).dmtp_pem();
    let other = home.path().join("other.crt");
    Identity::load_or_make(&other, &home.path().join("other.key"), "other.example").unwrap();
    std::fs::copy(&other, &certificate).unwrap();
    assert_eq!(check().status.code(), Some(1), "{}", said(&check()));
    // What is missing is not made under its name: it may be in a backup.
    let cosigner = Path::new(data).join("keys/cosigner.key");
    std::fs::remove_file(&cosigner).unwrap();
    for command in ["check", "show"] {
        let output = syndicate(&["keys", command, "--data", data]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("cosigner.key is missing"), "{}", said(&output));
        assert!(!cosigner.exists());
    }
    assert_eq!(syndicate(&["keys", "make", "--data", data]).status.code(), Some(0));
    let key = Path::new(data).join("keys/peer.key");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, mode).unwrap();
    let output = syndicate(&["keys", "check", "--data", data]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("chmod 600"), "{}", said(&output));
}
