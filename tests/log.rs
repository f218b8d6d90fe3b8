//! What the log promises: nothing acknowledged is lost, and it never forks,
//! whatever breaks and whoever else writes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use syndicate::clock::Clock;
use syndicate::dime::key::{Owner, PrivateKey};
use syndicate::dime::signet::build::{self, Content, SignTo};
use syndicate::dime::signet::{Dialect, Level as SignetLevel, Signet, field};
use syndicate::dime::{Dnssec, Timestamp};
use syndicate::log::answer::{self, Answerer, Holding, MAX_BLOBS, MAX_COMPARED, Question, Span};
use syndicate::log::check::{Checked, check};
use syndicate::log::{
    self, Blocked, Error, Keys, Log, Opened, Options, Placed, Refused, Remedy, Sequencer,
};
use syndicate::proof::checkpoint::SignedCheckpoint;
use syndicate::proof::draft::{DomainDraft, Draft, UserDraft};
use syndicate::proof::entry::{Event, Level};
use syndicate::proof::merkle::{leaf_hash, verify_consistency, verify_inclusion};
use syndicate::proof::note::SigningKey;
use syndicate::proof::vrf;
use syndicate::store::rows::{self, DomainRow, LISTED, Place, UserRow};
use syndicate::store::sled::{Sled, set_aside};
use syndicate::store::testing::{Answer, Fault, Faults, MemoryState, Operation};
use syndicate::store::{Batch, State, Store, Table, keys as store_keys};
use tokio::task::JoinHandle;

const ORIGIN: &str = "log.example/test";
const START: u64 = 1_795_449_843_000;

fn keys() -> Keys {
    Keys {
        log: SigningKey::ed25519(ORIGIN, &[1; 32]).unwrap(),
        vrf: Arc::new(vrf::SecretKey::from_seed(&[2; 32])),
    }
}

/// One machine: its guard and its index. The store may be shared.
struct Machine {
    _folder: tempfile::TempDir,
    guard: PathBuf,
    state: Arc<dyn State>,
    clock: Clock,
}

impl Machine {
    fn new() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        Machine {
            guard: folder.path().join("guard"),
            _folder: folder,
            state: Arc::new(MemoryState::default()),
            clock: Clock::manual(Timestamp::from_millis(START)),
        }
    }

    fn options(&self) -> Options {
        Options { origin: Some(ORIGIN.into()), ..Options::new(&self.guard) }
    }

    async fn open(&self, store: &Store) -> Opened {
        self.open_with(self.options(), store).await.unwrap()
    }

    async fn open_with(&self, options: Options, store: &Store) -> Result<Opened, Error> {
        log::open(options, store.clone(), self.state.clone(), keys(), self.clock.clone()).await
    }
}

fn domain(name: &str, events: &[Event], record: &str) -> Draft {
    Draft::Domain(DomainDraft {
        domain: name.parse().unwrap(),
        poks: vec![[7; 32]],
        dnssec: Dnssec::Indeterminate,
        record: Some(Bytes::from(record.to_owned())),
        org_signet: Some(Bytes::from(format!("org signet of {name}"))),
        dnssec_chain: None,
        events: events.iter().copied().collect(),
        hold: None,
        coalesced: None,
    })
}

fn user(address: &str, event: Event, signet: &str) -> Draft {
    Draft::User(UserDraft {
        address: address.parse().unwrap(),
        signet: Some(Bytes::from(signet.to_owned())),
        level: Some(Level::Id),
        signers: vec![0, 0, 0],
        crypto_sha256: Some([8; 32]),
        observed: Timestamp::from_millis(START),
        domain_version: None,
        events: event.into(),
        hold: (event == Event::Restarted).then_some(72 * 3_600_000),
        coalesced: None,
    })
}

fn submit(log: &Log, draft: Draft) -> JoinHandle<Result<Placed, Refused>> {
    let log = log.clone();
    tokio::spawn(async move { log.submit(draft).await })
}

/// Hands drafts in and lets them reach the pool.
async fn submit_all(log: &Log, drafts: Vec<Draft>) -> Vec<JoinHandle<Result<Placed, Refused>>> {
    let handles: Vec<_> = drafts.into_iter().map(|draft| submit(log, draft)).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    handles
}

/// In one round.
async fn log_all(opened: &mut Opened, drafts: Vec<Draft>) {
    let handles = submit_all(&opened.log, drafts).await;
    round(&mut opened.sequencer).await;
    for handle in handles {
        handle.await.unwrap().unwrap();
    }
}

async fn whole(store: &Store) -> Checked {
    check(store, &keys().log.verifier()).await.unwrap().expect("there is a log")
}

/// Runs rounds until one succeeds, as the loop does.
async fn round(sequencer: &mut Sequencer) {
    for _ in 0..20 {
        match sequencer.round().await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.remedy(), Remedy::Retry, "{error}"),
        }
    }
    panic!("no round succeeded");
}

/// A small log: two domains, two mailboxes, one rotation, a hold.
async fn small_log(machine: &Machine, store: &Store) -> Opened {
    let mut opened = machine.open(store).await;
    let first = vec![
        domain("b.example", &[Event::FirstSeen], "record b"),
        user("bob@b.example", Event::FirstSeen, "bob 1"),
        domain("a.example", &[Event::FirstSeen], "record a"),
        user("alice@a.example", Event::FirstSeen, "alice 1"),
        user("alice@a.example", Event::Rotated, "alice 2"),
    ];
    log_all(&mut opened, first).await;
    machine.clock.advance(1000);
    let second = vec![user("bob@b.example", Event::Restarted, "bob 2")];
    log_all(&mut opened, second).await;
    opened
}

#[tokio::test]
async fn a_log_grows_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(folder.path()).unwrap();
    let machine = Machine::new();
    let opened = small_log(&machine, &store).await;
    let checked = whole(&store).await;
    assert_eq!(checked.commits, 3);
    // Genesis and root; five entries and root; one entry and root.
    assert_eq!(checked.entries.len(), 2 + 6 + 2);
    assert_eq!(checked.checkpoints.iter().map(|c| c.0).collect::<Vec<_>>(), [2, 8, 10]);

    let reader = opened.log.reader();
    let head = reader.head().unwrap();
    assert_eq!((head.size, head.root), (10, checked.root));
    assert_eq!(&head.root_entry, checked.entries.last().unwrap());
    for (index, entry) in (0u64..).zip(&checked.entries) {
        assert_eq!(reader.entry(index).await.unwrap().as_ref(), Some(entry));
        let proof = reader.inclusion(index, 10).await.unwrap();
        verify_inclusion(index, 10, &leaf_hash(entry), &proof, &checked.root).unwrap();
    }
    assert_eq!(reader.entry(10).await.unwrap(), None);
    for (old, old_root) in &checked.checkpoints {
        let proof = reader.consistency(*old, 10).await.unwrap();
        verify_consistency(*old, 10, old_root, &checked.root, &proof).unwrap();
    }
    assert!(reader.inclusion(3, 11).await.is_err());
    let bundle = reader.resource("tile/entries/000.p/10").await.unwrap().unwrap();
    assert!(bundle.len() > 500);
    assert_eq!(reader.resource("tile/../../private/log").await.unwrap(), None);
}

#[tokio::test]
async fn the_index_shows_what_was_logged() {
    let store = Store::memory();
    let machine = Machine::new();
    let opened = small_log(&machine, &store).await;
    let state = &*machine.state;
    let row: DomainRow = rows::find(state, b"a.example").await.unwrap().unwrap();
    assert_eq!((row.version, row.current, row.withdrawn), (1, 1, false));
    assert_eq!(row.org_signets.len(), 1);
    let alice = "alice@a.example".parse().unwrap();
    let row: UserRow = rows::find(state, &rows::user_key(&alice)).await.unwrap().unwrap();
    assert_eq!((row.version, row.current, row.chain.len()), (2, 2, 2));
    let signet = rows::signet(state, &row.chain[1].signet).await.unwrap();
    assert_eq!(signet.as_deref(), Some(&b"alice 2"[..]));
    let bob = "bob@b.example".parse().unwrap();
    let row: UserRow = rows::find(state, &rows::user_key(&bob)).await.unwrap().unwrap();
    assert_eq!((row.version, row.chain.len()), (2, 1));
    assert_eq!(row.held_until, Some(START + 1000 + 72 * 3_600_000));
    let place: Place = rows::find(state, &rows::place_key(&row.label.0, 2)).await.unwrap().unwrap();
    assert_eq!(opened.log.reader().entry(place.index).await.unwrap().unwrap(), place.entry);

    // A hold that runs goes on with the next entry.
    let mut sequencer = opened.sequencer;
    let next = submit_all(&opened.log, vec![user("bob@b.example", Event::Rotated, "bob 3")]).await;
    round(&mut sequencer).await;
    for handle in next {
        handle.await.unwrap().unwrap();
    }
    let row: UserRow = rows::find(state, &rows::user_key(&bob)).await.unwrap().unwrap();
    assert_eq!((row.version, row.held_until), (3, Some(START + 1000 + 72 * 3_600_000)));
}

