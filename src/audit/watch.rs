//! The owner's monitor: remembers of each name and log the newest version, its
//! `chain` value and the signed checkpoint, and holds every later answer to
//! them. A history may only grow.
//!
//! What is remembered is one JSON file for each name and log; it holds the name
//! and the last receipt, so the folder is its owner's alone. It is written after
//! the notices of a visit are handed out: whoever is killed in between hears
//! them twice, never not at all. After an answer that contradicts what is
//! remembered, the memory stays as it was and the alarm comes again until the
//! owner removes the file.
//!
//! Left out: finding out who is right when logs differ; that is `client`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Error, Folder, Notice, Weight, accuse};
use crate::client::follow::{Fork, LogSource, Relation};
use crate::client::{self, Ask, DnsRoot, Judgement, Mirror, Policy, is_same_place};
use crate::dime::{Name, Timestamp};
use crate::proof::Hash;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::entry::{Entry, Events, Kind};
use crate::proof::map::{CHAIN_START, chain_next, entry_leaf_hash};
use crate::proof::receipt::{Fault, MAX_RECEIPT, Receipt, Statement, Word};

/// The `format` of the files that this code writes and knows.
const FORMAT: u64 = 1;
/// Longest file, bytes: a receipt in base64 and little else.
const MAX_FILE: u64 = 2 * MAX_RECEIPT as u64;
/// Where they are in the folder.
const FOLDER: &str = "watch";
/// Names that one monitor watches, at most.
pub const MAX_NAMES: usize = 10_000;

/// What to watch, and whom to believe.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    pub names: BTreeSet<Name>,
    /// URLs of the mirrors to ask, each about every name.
    pub mirrors: Vec<String>,
    pub policy: Policy,
    pub root: DnsRoot,
}

/// The monitor at one mirror: a slow one keeps back nothing that others show.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    mirror: Mirror,
    /// What was remembered when the round began, other mirrors' answers included.
    known: Known,
    /// What was said last of a name, and still holds.
    standing: BTreeMap<Name, Standing>,
}

/// What the mirrors' monitors share.
#[derive(Debug)]
struct Shared {
    options: WatchOptions,
    folder: Folder,
    known: Mutex<Known>,
}

/// By name and origin.
type Known = BTreeMap<(Name, String), Arc<Memory>>;

/// What asking about one name brought.
#[derive(Debug, Default)]
pub struct Visit {
    pub notices: Vec<Notice>,
    /// Something changed, or an alarm stands.
    pub changed: bool,
    /// The mirror gave no answer that could be judged.
    pub unanswered: bool,
    /// To be kept once the notices are out.
    fresh: Option<Memory>,
}

type Standing = (&'static str, String);

/// What is remembered of a name in a log.
#[derive(Clone, Debug, PartialEq)]
struct Memory {
    name: Name,
    origin: String,
    /// The mirror that was asked.
    url: String,
    /// The newest version, 0 for none.
    version: u64,
    /// The chain value after it.
    chain: Hash,
    word: String,
    /// SHA-256 of the genesis entry.
    genesis: Hash,
    receipt: Receipt,
    checkpoint: SignedCheckpoint,
}

/// The same in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u64,
    name: String,
    origin: String,
    url: String,
    version: u64,
    chain: String,
    word: String,
    genesis: String,
    receipt: String,
}

/// A version that is new.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fresh {
    version: u64,
    current: u64,
    events: Events,
    forgotten: bool,
    time: Timestamp,
    held_until: Option<Timestamp>,
}

