//! Looking from several places: every visit is made from the main vantage; the
//! others look at what changed, and at everything in turn, and what they are
//! shown is held against what the main one is shown, or if that is nothing, the
//! first that is shown something.
//!
//! A DNS or a DX that shows a key to one place only is the attack that a single
//! mirror cannot see. What lags looks alike, so both sides look again after a
//! while before a difference is believed; then it is an incident with both byte
//! strings. Nothing here is validated and nothing goes to the log: a difference
//! says that somebody was shown something else, not who is right. Left out: a
//! host that one place does not reach, which shows nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use sha2::{Digest as _, Sha256};

use super::frontier::{Job, jitter};
use super::incident::{Incident, IncidentKind};
use super::visit::Visitor;
use super::{Outcome, Report};
use crate::dime::record::{Pok, Record, Selection};
use crate::dime::signet::Signet;
use crate::dime::{Address, Dnssec, Domain, Name, Rejection, Timestamp, suffix};
use crate::dmtp::client::{self, Session};
use crate::dmtp::hosts::Later;
use crate::dmtp::reach::{self, Route, Unreached};
use crate::dmtp::{self, Held, Kept, Proxy};
use crate::resolver::{self, Resolver};

/// Other vantages of one mirror.
pub const VANTAGES: usize = 8;
/// Comparisons that look at one time; each looks from all vantages.
pub(super) const LOOKING: usize = 8;
/// Comparisons under way, those that wait to look again included.
const COMPARISONS: usize = 256;
/// Comparisons that wait for a place. Beyond it there is none until the name changes
/// again or its next turn comes.
const WAITING: usize = 1024;
/// Of these one registered domain, whose names are for nothing, has so many: hosts
/// that drip must not keep those of others from being looked at.
pub(super) const LOOKING_BELOW_ONE: usize = 2;
const COMPARISONS_BELOW_ONE: usize = 16;
const WAITING_BELOW_ONE: usize = 64;
/// Mailboxes of one comparison.
const MAILBOXES: usize = 32;
/// Longest look from one place.
const LOOK: Duration = Duration::from_secs(60);
/// How often a look waits for a host that has its hands full with us, and how
/// long each time at most.
const PATIENCE: u32 = 10;
const PAUSE: Duration = Duration::from_secs(2);

/// A place to look from.
#[derive(Clone)]
pub struct Vantage {
    /// A word for log lines and incidents.
    pub name: String,
    /// DNS as it is seen there.
    pub resolver: Arc<dyn Resolver>,
    /// Through which DX hosts are reached; `None`: from here.
    pub proxy: Option<Proxy>,
}

/// What is to be looked at from the other places: mailboxes of a domain, and it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub domain: Domain,
    pub users: Vec<Address>,
}

impl Task {
    /// Of the mailboxes no more than the first [`MAILBOXES`].
    pub fn new(domain: Domain, users: impl IntoIterator<Item = Address>) -> Task {
        let mut seen = BTreeSet::new();
        let users = users.into_iter().filter(|user| seen.insert(user.clone()));
        Task { domain, users: users.take(MAILBOXES).collect() }
    }
}

/// The comparisons under way, and those that wait for their place: nothing that was
/// called for is left out while there is room to remember it.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    /// With what came up of the same domain since: whoever is under way looked
    /// before that was due.
    running: HashMap<Domain, Option<Task>>,
    /// The first comes first, but for those whose registered domain has its share.
    waiting: VecDeque<Task>,
}

/// What becomes of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now(Task),
    Later,
    /// There is no room to remember it.
    Never,
}

impl Comparisons {
    pub fn add(&mut self, task: Task) -> Turn {
        let merge = |task: Task, before: Task| {
            Task::new(task.domain, task.users.into_iter().chain(before.users))
        };
        if let Some(next) = self.running.get_mut(&task.domain) {
            *next = Some(match next.take() {
                Some(before) => merge(task, before),
                None => task,
            });
            return Turn::Later;
        }
        if let Some(waiting) = self.waiting.iter_mut().find(|other| other.domain == task.domain) {
            *waiting = merge(task, waiting.clone());
            return Turn::Later;
        }
        let registered = suffix::registered(&task.domain);
        if self.has_place(&registered) {
            self.running.insert(task.domain.clone(), None);
            return Turn::Now(task);
        }
        let of_it = |task: &&Task| suffix::registered(&task.domain) == registered;
        if self.waiting.len() >= WAITING
            || self.waiting.iter().filter(of_it).count() >= WAITING_BELOW_ONE
        {
            return Turn::Never;
        }
        self.waiting.push_back(task);
        Turn::Later
    }