/// A bogus answer in between does not hide that the record is gone, or back.
#[tokio::test]
async fn a_record_is_gone_until_an_entry_says_otherwise() {
    let (store, machine) = (Store::memory(), Machine::new());
    let mut opened = machine.open(&store).await;
    let bogus = |draft| match draft {
        Draft::Domain(draft) => Draft::Domain(DomainDraft {
            poks: vec![],
            dnssec: Dnssec::Bogus,
            record: None,
            org_signet: None,
            ..draft
        }),
        other => other,
    };
    for (event, withdrawn) in [
        (Event::FirstSeen, false),
        (Event::DnssecBogus, false),
        (Event::RecordWithdrawn, true),
        (Event::DnssecBogus, true),
        (Event::RecordChanged, false),
    ] {
        let draft = domain("a.example", &[event], "record a");
        let draft = if event == Event::DnssecBogus { bogus(draft) } else { draft };
        log_all(&mut opened, vec![draft]).await;
        let row: DomainRow = rows::find(&*machine.state, b"a.example").await.unwrap().unwrap();
        assert_eq!((row.withdrawn, row.events), (withdrawn, vec![event.number()]), "{event:?}");
    }
}

#[tokio::test]
async fn drafts_that_fit_nowhere_are_refused_alone() {
    let store = Store::memory();
    let machine = Machine::new();
    let mut opened = machine.open(&store).await;
    let drafts = vec![
        domain("a.example", &[Event::RecordChanged], "too early"),
        domain("b.example", &[Event::FirstSeen], "good"),
    ];
    let mut handles = submit_all(&opened.log, drafts).await;
    round(&mut opened.sequencer).await;
    let good = handles.pop().unwrap().await.unwrap().unwrap();
    assert_eq!((good.index, good.version, good.size), (2, 1, 4));
    let bad = handles.pop().unwrap().await.unwrap();
    assert!(matches!(bad, Err(Refused::Unplaceable(_))), "{bad:?}");
    whole(&store).await;
}

/// A visit that ran out of time judges again by rows that may be older than what
/// becomes of its first drafts.
#[tokio::test]
async fn what_was_given_up_is_not_logged_and_never_twice() {
    let (machine, faults) = (Machine::new(), Faults::new());
    let clean = Store::memory();
    let mut opened = small_log(&machine, &faults.wrap(&clean)).await;
    let log = opened.log.clone();
    let submit_after = |draft: Draft, after| {
        let log = log.clone();
        tokio::spawn(async move { log.submit_after(draft, after).await })
    };
    let pooled = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    let give_up = async |handle: JoinHandle<Result<Placed, Refused>>| {
        handle.abort();
        assert!(handle.await.unwrap_err().is_cancelled());
    };
    let row = async || {
        let key = rows::user_key(&"alice@a.example".parse().unwrap());
        rows::find::<UserRow>(&*machine.state, &key).await.unwrap().unwrap()
    };
    let rotated = || user("alice@a.example", Event::Rotated, "alice 3");
    assert_eq!((row().await.version, row().await.chain.len()), (2, 2));

    // Before its batch: nothing came of it.
    let nobody = submit_after(rotated(), 2);
    pooled().await;
    give_up(nobody).await;
    let dave = submit_after(user("dave@a.example", Event::FirstSeen, "dave 1"), 0);
    pooled().await;
    round(&mut opened.sequencer).await;
    assert!(dave.await.unwrap().is_ok());
    assert_eq!(row().await.version, 2);

    // Between its batch and the commit, which the store refuses for a while.
    machine.clock.advance(1000);
    let first = submit_after(rotated(), 2);
    pooled().await;
    faults.always(Operation::Write, "private/commit", Fault::Refuse(Answer::Unavailable));
    assert_eq!(opened.sequencer.round().await.unwrap_err().remedy(), Remedy::Retry);
    give_up(first).await;
    faults.clear();
    let again = [submit_after(rotated(), 2), submit_after(rotated(), 2)];
    pooled().await;
    machine.clock.advance(1000);
    round(&mut opened.sequencer).await;
    round(&mut opened.sequencer).await;
    for handle in again {
        assert_eq!(handle.await.unwrap(), Err(Refused::MovedOn { version: 3 }));
    }
    let known = row().await;
    assert_eq!((known.version, known.chain.len()), (3, 3));

    // Twice in one batch, and once by the version that it has by now.
    machine.clock.advance(1000);
    let next = || user("alice@a.example", Event::Rotated, "alice 4");
    let [one, other] = [submit_after(next(), 3), submit_after(next(), 3)];
    pooled().await;
    round(&mut opened.sequencer).await;
    assert_eq!(one.await.unwrap().unwrap().version, 4);
    assert_eq!(other.await.unwrap(), Err(Refused::MovedOn { version: 4 }));

    // Forgotten, it has no row: it is judged as new, and so is its draft.
    machine.clock.advance(1000);
    let address = "alice@a.example".parse().unwrap();
    let forget = submit_all(&log, vec![Draft::Forget { address }]).await;
    round(&mut opened.sequencer).await;
    assert_eq!(forget.into_iter().next().unwrap().await.unwrap().unwrap().version, 5);
    machine.clock.advance(1000);
    let anew = || user("alice@a.example", Event::FirstSeen, "alice 5");
    let [one, other] = [submit_after(anew(), 0), submit_after(anew(), 0)];
    pooled().await;
    round(&mut opened.sequencer).await;
    assert_eq!(one.await.unwrap().unwrap().version, 6);
    assert_eq!(other.await.unwrap(), Err(Refused::MovedOn { version: 6 }));
    whole(&clean).await;
}

/// A signet of so many bytes and some, by key `number`.
fn large(address: &str, number: u8, bytes: usize) -> Signet {
    let key = PrivateKey::from_secrets(Owner::User, [number; 32], [number; 32]).unwrap();
    let request = build::request(&key, Dialect::L, None).unwrap();
    let photo = [Content::Known(field::PHOTO, vec![number; bytes])];
    build::user(&request, &[9; 32], &photo, SignTo::Id(address)).unwrap()
}