/// What an answer is to what is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Compared {
    /// The remembered history is the beginning of this one.
    Grown(Vec<Fresh>),
    /// It begins behind what is remembered, so nothing can be said.
    Incomplete,
    /// It is another history.
    Rewritten(&'static str),
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Reads what is remembered in the folder; gives one monitor for each mirror.
    pub fn open(options: WatchOptions, folder: Folder) -> Result<Vec<Watch>, Error> {
        let mirrors = options.mirrors.iter().map(|url| Mirror::new(url));
        let mirrors = mirrors.collect::<Result<Vec<Mirror>, _>>()?;
        let mut known = Known::new();
        for file in folder.list(FOLDER, ".json")? {
            let Some(bytes) = folder.read(&file, MAX_FILE)? else { continue };
            let memory = Memory::read(&bytes)
                .map_err(|why| Error::Memory { path: folder.at(&file), why })?;
            if options.names.contains(&memory.name) {
                known.insert((memory.name.clone(), memory.origin.clone()), Arc::new(memory));
            }
        }
        let shared = Arc::new(Shared { options, folder, known: Mutex::new(known) });
        let watch = |mirror| {
            let (shared, known) = (shared.clone(), Known::new());
            Watch { shared, mirror, known, standing: BTreeMap::new() }
        };
        Ok(mirrors.into_iter().map(watch).collect())
    }

    /// Begins a round: gives the names that are to be visited, one after the other, so
    /// that no mirror sees a burst.
    pub fn begin(&mut self) -> Vec<Name> {
        self.known = self.shared.known().clone();
        self.shared.options.names.iter().cloned().collect()
    }

    /// Remembers what a visit brought. Call it when its notices are out.
    pub fn keep(&self, visit: Visit) -> Result<(), Error> {
        let Some(memory) = visit.fresh else { return Ok(()) };
        let at = (memory.name.clone(), memory.origin.clone());
        let mut known = self.shared.known();
        let size = memory.checkpoint.checkpoint().size;
        // Another mirror of the log may have shown more meanwhile.
        if known.get(&at).is_some_and(|known| known.checkpoint.checkpoint().size > size) {
            return Ok(());
        }
        let file = format!("{FOLDER}/{}.json", id(&memory.name, &memory.origin));
        self.shared.folder.write(&file, &memory.write())?;
        known.insert(at, Arc::new(memory));
        Ok(())
    }

    /// Asks about one name.
    pub async fn visit(&mut self, name: &Name, now: Timestamp) -> Result<Visit, Error> {
        let mut visit = Visit::default();
        self.look(name, now, &mut visit).await?;
        Ok(visit)
    }

    async fn look(&mut self, name: &Name, now: Timestamp, visit: &mut Visit) -> Result<(), Error> {
        let mirror = self.mirror.clone();
        let url = mirror.url().to_owned();
        let notice = |weight, kind, log: &str, message: String| {
            Notice::new(now, weight, kind, log, message).about(name).with("via", url.clone())
        };
        let known = self.known_at(name, &url);
        let receipt = match ask(&mirror, name, known.map_or(0, |known| known.version)).await {
            Ok(receipt) => receipt,
            Err(error) => {
                let message = format!("No answer, which says nothing about the name: {error}.");
                let condition = notice(Weight::Condition, "UNREACHABLE", &url, message);
                self.stand(name, condition, visit);
                return Ok(());
            }
        };
        let judgement = client::judge(
            &receipt,
            Some(&self.shared.options.policy),
            &self.shared.options.root,
            now,
        );
        let said = match &judgement {
            Judgement::Verified(said, _) => said,
            Judgement::Old(said, backing) => {
                let message = format!(
                    "The answer was the latest as of {}, longer ago than the policy allows.",
                    backing.as_of
                );
                let condition = notice(Weight::Condition, "STALE", &said.origin, message);
                self.stand(name, condition, visit);
                return Ok(());
            }
            // Not with a policy; if it were, nothing was judged.
            Judgement::SignerUnknown(_) => {
                visit.unanswered = true;
                return Ok(());
            }
            Judgement::Refused(fault) => {
                let weight = match fault {
                    Fault::Quorum(_) | Fault::Stale { .. } | Fault::Future => Weight::Condition,
                    _ => Weight::Alarm,
                };
                let message = format!(
                    "The answer does not hold: {fault} [{}]. The mirror is at fault, or \
                     somebody on the way, or the policy does not know its log.",
                    fault.rule()
                );
                let mut refused =
                    notice(weight, "REFUSED", &url, message).with("rule", fault.rule());
                if weight == Weight::Alarm && !self.stands(name, &refused) {
                    refused.evidence = Some(self.save(now, "refused", name, &receipt)?);
                }
                self.stand(name, refused, visit);
                return Ok(());
            }
        };
        let expected = self.expected_at(&url);
        if !expected.is_empty() && !expected.contains(said.origin.as_str()) {
            let expected: Vec<&str> = expected.into_iter().collect();
            let message = format!(
                "The mirror answered out of the log {}, where {} is expected: what that one \
                 says of the name was not seen.",
                said.origin,
                expected.join(" or ")
            );
            let condition = notice(Weight::Condition, "OTHER_LOG", &url, message);
            self.stand(name, condition, visit);
            return Ok(());
        }
        let Ok(checkpoint) = SignedCheckpoint::parse(&receipt.checkpoint) else {
            visit.unanswered = true;
            return Ok(());
        };
        let fresh = Memory::of(&url, &receipt, checkpoint, said, &self.known);
        let Some(old) = self.known.get(&(name.clone(), said.origin.clone())).cloned() else {
            let message = match said.latest {
                0 => "Watched from now on; the log holds nothing of it.".to_owned(),
                _ => format!("Watched from now on: version {}, {}.", said.latest, said.word),
            };
            let news = notice(Weight::News, "WATCHED", &said.origin, message);
            visit.notices.push(facts(news, said));
            visit.fresh = Some(fresh);
            return Ok(());
        };

        // Another history of the whole log, or an older state of it?
        let sizes = (old.checkpoint.checkpoint().size, fresh.checkpoint.checkpoint().size);
        match self.relate(&url, &old, &fresh).await {
            Ok(Relation::Fork(fork)) => {
                let message = "The log signed two histories that contradict each other. Every \
                               answer of it is worthless from now on.";
                let mut alarm = notice(Weight::Alarm, "FORK", &said.origin, message.to_owned());
                if !self.stands(name, &alarm) {
                    alarm.evidence = self.save_fork(now, &said.origin, &fork)?;
                }
                self.stand(name, alarm, visit);
                return Ok(());
            }
            // A mirror that stands still has no tiles of what came later.
            Ok(Relation::Older) | Err(_) if sizes.1 < sizes.0 => {
                let message = format!(
                    "The mirror answered from an older state of its log: {} entries, {} were \
                     seen before.",
                    sizes.1, sizes.0
                );
                let condition = notice(Weight::Condition, "OLDER", &said.origin, message);
                self.stand(name, condition, visit);
                return Ok(());
            }
            Ok(_) => {}
            Err(error) => {
                let message = format!("Whether the log only grew could not be checked: {error}.");
                let condition = notice(Weight::Condition, "UNPROVED", &said.origin, message);
                self.stand(name, condition, visit);
                return Ok(());
            }
        }
        match compare(&old, &fresh) {
            Compared::Rewritten(what) => {
                let message = format!(
                    "The history was rewritten: {what}. Both receipts carry the log's own \
                     signature."
                );
                let mut alarm = notice(Weight::Alarm, "REWRITTEN", &said.origin, message);
                if !self.stands(name, &alarm) {
                    let before = self.save(now, "rewritten-before", name, &old.receipt)?;
                    alarm = alarm.with("before", before.display().to_string());
                    alarm.evidence = Some(self.save(now, "rewritten-after", name, &receipt)?);
                }
                self.stand(name, alarm, visit);
                return Ok(());
            }
            Compared::Incomplete => {
                let message = "The mirror left out versions that it was asked for.".to_owned();
                let condition = notice(Weight::Condition, "INCOMPLETE", &said.origin, message);
                self.stand(name, condition, visit);
                return Ok(());
            }
            Compared::Grown(versions) => {
                if let Some((kind, _)) = self.standing.remove(name) {
                    let message = format!("Answers again as it should ({kind} is over).");
                    visit.notices.push(notice(Weight::News, "RECOVERED", &said.origin, message));
                }
                let told = versions.is_empty();
                for version in versions {
                    let news = notice(version.weight(), "VERSION", &said.origin, version.text());
                    visit.notices.push(version.facts(facts(news, said)));
                    visit.changed = true;
                }
                if told && old.word != fresh.word {
                    let held = said.word == Word::Held;
                    let weight = if held { Weight::Alarm } else { Weight::News };
                    let message = format!("No new version, but {} is now {}.", old.word, said.word);
                    visit.changed |= held;
                    let status = notice(weight, "STATUS", &said.origin, message);
                    visit.notices.push(facts(status, said));
                }
                visit.fresh = Some(fresh);
            }
        }
        Ok(())
    }

    /// What is remembered of a name at this mirror, or at the policy's one log.
    fn known_at(&self, name: &Name, url: &str) -> Option<&Memory> {
        let mut of_name =
            self.known.range((name.clone(), String::new())..).take_while(|((n, _), _)| n == name);
        let there = of_name.clone().find(|(_, memory)| memory.url == url);
        let only = (self.shared.options.policy.logs().len() == 1).then(|| of_name.next()).flatten();
        there.or(only).map(|(_, memory)| &**memory)
    }

    /// Origins of the logs that are looked for at a mirror, by the policy, else by what
    /// is remembered: believed in another log's place, it could hide what it does in its
    /// own. None: nobody has said.
    fn expected_at(&self, url: &str) -> BTreeSet<&str> {
        let logs = self.shared.options.policy.logs().iter();
        let here = logs.filter(|log| log.url.as_ref().is_some_and(|at| is_same_place(at, url)));
        let named: BTreeSet<&str> = here.map(|log| log.key.name()).collect();
        if !named.is_empty() {
            return named;
        }
        let known = self.known.values().filter(|memory| memory.url == url);
        known.map(|memory| memory.origin.as_str()).collect()
    }

    async fn relate(
        &self,
        url: &str,
        old: &Memory,
        fresh: &Memory,
    ) -> Result<Relation, client::follow::Error> {
        let (held, new) = (old.checkpoint.checkpoint(), fresh.checkpoint.checkpoint());
        if (held.size, held.root) == (new.size, new.root) {
            return Ok(Relation::Same);
        }
        // The policy has verified its signature, so it has its key.
        let Some(log) = self.shared.options.policy.log(&fresh.origin) else {
            return Ok(Relation::Same);
        };
        LogSource::new(url, log.key.clone())?.relate(&old.checkpoint, &fresh.checkpoint).await
    }

    fn stands(&self, name: &Name, notice: &Notice) -> bool {
        let standing = self.standing.get(name);
        standing.is_some_and(|(kind, rule)| *kind == notice.kind && *rule == rule_of(notice))
    }

    /// Says it, unless it was said last and still holds.
    fn stand(&mut self, name: &Name, notice: Notice, visit: &mut Visit) {
        match notice.weight {
            Weight::Alarm => visit.changed = true,
            _ => visit.unanswered = true,
        }
        if !self.stands(name, &notice) {
            self.standing.insert(name.clone(), (notice.kind, rule_of(&notice)));
            visit.notices.push(notice);
        }
    }

    /// A receipt that `syndicate verify` reads.
    fn save(
        &self,
        now: Timestamp,
        what: &str,
        name: &Name,
        receipt: &Receipt,
    ) -> Result<PathBuf, Error> {
        let part = id(name, "");
        let file = format!("evidence/{}-{}-{what}.json", now.millis(), &part[..8]);
        self.shared.folder.write(&file, format!("{}\n", receipt.to_json()).as_bytes())
    }

    fn save_fork(
        &self,
        now: Timestamp,
        origin: &str,
        fork: &Fork,
    ) -> Result<Option<PathBuf>, Error> {
        let key = self.shared.options.policy.log(origin).map(|log| &log.key);
        let Some(file) = key.and_then(|key| accuse::fork(key, now, fork)) else { return Ok(None) };
        self.shared.folder.write(&format!("evidence/{}-fork.json", now.millis()), &file).map(Some)
    }
}