    /// One has ended; gives those that take its place.
    pub fn ended(&mut self, domain: &Domain) -> Vec<Task> {
        if let Some(next) = self.running.remove(domain).flatten() {
            self.waiting.push_back(next);
        }
        let mut begin = Vec::new();
        while self.running.len() < COMPARISONS {
            let is_next = |task: &Task| self.has_place(&suffix::registered(&task.domain));
            let Some(task) =
                self.waiting.iter().position(is_next).and_then(|at| self.waiting.remove(at))
            else {
                break;
            };
            self.running.insert(task.domain.clone(), None);
            begin.push(task);
        }
        begin
    }

    fn has_place(&self, registered: &Domain) -> bool {
        let of_it = |domain: &&Domain| suffix::registered(domain) == *registered;
        self.running.len() < COMPARISONS
            && (self.running.len() < COMPARISONS_BELOW_ONE
                || self.running.keys().filter(of_it).count() < COMPARISONS_BELOW_ONE)
    }
}

/// What the visit calls for: what changed or failed validation is looked at now;
/// else, once in `every` milliseconds (0: never), a part of what is known.
pub(super) fn due(job: &Job, report: &Report, every: u64) -> Option<Task> {
    let odd = |outcome: &Outcome| {
        matches!(
            outcome,
            Outcome::DnsBogus
                | Outcome::RecordRefused
                | Outcome::RecordAmbiguous
                | Outcome::OrgSignetInvalid
                | Outcome::SignetInvalid
        )
    };
    let entered = report.entries.iter().filter_map(|entered| match &entered.name {
        Name::Address(address) => Some(address.clone()),
        Name::Domain(_) => None,
    });
    let failed = report.users.iter().filter(|(_, outcome)| odd(outcome));
    let mut users: Vec<Address> = entered.chain(failed.map(|(user, _)| user.clone())).collect();
    let turn = (every > 0 && !job.partial).then(|| turn(&job.domain, report, every)).flatten();
    if report.entries.is_empty() && users.is_empty() && !odd(&report.outcome) && turn.is_none() {
        return None;
    }
    if let Some(turn) = turn {
        // Another part each time.
        let parts = job.users.len().div_ceil(MAILBOXES).max(1);
        let first = usize::try_from(turn % parts as u64).unwrap_or_default() * MAILBOXES;
        let mut all = job.users.clone();
        all.sort();
        users.extend(all.into_iter().skip(first).take(MAILBOXES));
    }
    Some(Task::new(job.domain.clone(), users))
}

/// The number of the domain's turn, if one began since the visit before: no
/// memory of turns is needed, and a restart misses none.
fn turn(domain: &Domain, report: &Report, every: u64) -> Option<u64> {
    let offset = jitter(domain, Timestamp::default(), every - 1);
    let number = |at: Timestamp| at.plus(offset).millis() / every;
    let now = number(report.started);
    (number(report.previous) != now).then_some(now)
}

/// Where one look is made from.
pub(super) struct Outlook {
    pub name: String,
    resolver: Arc<dyn Resolver>,
    dmtp: dmtp::Options,
}

impl Outlook {
    pub fn new(vantage: Vantage, dmtp: &dmtp::Options) -> Outlook {
        // By a ticket a host would know two vantages to be one.
        let (proxy, kept) = (vantage.proxy, Kept::default());
        let dmtp = dmtp::Options { proxy, kept, ..dmtp.clone() };
        Outlook { name: vantage.name, resolver: vantage.resolver, dmtp }
    }
}

/// What one place was shown. What is not in it was not to be had. Of signets that
/// nobody will read it has the SHA-256.
#[derive(Debug, Default)]
struct Sight {
    /// POKs, and the record's text; empty: there is none.
    record: Option<(BTreeSet<Pok>, Bytes)>,
    /// The org signet; empty: the host has none.
    org: Option<Bytes>,
    /// Likewise.
    users: BTreeMap<Address, Bytes>,
    /// For the signets that are whole.
    held: Vec<Held>,
}

/// Something shown to two places in two ways.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    /// Between which of the places, in their order.
    places: (usize, usize),
    name: Name,
    /// Its rule, as incidents and the metric name it.
    rule: &'static str,
    first: Bytes,
    other: Bytes,
}

/// The place that was shown something else, and what: a first look leaves no more
/// in memory, since signets are large and the second is long after.
type Suspicion<'a> = (&'a str, Name, &'static str);