/// Strangers make histories as long and as large as they like, and anybody may ask.
#[tokio::test]
async fn a_long_chain_is_answered_with_few_reads() {
    const ALICE: &str = "alice@a.example";
    let (state, mut machine, faults) =
        (Arc::new(MemoryState::default()), Machine::new(), Faults::new());
    machine.state = state.clone();
    let mut opened = machine.open(&faults.wrap(&Store::memory())).await;
    // Ten signets of a quarter MiB, of which seven are less than two MiB; then ten small ones.
    let sizes = (0..20).map(|number| if number < 10 { 256 << 10 } else { 100 });
    let chain: Vec<Signet> =
        (1..).zip(sizes).map(|(number, size)| large(ALICE, number, size)).collect();
    let org = |number: u8| {
        let key = PrivateKey::from_secrets(Owner::Org, [number; 32], [number; 32]).unwrap();
        let photo = [Content::Known(field::PHOTO, vec![number; 256 << 10])];
        build::org(&key, Dialect::L, &[], &photo, SignTo::Id("a.example")).unwrap()
    };
    let orgs: Vec<Signet> = (1..=10).map(org).collect();
    let mut drafts = Vec::new();
    for (number, org) in orgs.iter().enumerate() {
        let event = if number == 0 { Event::FirstSeen } else { Event::OrgSignetChanged };
        let Draft::Domain(draft) = domain("a.example", &[event], "a") else { panic!() };
        let org_signet = Some(Bytes::copy_from_slice(org.bytes()));
        drafts.push(Draft::Domain(DomainDraft { org_signet, ..draft }));
    }
    for (number, link) in chain.iter().enumerate() {
        let event = if number == 0 { Event::FirstSeen } else { Event::Rotated };
        let Draft::User(draft) = user(ALICE, event, "") else { panic!() };
        let signet = Some(Bytes::copy_from_slice(link.bytes()));
        drafts.push(Draft::User(UserDraft { signet, ..draft }));
    }
    log_all(&mut opened, drafts).await;

    let answers = Answerer::new(opened.log.reader());
    let alice = ALICE.parse().unwrap();
    let print = |signet: &Signet| signet.fingerprint(SignetLevel::Crypto).unwrap();
    let reads = || state.take_reads(Table::Signets);
    reads();
    let tip = answers.mailbox(&alice, None).await.unwrap();
    assert_eq!((tip, reads()), (Holding::Found(chain[19].clone()), 1));
    let third = answers.mailbox(&alice, Some(&print(&chain[17]))).await.unwrap();
    assert_eq!((third, reads()), (Holding::Found(chain[17].clone()), 3));
    let (start, stop) = (print(&chain[15]), print(&chain[18]));
    let part = answers.history(&alice, Some(&start), Some(&stop)).await.unwrap();
    assert_eq!((part, reads()), (Holding::Found(chain[15..=18].to_vec()), 5));
    let backwards = answers.history(&alice, Some(&stop), Some(&start)).await.unwrap();
    assert_eq!((backwards, reads()), (Holding::Nothing, 2));
    // All there is ends where it gets too large, with one read too many.
    let whole = answers.history(&alice, None, None).await.unwrap();
    assert_eq!((whole, reads()), (Holding::Found(chain[3..].to_vec()), 18));
    let oldest = answers.history(&alice, Some(&print(&chain[0])), None).await.unwrap();
    assert_eq!((oldest, reads()), (Holding::Nothing, 18));

    // Of the domain the one in force alone, unless another is asked for.
    let public = |org: &Signet| {
        let name = store_keys::blob(&Sha256::digest(org.bytes()).into());
        format!("public/{name}")
    };
    for unread in &orgs[..3] {
        faults.always(Operation::Read, &public(unread), Fault::Refuse(Answer::Unavailable));
    }
    let name = "a.example".parse().unwrap();
    let older = answers.domain(&name, Some(&print(&orgs[5]))).await.unwrap();
    assert_eq!(older, Holding::Found(orgs[5].clone()));
    for unread in &orgs[..9] {
        faults.always(Operation::Read, &public(unread), Fault::Refuse(Answer::Unavailable));
    }
    for at in [None, Some(&print(&orgs[9]))] {
        let found = answers.domain(&name, at).await.unwrap();
        assert_eq!(found, Holding::Found(orgs[9].clone()));
    }
    assert!(answers.domain(&name, Some(&print(&orgs[5]))).await.is_err());
}

/// What no reader takes need not be read here.
#[tokio::test]
async fn a_history_too_large_for_a_receipt_is_not_put_together() {
    const ALICE: &str = "alice@a.example";
    let (state, mut machine) = (Arc::new(MemoryState::default()), Machine::new());
    machine.state = state.clone();
    let mut opened = machine.open(&Store::memory()).await;
    let mut drafts = vec![domain("a.example", &[Event::FirstSeen], "a")];
    for number in 1..=20 {
        let event = if number == 1 { Event::FirstSeen } else { Event::Rotated };
        let Draft::User(draft) = user(ALICE, event, "") else { panic!("a mailbox's") };
        let signet = Some(Bytes::from(vec![number; 1_000_000]));
        drafts.push(Draft::User(UserDraft { signet, ..draft }));
    }
    log_all(&mut opened, drafts).await;
    let answers = Answerer::new(opened.log.reader());
    let ask = async |span| {
        let name = ALICE.parse().unwrap();
        answers.receipt(&Question { name, span, has_genesis: true }).await
    };
    state.take_reads(Table::Signets);
    // Where names are compared the newest are there, and no more is read for it.
    let compared = ask(Span::Whole).await.unwrap();
    assert_eq!((compared.latest(), compared.first()), (20, 1));
    let large = compared.blobs.iter().filter(|blob| blob.len() == 1_000_000);
    let newest: Vec<u8> = large.map(|blob| blob[0]).collect();
    assert_eq!(newest.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&19, &20]));
    assert_eq!(state.take_reads(Table::Signets), MAX_BLOBS / 1_000_000 + 1);
    let whole = ask(Span::From(0)).await;
    assert!(matches!(whole, Err(answer::Error::TooLong { latest: 20, .. })), "{whole:?}");
    assert_eq!(state.take_reads(Table::Signets), MAX_BLOBS / 1_000_000 + 1);
    ask(Span::Latest).await.unwrap();
    assert_eq!(state.take_reads(Table::Signets), 1);
}

/// An organization's signets, however large, keep no mailbox's history from anybody:
/// older ones say nothing of its keys.
#[tokio::test]
async fn large_org_signets_are_left_out_of_a_mailboxs_history() {
    const ALICE: &str = "alice@a.example";
    let machine = Machine::new();
    let mut opened = machine.open(&Store::memory()).await;
    let first =
        vec![domain("a.example", &[Event::FirstSeen], "a"), user(ALICE, Event::FirstSeen, "a")];
    log_all(&mut opened, first).await;
    let mut drafts = Vec::new();
    for number in 1..=20 {
        let Draft::Domain(draft) = domain("a.example", &[Event::OrgSignetChanged], "a") else {
            panic!("a domain's")
        };
        let org_signet = Some(Bytes::from(vec![number; 1_000_000]));
        drafts.push(Draft::Domain(DomainDraft { org_signet, ..draft }));
    }
    log_all(&mut opened, drafts).await;
    let answers = Answerer::new(opened.log.reader());
    let ask = async |name: &str, span| {
        let name = name.parse().unwrap();
        answers.receipt(&Question { name, span, has_genesis: true }).await
    };
    for (span, most) in [(Span::From(0), MAX_BLOBS), (Span::Whole, MAX_COMPARED)] {
        let receipt = ask(ALICE, span).await.unwrap();
        assert_eq!(receipt.domain.as_ref().unwrap().items.len(), 21);
        let size: usize = receipt.blobs.iter().map(Bytes::len).sum();
        assert!(size <= most && size > most - 1_000_000, "{size}");
        // The one in force, and the one that the mailbox's rests on.
        assert!(receipt.blobs.iter().any(|blob| blob[0] == 20 && blob.len() == 1_000_000));
    }
    // A domain's own are what is asked for.
    let whole = ask("a.example", Span::From(0)).await;
    assert!(matches!(whole, Err(answer::Error::TooLong { latest: 21, .. })), "{whole:?}");
    let compared = ask("a.example", Span::Whole).await.unwrap();
    assert_eq!((compared.latest(), compared.first()), (21, 1));
}

/// A row is one value of the index, which takes no more than a MiB.
#[tokio::test]
async fn a_row_lists_the_newest_links() {
    let (store, machine) = (Store::memory(), Machine::new());
    let mut opened = small_log(&machine, &store).await;
    let state = &*machine.state;
    let key = rows::user_key(&"alice@a.example".parse().unwrap());
    let users = async || rows::find::<UserRow>(state, &key).await.unwrap().unwrap();
    let domains = async || rows::find::<DomainRow>(state, b"a.example").await.unwrap().unwrap();
    // As after years.
    let (mut alice, mut above) = (users().await, domains().await);
    alice.chain = alice.chain.iter().cycle().take(LISTED).cloned().collect();
    above.org_signets = above.org_signets.iter().cycle().take(LISTED).copied().collect();
    let mut batch = Batch::new();
    batch.row(&alice);
    batch.row(&above);
    let _ = state.apply(batch).await.unwrap();

    let Draft::Domain(next) = domain("a.example", &[Event::OrgSignetChanged], "record a") else {
        panic!("a domain's")
    };
    let org_signet = Some(Bytes::from_static(b"another org signet"));
    let drafts = vec![
        Draft::Domain(DomainDraft { org_signet, ..next }),
        user("alice@a.example", Event::Rotated, "alice 3"),
    ];
    log_all(&mut opened, drafts).await;
    let (longer, wider) = (users().await, domains().await);
    assert_eq!((longer.version, longer.chain.len()), (3, LISTED));
    assert_eq!(longer.chain[..LISTED - 1], alice.chain[1..]);
    assert_eq!((wider.version, wider.org_signets.len()), (2, LISTED));
    assert_eq!(wider.org_signets[..LISTED - 1], above.org_signets[1..]);
}