/// The history from the remembered version on; the latest alone of a name with
/// more versions than one receipt holds, when nothing is remembered.
async fn ask(mirror: &Mirror, name: &Name, version: u64) -> Result<Receipt, client::Error> {
    let from = version.saturating_add(1);
    match mirror.ask(name, Ask::History { from: if version == 0 { 0 } else { from } }).await {
        Err(client::Error::Status { code, .. }) if code == "too-long" && version == 0 => {
            mirror.ask(name, Ask::Lookup).await
        }
        other => other,
    }
}

fn rule_of(notice: &Notice) -> String {
    notice.facts.get("rule").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn facts(notice: Notice, said: &Statement) -> Notice {
    let notes: Vec<String> = said.notes.iter().map(ToString::to_string).collect();
    notice
        .with("verdict", said.word.to_string())
        .with("latest", said.latest)
        .with("in_force", said.current)
        .with("size", said.size)
        .with("notes", notes)
}

/// Names no one: the files' names.
fn id(name: &Name, origin: &str) -> String {
    let hash = Sha256::new().chain_update(origin).chain_update([0]).chain_update(name.as_str());
    hex::encode(&hash.finalize()[..16])
}

/// Holds an answer to what is remembered. Both have verified, and the log grew
/// from the one to the other.
fn compare(old: &Memory, fresh: &Memory) -> Compared {
    if old.genesis != fresh.genesis {
        return Compared::Rewritten("the log's first entry is another one");
    }
    let subject = &fresh.receipt.subject;
    if fresh.version < old.version {
        return Compared::Rewritten("versions that were there are gone");
    }
    let mut chain = subject.chain;
    let mut versions = subject.items.iter().filter_map(|item| Some((outline(&item.entry)?, item)));
    let first = versions.clone().next().map_or(1, |(version, _)| version.version);
    if first > old.version.saturating_add(1) {
        return Compared::Incomplete;
    }
    let mut grown = Vec::new();
    let mut met = first == old.version.saturating_add(1);
    if met && chain != old.chain {
        return Compared::Rewritten("its chain value is another one");
    }
    for (version, item) in versions.by_ref() {
        chain = chain_next(&chain, &entry_leaf_hash(&item.entry));
        if version.version == old.version {
            met = true;
            if chain != old.chain {
                return Compared::Rewritten("its chain value is another one");
            }
        } else if version.version > old.version {
            grown.push(version);
        }
    }
    match met || (old.version == 0 && fresh.version == 0) {
        true => Compared::Grown(grown),
        false => Compared::Incomplete,
    }
}

fn outline(entry: &[u8]) -> Option<Fresh> {
    let entry = Entry::decode(entry).ok()?;
    let time = entry.time;
    let (version, current, events, held_until, forgotten) = match entry.kind {
        Kind::Domain(seen) => (seen.version, seen.current, seen.events, seen.held_until, false),
        Kind::User(seen) => (seen.version, seen.current, seen.events, seen.held_until, false),
        Kind::Forgotten(gone) => (gone.version, 0, Events::EMPTY, None, true),
        Kind::Genesis(_) | Kind::Root(_) | Kind::Closing(_) | Kind::Carried(_) => return None,
    };
    Some(Fresh { version, current, events, forgotten, time, held_until })
}

impl Fresh {
    /// FORGOTTEN is an alarm to its owner (threat 9): whoever slipped in a key
    /// could have erased its traces.
    fn weight(&self) -> Weight {
        match self.forgotten || !self.events.alarms().is_empty() {
            true => Weight::Alarm,
            false => Weight::Change,
        }
    }

    fn words(&self) -> Vec<&'static str> {
        match self.forgotten {
            true => vec!["FORGOTTEN"],
            false => self.events.iter().map(|event| event.name()).collect(),
        }
    }

    fn text(&self) -> String {
        let events = self.words().join(", ");
        let held = match self.held_until {
            Some(until) => format!("; held until {until}"),
            None => String::new(),
        };
        let force = match self.current {
            0 => "nothing is in force".to_owned(),
            current if current == self.version => "it is in force".to_owned(),
            current => format!("version {current} stays in force"),
        };
        let time = self.time;
        format!("version {}: {events}, logged at {time}; {force}{held}.", self.version)
    }

    fn facts(&self, notice: Notice) -> Notice {
        let notice = notice
            .with("version", self.version)
            .with("current", self.current)
            .with("events", self.words())
            .with("time", self.time.to_string());
        match self.held_until {
            Some(until) => notice.with("held_until", until.to_string()),
            None => notice,
        }
    }
}