/// The rule of an incident about records; of others the bytes are signets.
pub const POK: &str = "vantage-pok";
const ORG: &str = "vantage-org";
const SIGNET: &str = "vantage-signet";

/// What differs between what the places were shown, each held against the first
/// before it that was shown the same thing: POKs, else signets. The rest of a
/// record may differ by place, as DNS does.
fn differences(domain: &Domain, sights: &[Sight]) -> Vec<Difference> {
    let mut found = Vec::new();
    for (at, other) in sights.iter().enumerate() {
        let before = || sights.iter().take(at).enumerate();
        let mut differs = |name: &Name, rule, (place, first): (usize, &Bytes), other: &Bytes| {
            let (first, other) = (first.clone(), other.clone());
            found.push(Difference { places: (place, at), name: name.clone(), rule, first, other });
        };
        let name = Name::Domain(domain.clone());
        let Some(record) = &other.record else { continue };
        let first = before().find_map(|(place, sight)| Some((place, sight.record.as_ref()?)));
        if let Some((place, first)) = first
            && (first.0 != record.0 || first.1.is_empty() != record.1.is_empty())
        {
            differs(&name, POK, (place, &first.1), &record.1);
            continue;
        }
        // Other signets under other keys are no news.
        let alike = |(_, sight): &(usize, &Sight)| {
            sight.record.as_ref().is_some_and(|first| first.0 == record.0)
        };
        if let Some(org) = &other.org {
            let mut first =
                before().filter(alike).filter_map(|(at, it)| Some((at, it.org.as_ref()?)));
            if let Some(first) = first.next().filter(|(_, first)| !is_same(first, org)) {
                differs(&name, ORG, first, org);
            }
        }
        for (user, signet) in &other.users {
            let mut first =
                before().filter(alike).filter_map(|(at, it)| Some((at, it.users.get(user)?)));
            if let Some(first) = first.next().filter(|(_, first)| !is_same(first, signet)) {
                differs(&Name::Address(user.clone()), SIGNET, first, signet);
            }
        }
    }
    found
}

/// Whether both are one signet, at whichever levels.
fn is_same(first: &Bytes, other: &Bytes) -> bool {
    first == other
        || match (Signet::decode(first), Signet::decode(other)) {
            (Ok(first), Ok(other)) => first.is_cut_of(&other) || other.is_cut_of(&first),
            _ => false,
        }
}

impl Visitor {
    /// Looks from all places and keeps what they were shown differently, twice.
    pub async fn compare(&self, task: &Task) {
        let Some(looking) = self.looking.take(task.domain.as_str()).await else { return };
        let all: Vec<&Outlook> = std::iter::once(&self.main).chain(&self.others).collect();
        let (suspects, suspicions) = self.suspect(task, &all).await;
        drop(looking);
        let outcomes = &self.metrics.comparisons;
        if suspicions.is_empty() {
            return outcomes.with_label_values(&["same"]).inc();
        }
        tokio::time::sleep(self.options.second_look).await;
        let Some(_looking) = self.looking.take(task.domain.as_str()).await else { return };
        let mut believed = false;
        let whole = suspicions.iter().map(|(_, name, _)| name.clone()).collect();
        let (differences, _held) = self.look_around(task, &suspects, &whole).await;
        for difference in differences {
            let (first, other) = difference.places;
            let (Some(first), Some(other)) = (suspects.get(first), suspects.get(other)) else {
                continue;
            };
            let same = (other.name.as_str(), difference.name.clone(), difference.rule);
            if suspicions.contains(&same) {
                believed = true;
                self.differs(first, other, difference).await;
            }
        }
        outcomes.with_label_values(&[if believed { "differs" } else { "settled" }]).inc();
    }

    /// The first look: what is suspicious, and the places that look again, the main
    /// one and those that were shown two things.
    async fn suspect<'a>(
        &self,
        task: &Task,
        all: &[&'a Outlook],
    ) -> (Vec<&'a Outlook>, BTreeSet<Suspicion<'a>>) {
        let (mut places, mut suspicions) = (BTreeSet::from([0]), BTreeSet::new());
        for difference in self.look_around(task, all, &BTreeSet::new()).await.0 {
            let (first, other) = difference.places;
            places.extend([first, other]);
            let named = all.get(other).map(|outlook| outlook.name.as_str());
            suspicions.extend(named.map(|other| (other, difference.name, difference.rule)));
        }
        (places.into_iter().filter_map(|at| all.get(at).copied()).collect(), suspicions)
    }