/// Breaks each write of a round in each way. Afterwards the round is tried
/// again, or the process is taken for dead and another one opens the store.
#[tokio::test]
async fn every_write_of_a_round_may_break() {
    let mut faults = vec![Fault::DieBefore, Fault::DieAfter];
    faults.extend(Answer::ALL.map(Fault::Refuse));
    faults.extend(Answer::ALL.map(Fault::Lie));
    let writes = writes_of_a_round().await;
    assert!(writes >= 10, "{writes} writes");
    let (machine, store) = (Machine::new(), Store::memory());
    drop(small_log(&machine, &store).await);
    let prepared = Prepared::of(&machine, store);
    for fault in faults {
        for nth in 0..writes {
            break_one(&prepared, nth, &fault).await;
        }
    }
}

fn second_batch() -> Vec<Draft> {
    vec![
        domain("c.example", &[Event::FirstSeen], "record c"),
        domain("a.example", &[Event::RecordChanged], "record a, changed"),
        user("carol@c.example", Event::FirstSeen, "carol 1"),
        user("alice@a.example", Event::Rotated, "alice 3"),
    ]
}

async fn writes_of_a_round() -> u64 {
    let (machine, faults) = (Machine::new(), Faults::new());
    let store = faults.wrap(&Store::memory());
    let mut opened = small_log(&machine, &store).await;
    faults.forget_trail();
    let _handles = submit_all(&opened.log, second_batch()).await;
    round(&mut opened.sequencer).await;
    faults.trail().iter().filter(|(operation, _)| *operation == Operation::Write).count() as u64
}

async fn break_one(prepared: &Prepared, nth: u64, fault: &Fault) {
    let what = format!("write {nth}, {fault:?}");
    let (machine, clean) = prepared.take_up().await;
    let faults = Faults::new();
    let store = faults.wrap(&clean);
    let mut opened = machine.open(&store).await;
    machine.clock.advance(1000);
    let before = whole(&clean).await;
    let handles = submit_all(&opened.log, second_batch()).await;
    faults.on(Operation::Write, "", nth, fault.clone());
    let deadly = matches!(fault, Fault::DieBefore | Fault::DieAfter);
    let mut fatal = false;
    for _ in 0..10 {
        match opened.sequencer.round().await {
            Ok(_) => break,
            Err(error) if error.remedy() == Remedy::Fatal => {
                fatal = true;
                break;
            }
            Err(_) if deadly => break,
            Err(_) => {}
        }
        let during = check(&clean, &keys().log.verifier()).await.unwrap().unwrap();
        assert!(during.continues(&before), "{what}");
    }
    faults.clear();
    if deadly || fatal {
        let Opened { log, sequencer } = opened;
        drop((log, sequencer));
        let middle = whole(&clean).await;
        assert!(middle.continues(&before), "{what}");
        opened = machine.open(&store).await;
        assert_eq!(opened.log.blocked(), None, "{what}");
    }
    let after = whole(&clean).await;
    assert!(after.continues(&before), "{what}");
    // Everything that was acknowledged is there, at its place.
    let reader = opened.log.reader();
    for handle in handles {
        match handle.await.unwrap() {
            Ok(placed) => {
                assert!(reader.entry(placed.index).await.unwrap().is_some(), "{what}");
                assert!(placed.size <= after.entries.len() as u64, "{what}");
            }
            Err(refused) => assert_eq!(refused, Refused::Stopped, "{what}"),
        }
    }
    // And it goes on.
    machine.clock.advance(1000);
    let last = submit_all(&opened.log, vec![domain("z.example", &[Event::FirstSeen], "z")]).await;
    round(&mut opened.sequencer).await;
    for handle in last {
        handle.await.unwrap().unwrap();
    }
    let end = whole(&clean).await;
    assert!(end.continues(&after), "{what}");
    assert_eq!(end.checkpoints.last().unwrap().0, end.entries.len() as u64, "{what}");
    assert_index(&machine, &opened.log, &end).await;
}

/// The index holds every entry of a label, and the guard stands at the tip.
async fn assert_index(machine: &Machine, log: &Log, checked: &Checked) {
    let places: Vec<Place> =
        rows::scan(&*machine.state, syndicate::store::state::Range::all(), 10_000).await.unwrap();
    for place in &places {
        assert_eq!(checked.entries[place.index as usize], place.entry);
    }
    let head = log.heads().committed.unwrap();
    assert_eq!(head.size, checked.entries.len() as u64);
    let moved = checked.entries.len() as u64 - checked.commits - 1;
    assert_eq!(places.len() as u64, moved, "every entry but genesis and roots");
    let guard = std::fs::read_to_string(&machine.guard).unwrap();
    assert!(guard.contains(&format!("own {ORIGIN} {} {} ", head.n, head.size)), "{guard}");
}

/// Deletions and reads that fail only delay.
#[tokio::test]
async fn reads_may_fail_too() {
    for nth in 0..6 {
        let (machine, faults) = (Machine::new(), Faults::new());
        let clean = Store::memory();
        let store = faults.wrap(&clean);
        let mut opened = small_log(&machine, &store).await;
        let handles = submit_all(&opened.log, second_batch()).await;
        faults.on(Operation::Read, "private", nth, Fault::Refuse(Answer::Unavailable));
        round(&mut opened.sequencer).await;
        for handle in handles {
            handle.await.unwrap().unwrap();
        }
        whole(&clean).await;
    }
}

#[tokio::test]
async fn a_lost_or_foreign_index_is_made_again() {
    let store = Store::memory();
    let mut machine = Machine::new();
    drop(small_log(&machine, &store).await);
    let expected = all_rows(&*machine.state).await;

    // Gone.
    machine.state = Arc::new(MemoryState::default());
    drop(machine.open(&store).await);
    assert_eq!(all_rows(&*machine.state).await, expected);

    // Of another log.
    let other = Machine::new();
    let elsewhere = Store::memory();
    let mut opened = other.open(&elsewhere).await;
    let strangers = vec![domain("stranger.example", &[Event::FirstSeen], "s")];
    let handles = submit_all(&opened.log, strangers).await;
    round(&mut opened.sequencer).await;
    drop(handles);
    machine.state = other.state.clone();
    drop(machine.open(&store).await);
    assert_eq!(all_rows(&*machine.state).await, expected);

    // By hand.
    machine.state = Arc::new(MemoryState::default());
    log::rebuild(&store, &*machine.state).await.unwrap();
    assert_eq!(all_rows(&*machine.state).await, expected);
}

async fn all_rows(state: &dyn State) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for table in syndicate::store::Table::OF_THE_LOG {
        all.extend(state.scan(table, syndicate::store::state::Range::all(), 10_000).await.unwrap());
    }
    all
}

#[tokio::test]
async fn a_sled_folder_may_be_deleted_or_filled_with_garbage() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(&folder.path().join("blobs")).unwrap();
    let path = folder.path().join("state");
    let mut machine = Machine::new();
    machine.state = Arc::new(Sled::open(&path).unwrap());
    drop(small_log(&machine, &store).await);
    let expected = all_rows(&*machine.state).await;
    assert!(matches!(Sled::open(&path), Err(syndicate::store::Error::InUse { .. })));

    for damage in ["deleted", "garbage"] {
        machine.state = Arc::new(MemoryState::default());
        until_closed(&path).await;
        match damage {
            "deleted" => std::fs::remove_dir_all(&path).unwrap(),
            _ => overwrite(&path),
        }
        let state = match Sled::open(&path) {
            Ok(state) => state,
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                set_aside(&path).unwrap();
                Sled::open(&path).unwrap()
            }
        };
        machine.state = Arc::new(state);
        drop(machine.open(&store).await);
        assert_eq!(all_rows(&*machine.state).await, expected, "{damage}");
    }
    whole(&store).await;
}

/// What a log does beside its rounds holds the index a little longer.
async fn until_closed(path: &Path) {
    let ends = tokio::time::Instant::now() + Duration::from_secs(60);
    while matches!(Sled::open(path), Err(syndicate::store::Error::InUse { .. })) {
        assert!(tokio::time::Instant::now() < ends, "somebody holds it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn overwrite(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            overwrite(&path);
        } else {
            let length = std::fs::metadata(&path).unwrap().len() as usize;
            let garbage: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            std::fs::write(&path, garbage).unwrap();
        }
    }
}