impl Memory {
    /// Of an answer that has verified. The genesis entry is in it, or remembered.
    fn of(
        url: &str,
        receipt: &Receipt,
        checkpoint: SignedCheckpoint,
        said: &Statement,
        known: &Known,
    ) -> Memory {
        let old = known.get(&(receipt.name.clone(), said.origin.clone()));
        let genesis = match &receipt.genesis {
            Some(genesis) => Sha256::digest(&genesis.entry).into(),
            None => old.map_or([0; 32], |old| old.genesis),
        };
        let items = &receipt.subject.items;
        let chain = items.iter().fold(receipt.subject.chain, |chain, item| {
            chain_next(&chain, &entry_leaf_hash(&item.entry))
        });
        Memory {
            name: receipt.name.clone(),
            origin: said.origin.clone(),
            url: url.to_owned(),
            version: said.latest,
            chain: if items.is_empty() { CHAIN_START } else { chain },
            word: said.word.to_string(),
            genesis,
            receipt: receipt.clone(),
            checkpoint,
        }
    }

    fn write(&self) -> Vec<u8> {
        let file = File {
            format: FORMAT,
            name: self.name.as_str().to_owned(),
            origin: self.origin.clone(),
            url: self.url.clone(),
            version: self.version,
            chain: hex::encode(self.chain),
            word: self.word.clone(),
            genesis: hex::encode(self.genesis),
            receipt: BASE64.encode(self.receipt.encode()),
        };
        // Strings and numbers always serialize.
        serde_json::to_vec(&file).unwrap_or_default()
    }

    fn read(bytes: &[u8]) -> Result<Memory, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if file.format != FORMAT {
            return Err(format!("format {} is not known", file.format));
        }
        let hash = |text: &str| {
            let mut hash = [0; 32];
            hex::decode_to_slice(text, &mut hash).map(|()| hash).map_err(|error| error.to_string())
        };
        let receipt = BASE64.decode(&file.receipt).map_err(|error| error.to_string())?;
        let receipt = Receipt::decode(&receipt).map_err(|error| error.to_string())?;
        let checkpoint = SignedCheckpoint::parse(&receipt.checkpoint);
        let name: Name = file.name.parse().map_err(|refused: crate::dime::Rejection| {
            // The message may quote the name; the file is the owner's.
            refused.message
        })?;
        if receipt.name != name {
            return Err("its receipt is about another name".to_owned());
        }
        Ok(Memory {
            name,
            origin: file.origin,
            url: file.url,
            version: file.version,
            chain: hash(&file.chain)?,
            word: file.word,
            genesis: hash(&file.genesis)?,
            receipt,
            checkpoint: checkpoint.map_err(|refused| refused.message)?,
        })
    }
}