    /// What these places are shown differently, now, and what that holds of the budget
    /// for replies. Only signets of the names in `whole` are kept as they came.
    async fn look_around(
        &self,
        task: &Task,
        places: &[&Outlook],
        whole: &BTreeSet<Name>,
    ) -> (Vec<Difference>, Vec<Held>) {
        let looks = places.iter().map(|outlook| self.look_from(outlook, task, whole));
        let mut sights = join_all(looks).await;
        let held = sights.iter_mut().flat_map(|sight| std::mem::take(&mut sight.held)).collect();
        (differences(&task.domain, &sights), held)
    }

    async fn look_from(&self, outlook: &Outlook, task: &Task, whole: &BTreeSet<Name>) -> Sight {
        let mut sight = Sight::default();
        // What was seen until then counts.
        let _ = tokio::time::timeout(LOOK, self.see(outlook, task, whole, &mut sight)).await;
        sight
    }

    /// Fills in what is shown there; `None` where it goes no further.
    async fn see(
        &self,
        outlook: &Outlook,
        task: &Task,
        whole: &BTreeSet<Name>,
        sight: &mut Sight,
    ) -> Option<()> {
        let domain = &task.domain;
        let found = resolver::record::find(&*outlook.resolver, domain).await.ok()?;
        let (poks, text) = match &found.selection {
            Selection::None => (BTreeSet::new(), Vec::new()),
            Selection::One(record) => (record.pok_set(), record.text.clone()),
            Selection::Refused { text, .. } => (BTreeSet::new(), text.clone()),
            Selection::Ambiguous(texts) => (BTreeSet::new(), texts.join(&b'\n')),
        };
        sight.record = Some((poks, text.into()));
        let Selection::One(record) = &found.selection else { return None };
        let mut session = self.session(outlook, domain, record, found.dnssec).await?;
        let name = Name::Domain(domain.clone());
        let org = shown(&mut session, &name).await?;
        sight.org = org.map(|org| kept(org, &name, whole, &mut session, &mut sight.held));
        for address in &task.users {
            let name = Name::Address(address.clone());
            if let Some(signet) = shown(&mut session, &name).await? {
                let signet = kept(signet, &name, whole, &mut session, &mut sight.held);
                sight.users.insert(address.clone(), signet);
            }
        }
        session.quit().await;
        Some(())
    }

    async fn session(
        &self,
        outlook: &Outlook,
        domain: &Domain,
        record: &Record,
        dnssec: Dnssec,
    ) -> Option<Session> {
        let (route, clock) = (Route { domain, record, dnssec }, &self.rooms.clock);
        for _ in 0..PATIENCE {
            let mut mismatches = Vec::new();
            let (resolver, ports) = (&*outlook.resolver, self.ports());
            let reached =
                reach::reach(resolver, route, &ports, &outlook.dmtp, clock, &mut mismatches).await;
            self.mismatched(domain, record, mismatches).await;
            match reached {
                Ok((session, _)) => return Some(session),
                Err(Unreached::Later { later: Later::Busy(at) }) => {
                    let pause = Duration::from_millis(at.since(clock.now())).min(PAUSE);
                    tokio::time::sleep(pause).await;
                }
                Err(_) => return None,
            }
        }
        None
    }

    async fn differs(&self, before: &Outlook, outlook: &Outlook, difference: Difference) {
        let Difference { name, rule, first, other, .. } = difference;
        let now = self.rooms.clock.now();
        // Two records that DNSSEC proves both convict whoever signed them.
        let chain = match rule {
            POK => outlook.resolver.evidence(name.domain(), now).await.ok().flatten(),
            _ => None,
        };
        let chain = chain
            .filter(|chain| chain.observed.record.as_deref().unwrap_or_default() == other.as_ref());
        let what = match rule {
            POK => "other keys in the record",
            ORG => "another org signet",
            _ => "another signet",
        };
        let why = format!("{} was shown {what} than {}", outlook.name, before.name);
        let address = match &name {
            Name::Address(address) => Some(address),
            Name::Domain(_) => None,
        };
        let (kind, why) = (IncidentKind::VantageDiffers, Rejection::new(rule, why));
        self.metrics.differences.with_label_values(&[rule]).inc();
        let new = Incident::new(kind, name.domain(), address, why, other, now);
        let chain = chain.map(|chain| chain.chain).unwrap_or_default();
        self.report(Incident { before: first, chain, ..new }).await;
    }
}