#[tokio::test]
async fn two_sequencers_on_one_folder_never_fork() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(folder.path()).unwrap();
    let (left, right) = (Machine::new(), Machine::new());
    let mut one = left.open(&store).await;
    let mut two = right.open(&store).await;
    assert_eq!(two.log.blocked(), None);
    let mut handles = Vec::new();
    for turn in 0..8 {
        let name = |who: &str| domain(&format!("{who}{turn}.example"), &[Event::FirstSeen], who);
        handles.extend(submit_all(&one.log, vec![name("left")]).await);
        handles.extend(submit_all(&two.log, vec![name("right")]).await);
        left.clock.advance(1000);
        right.clock.advance(1000);
        let (a, b) = tokio::join!(one.sequencer.round(), two.sequencer.round());
        a.unwrap();
        b.unwrap();
        whole(&store).await;
    }
    for _ in 0..20 {
        one.sequencer.round().await.unwrap();
        two.sequencer.round().await.unwrap();
    }
    let checked = whole(&store).await;
    let mut indices = Vec::new();
    for handle in handles {
        indices.push(handle.await.unwrap().unwrap().index);
    }
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), 16, "each draft is in the log once");
    assert_eq!(checked.entries.len() as u64 - checked.commits - 1, 16);
}

/// One stands before its commit while the other goes on.
#[tokio::test]
async fn a_stalled_sequencer_follows_when_it_wakes() {
    let clean = Store::memory();
    let faults = Faults::new();
    let (left, right) = (Machine::new(), Machine::new());
    let mut stalled = left.open(&faults.wrap(&clean)).await;
    let mut awake = right.open(&clean).await;
    let mine = submit_all(&stalled.log, vec![domain("mine.example", &[Event::FirstSeen], "m")]);
    let mine = mine.await;
    let gate = faults.gate(Operation::Write, "private/commit", 0);
    let asleep = tokio::spawn(async move {
        let outcome = stalled.sequencer.round().await;
        (stalled, outcome)
    });
    gate.reached().await;
    for turn in 0..3 {
        let draft = domain(&format!("d{turn}.example"), &[Event::FirstSeen], "d");
        let handles = submit_all(&awake.log, vec![draft]).await;
        round(&mut awake.sequencer).await;
        for handle in handles {
            handle.await.unwrap().unwrap();
        }
    }
    let before = whole(&clean).await;
    gate.open();
    let (mut stalled, outcome) = asleep.await.unwrap();
    outcome.unwrap();
    assert!(whole(&clean).await.continues(&before));
    // It never published a smaller tree after the larger one.
    round(&mut stalled.sequencer).await;
    for handle in mine {
        assert_eq!(handle.await.unwrap().unwrap().index, before.entries.len() as u64);
    }
    assert!(whole(&clean).await.continues(&before));
}

fn merging(machine: &Machine) -> Options {
    Options { segment: 8, ..machine.options() }
}

async fn grow(machine: &Machine, opened: &mut Opened, from: usize, turns: usize) {
    for turn in from..from + turns {
        let name = format!("d{turn}.example");
        let drafts = vec![
            domain(&name, &[Event::FirstSeen], "d"),
            user(&format!("u@{name}"), Event::FirstSeen, &format!("signet {turn}")),
        ];
        let handles = submit_all(&opened.log, drafts).await;
        machine.clock.advance(1000);
        round(&mut opened.sequencer).await;
        for handle in handles {
            handle.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn old_commits_become_segments_and_all_is_rebuilt_from_them() {
    let store = Store::memory();
    let mut machine = Machine::new();
    let mut opened = machine.open_with(merging(&machine), &store).await.unwrap();
    grow(&machine, &mut opened, 0, 50).await;
    assert_eq!(keys_under(&store, "segment").await.len(), 4);
    assert_eq!(keys_under(&store, "commit").await.len(), 51 - 4 * 8);
    assert_eq!(keys_under(&store, "batch").await.len(), 51 - 4 * 8);
    let checked = whole(&store).await;
    assert_eq!(checked.commits, 51);
    let expected = all_rows(&*machine.state).await;
    drop(opened);
    machine.state = Arc::new(MemoryState::default());
    let mut opened = machine.open_with(merging(&machine), &store).await.unwrap();
    assert_eq!(all_rows(&*machine.state).await, expected);
    grow(&machine, &mut opened, 50, 3).await;
    assert!(whole(&store).await.continues(&checked));
}

async fn keys_under(store: &Store, prefix: &str) -> Vec<String> {
    let found = store.private.list_all(prefix, 100_000).await.unwrap();
    found.into_iter().map(|found| found.key).collect()
}

/// A log as it lies there after its process ended, to be taken up many times.
struct Prepared {
    store: Store,
    guard: String,
    now: Timestamp,
}

impl Prepared {
    fn of(machine: &Machine, store: Store) -> Prepared {
        let guard = std::fs::read_to_string(&machine.guard).unwrap();
        Prepared { store, guard, now: machine.clock.now() }
    }

    /// A copy of it, and a machine that has its guard and no index.
    async fn take_up(&self) -> (Machine, Store) {
        let machine = Machine::new();
        std::fs::write(&machine.guard, &self.guard).unwrap();
        machine.clock.set(self.now);
        (machine, copy(&self.store).await)
    }
}

/// Merging is broken at its writes and deletions.
#[tokio::test]
async fn a_merge_may_break_anywhere() {
    let (machine, store) = (Machine::new(), Store::memory());
    let mut opened = machine.open_with(merging(&machine), &store).await.unwrap();
    grow(&machine, &mut opened, 0, 22).await;
    drop(opened);
    let prepared = Prepared::of(&machine, store);
    let mut merges_broken = 0;
    let writes = (0..14).map(|nth| (Operation::Write, nth));
    let deletions = (0..32).step_by(3).map(|nth| (Operation::Delete, nth));
    for (operation, nth) in writes.chain(deletions) {
        for fault in [Fault::DieBefore, Fault::DieAfter] {
            let (machine, clean) = prepared.take_up().await;
            let faults = Faults::new();
            let mut opened =
                machine.open_with(merging(&machine), &faults.wrap(&clean)).await.unwrap();
            let before = whole(&clean).await;
            faults.on(operation, "", nth, fault);
            let draft = domain("last.example", &[Event::FirstSeen], "l");
            let handles = submit_all(&opened.log, vec![draft]).await;
            machine.clock.advance(1000);
            let broken = opened.sequencer.round().await.is_err();
            merges_broken += u32::from(broken && operation == Operation::Delete);
            faults.clear();
            drop((opened, handles));
            assert!(whole(&clean).await.continues(&before));
            let mut opened = machine.open_with(merging(&machine), &clean).await.unwrap();
            grow(&machine, &mut opened, 100, 2).await;
            let after = whole(&clean).await;
            assert!(after.continues(&before));
            let commits = after.commits as usize;
            assert_eq!(
                keys_under(&clean, "commit").await.len(),
                commits - 8,
                "{operation:?} {nth}"
            );
            assert_eq!(keys_under(&clean, "segment").await.len(), 1);
        }
    }
    assert!(merges_broken >= 20, "{merges_broken}");
}

/// A process that slept while its commit number was used, merged and deleted
/// creates that commit again: it must sign nothing.
#[tokio::test]
async fn a_number_that_was_merged_away_is_not_used_again() {
    let clean = Store::memory();
    let faults = Faults::new();
    let (left, right) = (Machine::new(), Machine::new());
    let mut sleeper = left.open_with(merging(&left), &faults.wrap(&clean)).await.unwrap();
    let mut awake = right.open_with(merging(&right), &clean).await.unwrap();
    let _mine =
        submit_all(&sleeper.log, vec![domain("mine.example", &[Event::FirstSeen], "m")]).await;
    let gate = faults.gate(Operation::Write, "private/commit", 0);
    let asleep = tokio::spawn(async move { sleeper.sequencer.round().await });
    gate.reached().await;
    grow(&right, &mut awake, 0, 40).await;
    let before = whole(&clean).await;
    gate.open();
    let error = asleep.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Superseded { n: 1 }), "{error}");
    assert_eq!(error.remedy(), Remedy::Fatal);
    let after = whole(&clean).await;
    assert_eq!(after, before, "nothing was published");
    // The next start of the sleeper follows.
    let opened = left.open_with(merging(&left), &clean).await.unwrap();
    assert_eq!(opened.log.heads().committed.unwrap().size, before.entries.len() as u64);
}

#[tokio::test]
async fn snapshots_shorten_the_start_and_are_never_trusted_blindly() {
    let store = Store::memory();
    let machine = Machine::new();
    let options = Options { snapshot: 20, ..machine.options() };
    let mut opened = machine.open_with(options.clone(), &store).await.unwrap();
    grow(&machine, &mut opened, 0, 30).await;
    let checked = whole(&store).await;
    // They are written beside the rounds.
    let ends = tokio::time::Instant::now() + Duration::from_secs(60);
    let snapshots = loop {
        let found = store.public.list_all("snapshot", 1000).await.unwrap();
        if !found.is_empty() {
            break found;
        }
        assert!(tokio::time::Instant::now() < ends, "no snapshot");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    drop(opened);
    let opened = machine.open_with(options.clone(), &store).await.unwrap();
    let head = opened.log.heads().committed.unwrap();
    assert_eq!((head.size, head.root), (checked.entries.len() as u64, checked.root));
    drop(opened);
    // Damaged: passed over.
    for found in snapshots {
        store.public.overwrite(&found.key, Bytes::from_static(b"garbage")).await.unwrap();
    }
    let mut opened = machine.open_with(options, &store).await.unwrap();
    assert_eq!(opened.log.heads().committed.unwrap().root, checked.root);
    grow(&machine, &mut opened, 100, 1).await;
    assert!(whole(&store).await.continues(&checked));
}

#[tokio::test]
async fn partial_tiles_go_when_the_full_one_is_old() {
    let store = Store::memory();
    let machine = Machine::new();
    // Objects in memory carry the machine's real time: the log's is later.
    machine.clock.set(Timestamp::from_millis(Clock::system().now().millis() + 100_000));
    let options = Options { prune_after: Some(Duration::from_secs(60)), ..machine.options() };
    let mut opened = machine.open_with(options, &store).await.unwrap();
    grow(&machine, &mut opened, 0, 100).await;
    let partial = |found: &syndicate::store::blobs::Found| found.key.contains(".p/");
    let tiles = store.public.list_all("tile", 10_000).await.unwrap();
    let size = opened.log.heads().committed.unwrap().size;
    assert_eq!(size, 302);
    // Those of the second tile and bundle, and of the one tile of level 1.
    let left = tiles.iter().filter(|found| partial(found)).count();
    assert_eq!(left, 2 * (257..=302).step_by(3).count() + 1);
    assert!(!tiles.iter().any(|found| found.key.starts_with("tile/0/000.p")));
    whole(&store).await;
}

#[tokio::test]
async fn without_its_guard_a_log_is_served_and_not_written() {
    let store = Store::memory();
    let machine = Machine::new();
    drop(small_log(&machine, &store).await);
    let checked = whole(&store).await;
    std::fs::remove_file(&machine.guard).unwrap();

    let mut opened = machine.open(&store).await;
    let expected = Blocked::GuardMissing { size: 10, root: checked.root };
    assert_eq!(opened.log.blocked(), Some(expected));
    assert_eq!(opened.log.reader().head().unwrap().size, 10, "it is served");
    let refused = opened.log.submit(domain("n.example", &[Event::FirstSeen], "n")).await;
    assert_eq!(refused, Err(Refused::Blocked(expected)));
    assert_eq!(opened.sequencer.round().await.unwrap(), None);
    assert!(!machine.guard.exists());

    // Another node goes on; this one follows without signing.
    let other = Machine::new();
    log::accept_tip(&other.guard, &store, 10, checked.root).await.unwrap();
    let mut elsewhere = other.open(&store).await;
    grow(&other, &mut elsewhere, 0, 1).await;
    opened.sequencer.round().await.unwrap();
    assert_eq!(opened.log.reader().head().unwrap().size, 13);

    // The operator's word must name the tip.
    assert!(opened.log.accept_tip(10, checked.root).await.is_err());
    let head = opened.log.heads().committed.unwrap();
    opened.log.accept_tip(head.size, head.root).await.unwrap();
    round(&mut opened.sequencer).await;
    assert_eq!(opened.log.blocked(), None);
    grow(&machine, &mut opened, 5, 1).await;
    assert!(whole(&store).await.continues(&checked));
}

#[tokio::test]
async fn an_old_backup_of_the_store_is_not_continued() {
    let store = Store::memory();
    let machine = Machine::new();
    let mut opened = small_log(&machine, &store).await;
    let backup = copy(&store).await;
    grow(&machine, &mut opened, 0, 3).await;
    let published = whole(&store).await;
    drop(opened);

    let fresh = Arc::new(MemoryState::default());
    let restored = Machine { state: fresh, ..machine };
    let opened = restored.open(&backup).await;
    assert!(matches!(opened.log.blocked(), Some(Blocked::GuardAhead { size: 10, .. })));
    let again = whole(&backup).await;
    assert!(published.continues(&again));
    assert_eq!(again.checkpoints.last().unwrap().0, 10, "nothing was signed");
    drop(opened);

    // The guard alone is old: more than the one commit that a crash explains.
    let text = format!(
        "syndicate guard v1\nown {ORIGIN} 0 2 {}\n",
        hex::encode(published.checkpoints[0].1)
    );
    std::fs::write(&restored.guard, text).unwrap();
    let opened = restored.open(&store).await;
    assert!(matches!(opened.log.blocked(), Some(Blocked::GuardBehind { .. })));
    drop(opened);
    let text = format!("syndicate guard v1\nown {ORIGIN} 1 8 {}\n", hex::encode([9; 32]));
    std::fs::write(&restored.guard, text).unwrap();
    let opened = restored.open(&store).await;
    assert!(matches!(opened.log.blocked(), Some(Blocked::GuardDiffers { .. })));
    drop(opened);
    std::fs::write(&restored.guard, "garbage").unwrap();
    let opened = restored.open(&store).await;
    assert!(matches!(opened.log.blocked(), Some(Blocked::GuardDamaged { .. })));
    drop(opened);

    // A guard without its store is no reason to begin a second history.
    let text = format!("syndicate guard v1\nown {ORIGIN} 1 8 {}\n", hex::encode([9; 32]));
    std::fs::write(&restored.guard, text).unwrap();
    let outcome = restored.open_with(restored.options(), &Store::memory()).await;
    assert!(matches!(outcome.err(), Some(Error::Foreign { .. })));
}

async fn copy(store: &Store) -> Store {
    let copied = Store::memory();
    for (from, to) in [(&store.public, &copied.public), (&store.private, &copied.private)] {
        for found in from.list_all("", 100_000).await.unwrap() {
            let bytes = from.get(&found.key, found.size).await.unwrap().unwrap();
            to.overwrite(&found.key, bytes).await.unwrap();
        }
    }
    copied
}

#[tokio::test]
async fn a_clock_that_jumps_stops_the_log_and_does_not_brick_it() {
    let store = Store::memory();
    let machine = Machine::new();
    let mut opened = small_log(&machine, &store).await;
    let checked = whole(&store).await;
    let now = machine.clock.now();

    // Ten years ahead.
    machine.clock.advance(10 * 365 * 86_400_000);
    let handles = submit_all(&opened.log, second_batch()).await;
    assert_eq!(opened.sequencer.round().await.unwrap(), None);
    for handle in handles {
        let refused = handle.await.unwrap();
        assert!(matches!(refused, Err(Refused::Blocked(Blocked::ClockAhead { .. }))));
    }
    assert_eq!(whole(&store).await, checked);

    // Back by a minute: the last root's time is used again. By an hour: no.
    machine.clock.set(Timestamp::from_millis(now.millis() - 60_000));
    log_all(&mut opened, second_batch()).await;
    assert_eq!(opened.log.heads().committed.unwrap().time, now);
    assert_eq!(opened.log.blocked(), None);
    machine.clock.set(Timestamp::from_millis(now.millis() - 3_600_000));
    assert_eq!(opened.sequencer.round().await.unwrap(), None);
    assert!(matches!(opened.log.blocked(), Some(Blocked::ClockBehind { .. })));

    // Two hours ahead, and the operator says that this is right.
    machine.clock.set(Timestamp::from_millis(now.millis() + 7_200_000));
    assert_eq!(opened.sequencer.round().await.unwrap(), None);
    opened.log.accept_clock();
    assert!(opened.sequencer.round().await.unwrap().is_some());
    assert_eq!(opened.log.blocked(), None);
    assert!(whole(&store).await.continues(&checked));
    drop(opened);

    // The same word at a start, after an outage.
    machine.clock.advance(7_200_000);
    let mut opened = machine.open(&store).await;
    assert_eq!(opened.sequencer.round().await.unwrap(), None);
    assert!(matches!(opened.log.blocked(), Some(Blocked::ClockAhead { .. })));
    drop(opened);
    let options = Options { accept_clock: true, ..machine.options() };
    let mut opened = machine.open_with(options, &store).await.unwrap();
    assert!(opened.sequencer.round().await.unwrap().is_some());
    assert_eq!(opened.log.blocked(), None);
}

/// Threat 13: the directory proves the published head, so it can run ahead of it
/// only so far. Then nothing is sequenced, and it says why.
#[tokio::test]
async fn what_is_not_published_holds_the_next_batches_up() {
    let (machine, clean) = (Machine::new(), Store::memory());
    let faults = Faults::new();
    let directory = syndicate::directory::Options { pending: 3, ..Default::default() };
    let options = Options { directory, interval: Duration::from_millis(1), ..machine.options() };
    let opened = machine.open_with(options, &faults.wrap(&clean)).await.unwrap();
    let log = opened.log;
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(opened.sequencer.run(stop.clone()));
    let small = submit(&log, domain("a.example", &[Event::FirstSeen], "a"));
    assert_eq!(small.await.unwrap().unwrap().version, 1);
    // More changes in one batch than may wait: told, not lost, and not committed.
    let before = log.heads().committed.unwrap();
    let names = ["b.example", "c.example", "d.example", "e.example"];
    let drafts = names.map(|name| domain(name, &[Event::FirstSeen], "x"));
    let many = submit_all(&log, drafts.into()).await;
    let ends = tokio::time::Instant::now() + Duration::from_secs(60);
    while log.blocked().is_none() {
        assert!(tokio::time::Instant::now() < ends, "it goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let blocked = log.blocked().unwrap();
    assert!(matches!(blocked, Blocked::Unpublished { .. }), "{blocked}");
    assert!(!blocked.doubts_memory());
    assert_eq!(log.heads().committed.unwrap(), before);
    assert!(many.iter().all(|draft| !draft.is_finished()), "they wait");
    running.abort();
    assert!(whole(&clean).await.entries.len() as u64 == before.size);
}

#[tokio::test]
async fn another_key_or_origin_is_another_log() {
    let store = Store::memory();
    let machine = Machine::new();
    drop(machine.open(&store).await);
    let other = Options { origin: Some("other.example".into()), ..machine.options() };
    assert!(matches!(machine.open_with(other, &store).await.err(), Some(Error::Foreign { .. })));
    let without = Options { origin: None, ..machine.options() };
    drop(machine.open_with(without, &store).await.unwrap());
    let wrong = Keys { log: SigningKey::ed25519(ORIGIN, &[9; 32]).unwrap(), ..keys() };
    let clock = machine.clock.clone();
    let outcome = log::open(machine.options(), store, machine.state.clone(), wrong, clock).await;
    assert!(matches!(outcome.err(), Some(Error::Foreign { .. })));
}

#[tokio::test]
async fn the_loop_sequences_beats_and_stops() {
    let store = Store::memory();
    let machine = Machine::new();
    let Opened { log, sequencer } = machine.open(&store).await;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(sequencer.run(shutdown.clone()));
    let placed = log.submit(domain("a.example", &[Event::FirstSeen], "a")).await.unwrap();
    assert_eq!(placed.index, 2);
    // Nothing happens for a while, then the heart beats.
    let mut heads = log.watch_heads();
    heads.mark_unchanged();
    machine.clock.advance(600_000);
    heads
        .wait_for(|heads| heads.published.as_ref().is_some_and(|head| head.size == 5))
        .await
        .unwrap();
    // What is in the pool at the end is still sequenced.
    let last = submit_all(&log, vec![domain("b.example", &[Event::FirstSeen], "b")]).await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
    for handle in last {
        handle.await.unwrap().unwrap();
    }
    assert_eq!(whole(&store).await.entries.len(), 7);
    let refused = log.submit(domain("c.example", &[Event::FirstSeen], "c")).await;
    assert_eq!(refused, Err(Refused::Stopped));
}

/// Threat 13: proofs are of the published head, and that one waits for its quorum.
#[tokio::test]
async fn a_checkpoint_waits_for_its_quorum_or_for_the_deadline() {
    let (machine, store) = (Machine::new(), Store::memory());
    let options = Options {
        publish_quorum: 1,
        quorum_deadline: Duration::from_secs(3600),
        interval: Duration::from_millis(1),
        ..machine.options()
    };
    let opened = machine.open_with(options.clone(), &store).await.unwrap();
    let log = opened.log;
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(opened.sequencer.run(stop.clone()));
    let before = log.heads().published.unwrap();
    let mut heads = log.watch_heads();
    machine.clock.advance(1000);
    let placed = submit(&log, domain("a.example", &[Event::FirstSeen], "record a"));
    let signed = heads
        .wait_for(|heads| {
            heads
                .committed
                .as_ref()
                .is_some_and(|head| head.size > before.size && head.checkpoint.is_some())
        })
        .await
        .unwrap()
        .committed
        .clone()
        .unwrap();
    assert_eq!(log.heads().published.as_ref(), Some(&before), "it waits");
    assert_eq!(log.directory().served().root, before.directory_root);
    assert_eq!(log.reader().checkpoint(), before.checkpoint);
    let proof = log.reader().consistency(before.size, signed.size).await.unwrap();
    verify_consistency(before.size, signed.size, &before.root, &signed.root, &proof).unwrap();

    let cosigner = |name: &str, seed| SigningKey::cosigner(name, &[seed; 32]).unwrap();
    let (peer, public) = (cosigner("peer.example", 3), cosigner("witness.example", 4));
    let by = |key: &SigningKey, text: &str, counts| log::Cosignature {
        key: key.verifier(),
        signature: key.sign(text, machine.clock.now()),
        counts,
    };
    let note = SignedCheckpoint::parse(&signed.checkpoint.unwrap()).unwrap();
    let text = note.note().text();
    // One that does not verify, and one that does not count.
    let forged = log::Cosignature { key: peer.verifier(), ..by(&public, text, true) };
    assert_eq!(log.cosign(signed.size, &[forged]).await.unwrap(), 0);
    assert_eq!(log.cosign(signed.size, &[by(&public, text, false)]).await.unwrap(), 1);
    assert_eq!(log.heads().published.as_ref(), Some(&before));
    assert_eq!(log.cosign(signed.size, &[by(&peer, text, true)]).await.unwrap(), 1);
    assert_eq!(placed.await.unwrap().unwrap().size, signed.size);
    let published = SignedCheckpoint::parse(&log.reader().checkpoint().unwrap()).unwrap();
    let keys = [keys().log.verifier(), peer.verifier(), public.verifier()];
    assert_eq!(published.verify(&keys).unwrap().len(), 3);
    let kept = store.public.list_all("checkpoints", 10).await.unwrap();
    assert_eq!(kept.len(), 3, "the first writing went");

    // A later one is added to what is published; a restart keeps them all.
    let late = cosigner("late.example", 5);
    assert_eq!(log.cosign(signed.size, &[by(&late, text, true)]).await.unwrap(), 1);
    assert_eq!(log.cosign(before.size, &[by(&late, text, true)]).await.unwrap(), 0);
    let told = log.reader().checkpoint();
    stop.cancel();
    running.await.unwrap().unwrap();
    drop(log);
    let options = Options { quorum_deadline: Duration::from_millis(50), ..options };
    let opened = machine.open_with(options, &store).await.unwrap();
    let log = opened.log;
    assert_eq!(log.reader().checkpoint(), told);

    // Nobody cosigns: published all the same when the time is up.
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(opened.sequencer.run(stop.clone()));
    machine.clock.advance(1000);
    let placed = submit(&log, domain("b.example", &[Event::FirstSeen], "record b"));
    let size = placed.await.unwrap().unwrap().size;
    assert_eq!(log.heads().published.unwrap().size, size);
    stop.cancel();
    running.await.unwrap().unwrap();
    whole(&store).await;
}

async fn forget_and_come_back(machine: &Machine, opened: &mut Opened, version: u64) {
    let bob: syndicate::dime::Address = "bob@b.example".parse().unwrap();
    let forget = Draft::Forget { address: bob.clone() };
    let handles = submit_all(&opened.log, vec![forget]).await;
    round(&mut opened.sequencer).await;
    for handle in handles {
        assert_eq!(handle.await.unwrap().unwrap().version, version);
    }
    let row: Option<UserRow> = rows::find(&*machine.state, &rows::user_key(&bob)).await.unwrap();
    assert_eq!(row, None);
    let again = user("bob@b.example", Event::FirstSeen, "bob again");
    let handles = submit_all(&opened.log, vec![again]).await;
    round(&mut opened.sequencer).await;
    for handle in handles {
        assert_eq!(handle.await.unwrap().unwrap().version, version + 1);
    }
}

/// Whether any object anywhere holds these bytes.
async fn anywhere(store: &Store, needle: &[u8]) -> bool {
    for blobs in [&store.public, &store.private] {
        for found in blobs.list_all("", 100_000).await.unwrap() {
            let bytes = blobs.get(&found.key, found.size).await.unwrap().unwrap();
            if bytes.windows(needle.len()).any(|window| window == needle) {
                return true;
            }
        }
    }
    false
}

#[tokio::test]
async fn a_forgotten_mailbox_is_gone_from_index_and_blobs() {
    let store = Store::memory();
    let mut machine = Machine::new();
    let mut opened = small_log(&machine, &store).await;
    let backup = copy(&store).await;
    assert!(anywhere(&store, b"bob 1").await && anywhere(&store, b"bob 2").await);
    forget_and_come_back(&machine, &mut opened, 3).await;
    assert!(!anywhere(&store, b"bob 1").await && !anywhere(&store, b"bob 2").await);
    assert!(anywhere(&store, b"bob again").await && anywhere(&store, b"alice 1").await);
    whole(&store).await;
    drop(opened);

    // A backup brings the payloads back; the markers take them away again.
    for found in backup.private.list_all("payload", 100).await.unwrap() {
        let bytes = backup.private.get(&found.key, found.size).await.unwrap().unwrap();
        store.private.overwrite(&found.key, bytes).await.unwrap();
    }
    assert!(anywhere(&store, b"bob 1").await);
    machine.state = Arc::new(MemoryState::default());
    let opened = machine.open(&store).await;
    assert!(!anywhere(&store, b"bob 1").await && !anywhere(&store, b"bob 2").await);
    let bob = "bob@b.example".parse().unwrap();
    let row: UserRow = rows::find(&*machine.state, &rows::user_key(&bob)).await.unwrap().unwrap();
    assert_eq!((row.version, row.chain.len()), (4, 1));
    drop(opened);

    // Any other payload that is missing is a fault.
    let payloads = store.private.list_all("payload", 100).await.unwrap();
    store.private.delete(&payloads.last().unwrap().key).await.unwrap();
    assert!(check(&store, &keys().log.verifier()).await.is_err());
}

#[tokio::test]
async fn a_mailbox_is_forgotten_out_of_segments_too() {
    let store = Store::memory();
    let mut machine = Machine::new();
    let mut opened = machine.open_with(merging(&machine), &store).await.unwrap();
    let first = vec![
        domain("b.example", &[Event::FirstSeen], "record b"),
        user("bob@b.example", Event::FirstSeen, "bob 1"),
    ];
    let handles = submit_all(&opened.log, first).await;
    round(&mut opened.sequencer).await;
    drop(handles);
    grow(&machine, &mut opened, 0, 30).await;
    assert!(anywhere(&store, b"bob 1").await);
    forget_and_come_back(&machine, &mut opened, 2).await;
    assert!(!anywhere(&store, b"bob 1").await);
    whole(&store).await;
    let expected = all_rows(&*machine.state).await;
    drop(opened);
    machine.state = Arc::new(MemoryState::default());
    drop(machine.open_with(merging(&machine), &store).await.unwrap());
    assert_eq!(all_rows(&*machine.state).await, expected);
}

#[tokio::test]
async fn what_a_lost_race_left_behind_is_swept() {
    let store = Store::memory();
    let (left, right) = (Machine::new(), Machine::new());
    let mut one = left.open_with(merging(&left), &store).await.unwrap();
    let mut two = right.open_with(merging(&right), &store).await.unwrap();
    for turn in 0..30 {
        let address = |who| user(&format!("{who}{turn}@b.example"), Event::FirstSeen, who);
        let handles = submit_all(&one.log, vec![address("left")]).await;
        let more = submit_all(&two.log, vec![address("right")]).await;
        left.clock.advance(1000);
        right.clock.advance(1000);
        let (a, b) = tokio::join!(one.sequencer.round(), two.sequencer.round());
        a.unwrap();
        b.unwrap();
        drop((handles, more));
    }
    let checked = whole(&store).await;
    let commits = keys_under(&store, "commit").await.len();
    let orphans = keys_under(&store, "batch").await.len() - commits;
    assert!(orphans <= 8 + 16, "{orphans} of {} commits", checked.commits);
}

/// Counts what lies in a store after many heartbeats and nothing else.
#[tokio::test]
async fn an_idle_log_stays_small() {
    let store = Store::memory();
    let machine = Machine::new();
    machine.clock.set(Timestamp::from_millis(Clock::system().now().millis() + 10_000_000));
    let options =
        Options { segment: 100, prune_after: Some(Duration::from_secs(0)), ..machine.options() };
    let mut opened = machine.open_with(options, &store).await.unwrap();
    for _ in 0..1000 {
        machine.clock.advance(600_000);
        round(&mut opened.sequencer).await;
    }
    let objects = count(&store).await;
    // Commit, batch and checkpoint of at most 100 + 16 heartbeats; three objects
    // a segment; three full tiles, three bundles; partial ones of the fourth.
    assert!(objects <= 3 * 116 + 3 * 10 + 6 + 2 * 256 + 10, "{objects}");
    assert_eq!(whole(&store).await.entries.len(), 1002);
}

async fn count(store: &Store) -> usize {
    let public = store.public.list_all("", 10_000_000).await.unwrap().len();
    public + store.private.list_all("", 10_000_000).await.unwrap().len()
}

/// The figures in `README.md` and `deploy/README.md`. Takes minutes, so only
/// with `tests/run --all`.
#[tokio::test]
async fn objects_of_an_idle_year() {
    if std::env::var_os("SYNDICATE_SLOW").is_none_or(|slow| slow != "1") {
        println!("not counted: SYNDICATE_SLOW is not 1");
        return;
    }
    let store = Store::memory();
    let machine = Machine::new();
    machine.clock.set(Timestamp::from_millis(Clock::system().now().millis() + 10_000_000));
    let mut opened = machine.open(&store).await;
    let mut most = 0;
    for beat in 0..52_560 {
        machine.clock.advance(600_000);
        round(&mut opened.sequencer).await;
        if beat % 1000 == 0 {
            most = most.max(count(&store).await);
        }
    }
    let all = count(&store).await;
    println!("an idle year: {all} objects, at most {most} on the way");
    assert!(all < 10_000 && most < 32_000, "more than the README says");
}

/// A measurement, not a promise, of a quarter of an hour:
/// `SYNDICATE_MEASURE=1 cargo test --release --test log -- million --nocapture`.
#[tokio::test]
async fn objects_of_a_million_entries() {
    if std::env::var_os("SYNDICATE_MEASURE").is_none_or(|measure| measure != "1") {
        println!("not counted: SYNDICATE_MEASURE is not 1");
        return;
    }
    let store = Store::memory();
    let machine = Machine::new();
    machine.clock.set(Timestamp::from_millis(Clock::system().now().millis() + 10_000_000));
    let mut opened = machine.open(&store).await;
    let mut entries = 0;
    while entries < 1_000_000 {
        let drafts: Vec<Draft> = (entries..entries + 100)
            .map(|i| domain(&format!("d{i}.example"), &[Event::FirstSeen], "one record"))
            .collect();
        entries += 100;
        let _handles = submit_all(&opened.log, drafts).await;
        machine.clock.advance(10_000);
        round(&mut opened.sequencer).await;
    }
    let blobs = store.public.list_all("blob", 10_000_000).await.unwrap().len();
    let all = count(&store).await;
    println!("a million entries, 100 a batch: {all} objects, {blobs} of them blobs");
    assert!(all - blobs < 100_000, "more than the README says");
}

/// Both are spawned by whoever wires the rooms.
#[expect(dead_code, reason = "it is enough that this compiles")]
fn futures_may_move_between_threads(sequencer: Sequencer, options: Options, store: Store) {
    fn sent(_: impl Send) {}
    sent(sequencer.run(tokio_util::sync::CancellationToken::new()));
    let state: Arc<dyn State> = Arc::new(MemoryState::default());
    sent(log::open(options, store, state, keys(), Clock::system()));
}