/// A signet as shown; empty if the host has none. `None` for the whole if the
/// session is of no more use, within if it was no answer.
async fn shown(session: &mut Session, name: &Name) -> Option<Option<Bytes>> {
    match session.signet(name, None).await {
        Ok(bytes) => Some(Some(bytes.into())),
        Err(client::Error::NotFound) => Some(Some(Bytes::new())),
        Err(error) if error.fault() == client::Fault::Answer => Some(None),
        Err(_) => None,
    }
}

/// A signet as shown if its name is to be kept whole, with what it holds; else enough
/// to tell it from another.
fn kept(
    signet: Bytes,
    name: &Name,
    whole: &BTreeSet<Name>,
    session: &mut Session,
    held: &mut Vec<Held>,
) -> Bytes {
    if whole.contains(name) {
        held.push(session.held());
        return signet;
    }
    match signet.is_empty() {
        true => signet,
        false => Bytes::copy_from_slice(&Sha256::digest(&signet)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dime::key::{Owner, PrivateKey};
    use crate::dime::signet::build::{self, SignTo};
    use crate::dime::signet::{Dialect, Level};

    const DAY: u64 = 86_400_000;

    fn domain() -> Domain {
        "a.example".parse().unwrap()
    }

    fn job(users: usize) -> Job {
        let users = (0..users).map(|n| format!("u{n:03}@a.example").parse().unwrap());
        let (users, lapsed, wanted) = (users.collect(), Vec::new(), Vec::new());
        let (partial, insist) = (false, Default::default());
        Job { domain: domain(), users, lapsed, wanted, failures: 0, partial, insist }
    }

    fn report(previous: u64, now: u64) -> Report {
        let mut report = Report::new(&domain(), Timestamp::from_millis(now));
        report.outcome = Outcome::Confirmed;
        report.previous = Timestamp::from_millis(previous);
        report
    }

    #[test]
    fn everything_has_its_turn_and_is_not_remembered() {
        let (start, hour) = (100 * DAY, DAY / 24);
        let mut seen = BTreeSet::new();
        let mut turns = 0;
        for visit in 1..=24 * 5 {
            let report = report(start + (visit - 1) * hour, start + visit * hour);
            if let Some(task) = due(&job(100), &report, DAY) {
                turns += 1;
                assert!((1..=MAILBOXES).contains(&task.users.len()));
                seen.extend(task.users);
            }
            assert_eq!(due(&job(100), &report, 0), None);
        }
        assert_eq!((turns, seen.len()), (5, 100));
    }

    fn task(domain: &str, user: &str) -> Task {
        Task::new(domain.parse().unwrap(), [user.parse().unwrap()])
    }

    #[test]
    fn one_registered_domain_does_not_keep_others_from_being_compared() {
        let mut comparisons = Comparisons::default();
        let evil = |n: usize| task(&format!("{n}.evil.example"), "u@evil.example");
        let turns: Vec<Turn> = (0..300).map(|n| comparisons.add(evil(n))).collect();
        let count = |turn: fn(&Turn) -> bool| turns.iter().filter(|it| turn(it)).count();
        assert_eq!(count(|turn| matches!(turn, Turn::Now(_))), COMPARISONS_BELOW_ONE);
        assert_eq!(count(|turn| *turn == Turn::Later), WAITING_BELOW_ONE);
        let other = task("a.example", "u@a.example");
        assert_eq!(comparisons.add(other.clone()), Turn::Now(other));
        // What has no place has it later, with what came up since.
        assert_eq!(comparisons.add(task("16.evil.example", "v@evil.example")), Turn::Later);
        assert_eq!(comparisons.ended(&"a.example".parse().unwrap()), []);
        let next = comparisons.ended(&"0.evil.example".parse().unwrap());
        assert_eq!((next.len(), next[0].domain.as_str()), (1, "16.evil.example"));
        assert_eq!(next[0].users.len(), 2);
    }

    #[test]
    fn comparisons_that_have_no_place_have_it_later() {
        let mut comparisons = Comparisons::default();
        let all = |n: usize| task(&format!("d{n}.example"), "u@a.example");
        for n in 0..COMPARISONS {
            assert_eq!(comparisons.add(all(n)), Turn::Now(all(n)));
        }
        // One that goes on has its next one after those that wait.
        for n in [5, COMPARISONS, COMPARISONS + 1] {
            assert_eq!(comparisons.add(all(n)), Turn::Later);
        }
        assert_eq!(comparisons.ended(&all(5).domain), [all(COMPARISONS)]);
        assert_eq!(comparisons.ended(&all(6).domain), [all(COMPARISONS + 1)]);
        assert_eq!(comparisons.ended(&all(7).domain), [all(5)]);
        for n in 0..WAITING {
            assert_eq!(comparisons.add(all(2000 + n)), Turn::Later);
        }
        assert_eq!(comparisons.add(all(9999)), Turn::Never);
    }

    #[test]
    fn what_changed_is_looked_at_now() {
        let mut odd = report(100 * DAY, 100 * DAY + 1);
        let never = 1 << 60;
        assert_eq!(due(&job(1), &odd, never), None);
        let user: Address = "u000@a.example".parse().unwrap();
        odd.users.push((user.clone(), Outcome::SignetInvalid));
        assert_eq!(due(&job(1), &odd, never).unwrap().users, [user]);
        // Before those whose turn it is.
        let turned = Report { previous: Timestamp::default(), ..odd.clone() };
        let last: Address = "u099@a.example".parse().unwrap();
        let turned = Report { users: vec![(last.clone(), Outcome::SignetInvalid)], ..turned };
        let users = due(&job(100), &turned, DAY).unwrap().users;
        assert_eq!((users.len(), &users[0]), (MAILBOXES, &last));
        odd.users.clear();
        odd.outcome = Outcome::DnsBogus;
        assert_eq!(due(&job(1), &odd, never).unwrap().users, []);
    }

    #[test]
    fn what_one_place_was_not_shown_is_no_difference() {
        let user: Address = "u@a.example".parse().unwrap();
        let text = |words: &'static str| Bytes::from_static(words.as_bytes());
        let sight = |pok: u8, org: Option<&'static str>, tip: Option<&'static str>| Sight {
            record: Some((BTreeSet::from([[pok; 32]]), text("record"))),
            org: org.map(text),
            users: tip.map(|tip| (user.clone(), text(tip))).into_iter().collect(),
            held: Vec::new(),
        };
        let rules = |sights: &[Sight]| -> Vec<(usize, usize, &str)> {
            let found = differences(&domain(), sights).into_iter();
            found.map(|Difference { places, rule, .. }| (places.0, places.1, rule)).collect()
        };
        let whole = || sight(1, Some("org"), Some("tip"));
        let none = Sight::default;
        type Case<'a> = (&'a [Sight], &'a [(usize, usize, &'static str)]);
        let table: &[Case<'_>] = &[
            (&[whole(), whole()], &[]),
            (&[whole(), none()], &[]),
            (&[none(), whole()], &[]),
            (&[whole(), sight(1, None, None)], &[]),
            (&[whole(), sight(1, Some("org"), Some("other"))], &[(0, 1, SIGNET)]),
            (&[whole(), sight(1, Some("org"), Some(""))], &[(0, 1, SIGNET)]),
            (&[whole(), sight(1, Some("other"), Some("other"))], &[(0, 1, ORG), (0, 1, SIGNET)]),
            (&[whole(), sight(2, Some("other"), Some("other"))], &[(0, 1, POK)]),
            // What the first is not shown is held against another.
            (&[none(), whole(), whole()], &[]),
            (&[none(), whole(), sight(2, None, None)], &[(1, 2, POK)]),
            (
                &[sight(1, Some("org"), None), whole(), sight(1, Some("org"), Some("other"))],
                &[(1, 2, SIGNET)],
            ),
            (&[whole(), none(), sight(1, None, Some("other"))], &[(0, 2, SIGNET)]),
        ];
        for (sights, expected) in table {
            assert_eq!(rules(sights), *expected, "{sights:?}");
        }

        // One signet at two levels is one.
        let org = |number: u8, level| {
            let key = PrivateKey::from_secrets(Owner::Org, [number; 32], [number; 32]).unwrap();
            let whole = build::org(&key, Dialect::L, &[], &[], SignTo::Id("a.example")).unwrap();
            Bytes::copy_from_slice(build::split(&whole, level).unwrap().bytes())
        };
        let shown = |number, level| Sight { org: Some(org(number, level)), ..sight(1, None, None) };
        let levels = [Level::Crypto, Level::Full, Level::Id];
        for (one, other) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            assert_eq!(rules(&[shown(1, levels[one]), shown(1, levels[other])]), []);
            let others = [shown(1, levels[one]), shown(2, levels[other])];
            assert_eq!(rules(&others), [(0, 1, ORG)]);
        }
    }
}
