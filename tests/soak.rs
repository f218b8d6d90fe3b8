//! A long run: a mirror on a folder, in a world that goes on changing while DNS,
//! DX hosts and the disk fail at random and the mirror is stopped and killed. In
//! the end its log replays from the public bundles, and has all that happened,
//! once.
//!
//! Seeded (`SYNDICATE_SEED`, printed at the start). It lasts a few seconds, a
//! minute with `SYNDICATE_SLOW=1`, or `SYNDICATE_SOAK_SECS`: 1800 is the half
//! hour that a release wants.

#[path = "support/chance.rs"]
mod chance;
#[path = "support/client.rs"]
mod client;
#[path = "support/rogue.rs"]
mod rogue;
#[path = "support/wired.rs"]
mod wired;
#[path = "support/words.rs"]
mod words;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chance::Chance;
use client::Client;
use rogue::{Answer as Reply, Conduct, Rogue};
use syndicate::clock::Clock;
use syndicate::crawl::quota::Limits;
use syndicate::crawl::{self, Pace, Placed, Report};
use syndicate::daemon::{Filed, FromCrawl};
use syndicate::demo::dns::Fault as DnsFault;
use syndicate::demo::world::{self, World};
use syndicate::dime::{Domain, Name, Timestamp};
use syndicate::dmtp::{self, hosts};
use syndicate::log::check::check;
use syndicate::proof::Label;
use syndicate::proof::entry::{Entry, Event, Events, Kind};
use syndicate::resolver::{self, HickoryResolver};
use syndicate::store::sled::Sled;
use syndicate::store::testing::{Answer, Fault, Faults, Operation};
use syndicate::store::{self, State, Store};
use tempfile::TempDir;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use wired::{Parts, Wired};

/// Plain domains, whose POKs change too.
const FURTHER: usize = 6;
/// Longest wait for all to be well again: machines that test are busy ones.
const PATIENCE: Duration = Duration::from_secs(180);
/// For a reply of a host: those here that are silent stay it.
const DEADLINE: Duration = Duration::from_millis(1500);
/// The same when all is well: whoever waits, waits for a busy machine.
const CALM: Duration = Duration::from_secs(20);

fn length() -> Duration {
    let asked = std::env::var("SYNDICATE_SOAK_SECS").ok();
    let asked = asked.map(|seconds| seconds.parse().expect("SYNDICATE_SOAK_SECS"));
    Duration::from_secs(asked.unwrap_or(if chance::slow() { 60 } else { 5 }))
}

/// What happened to one name, and whether the mirror has had the time to see it.
struct Story {
    /// Events of the entries that there must be.
    events: Vec<String>,
    changed_at: Timestamp,
    seen: bool,
}

/// The world, with all that ever happened in it, and the operator's disk.
struct Scene {
    world: World,
    rogues: Vec<Rogue>,
    faults: Faults,
    folder: TempDir,
    clock: Clock,
    stories: BTreeMap<Name, Story>,
    /// Domains in a rollover: their record lists two POKs.
    rolling: Vec<Domain>,
    reports: Arc<Mutex<Vec<Arc<Report>>>>,
    /// Entries that were acknowledged: version and events.
    acknowledged: Vec<(Name, u64, Events)>,
    /// What the last visit of each domain said.
    last: BTreeMap<Domain, Arc<Report>>,
    /// Nothing breaks any more.
    calm: bool,
}

/// A mirror's life, and who listens to it.
struct Life {
    mirror: Wired,
    listener: JoinHandle<()>,
}

impl Scene {
    async fn new() -> Scene {
        let options = world::Options { further: FURTHER, ..world::Options::default() };
        let world = World::start(options).await.unwrap();
        let clock = Clock::system();
        let mut stories = BTreeMap::new();
        let story = |links: usize| Story {
            events: std::iter::once("FIRST_SEEN")
                .chain(std::iter::repeat_n("ROTATED", links - 1))
                .map(str::to_owned)
                .collect(),
            changed_at: clock.now(),
            seen: false,
        };
        for address in world.addresses() {
            let links = world.served(&address).unwrap().len();
            stories.insert(Name::Address(address), story(links));
        }
        for domain in world.domains() {
            stories.insert(Name::Domain(domain), Story { events: vec![], ..story(1) });
        }
        let mut rogues = Vec::new();
        for number in 0..3 {
            let domain: Domain = format!("rogue{number}.example").parse().unwrap();
            let rogue =
                Rogue::start(&domain, words::MARK, world.dmtp_port(), Conduct::Honest).await;
            world.dns().add_zone(domain.as_str(), true).unwrap();
            world.dns().set_txt(&format!("_dime.{domain}"), &[&rogue.record]).unwrap();
            let host = format!("dx.{domain}");
            world.dns().set_addresses(&host, &[IpAddr::V4(rogue.ip)]).unwrap();
            stories.insert(Name::Address(rogue.address.clone()), story(3));
            rogues.push(rogue);
        }
        Scene {
            world,
            rogues,
            faults: Faults::new(),
            folder: tempfile::tempdir().unwrap(),
            clock,
            stories,
            rolling: vec![],
            reports: Arc::default(),
            acknowledged: vec![],
            last: BTreeMap::new(),
            calm: false,
        }
    }

    fn deadline(&self) -> Duration {
        if self.calm { CALM } else { DEADLINE }
    }

    fn store(&self) -> Store {
        Store::folder(&self.folder.path().join("blobs")).unwrap()
    }

    /// Starts the mirror on what the last one left, whatever the disk does: what
    /// does not start under faults starts without.
    async fn start(&self) -> Life {
        let mut tries = 0;
        loop {
            let state: Arc<dyn State> = Arc::new(self.state().await);
            let store = self.faults.wrap(&self.store());
            let asking = resolver::Options {
                timeout: self.deadline() / 5,
                attempts: 1,
                deadline: self.deadline(),
                ..self.world.resolver_options()
            };
            let filed = Arc::new(Filed::new(store.private.clone(), self.clock.clone()));
            let origin = wired::verifier().name().to_owned();
            let incidents =
                Arc::new(FromCrawl::new(filed, state.clone(), store.public.clone(), origin));
            let parts = Parts {
                incidents,
                store,
                state,
                guard: self.folder.path().join("guard"),
                clock: self.clock.clone(),
                resolver: Arc::new(HickoryResolver::new(asking).unwrap()),
                crawl: self.options(),
                limits: Limits {
                    entries: u32::MAX,
                    new_labels: u32::MAX,
                    mailboxes: u64::MAX,
                    bytes: u64::MAX,
                },
            };
            let mirror = match Wired::start(parts).await {
                Ok(mirror) => mirror,
                // A fault that struck at the start is over.
                Err(why) => {
                    assert!(self.faults.clear() || tries == 0, "it does not start: {why:?}");
                    tries += 1;
                    continue;
                }
            };
            let (mut reports, kept) = (mirror.crawl.reports(), self.reports.clone());
            let listener = tokio::spawn(async move {
                loop {
                    match reports.recv().await {
                        Ok(report) => {
                            kept.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                        }
                        // What was not heard is seen again.
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    }
                }
            });
            for name in self.stories.keys() {
                // It may have ended already.
                let _ = mirror.crawl.watch(name.clone(), "soak").await;
            }
            return Life { mirror, listener };
        }
    }

    /// The index, as soon as the last life has let go of it.
    async fn state(&self) -> Sled {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Sled::open(&self.folder.path().join("state")) {
                Ok(state) => return state,
                Err(store::Error::InUse { .. }) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(why) => panic!("the index: {why}"),
            }
        }
    }

    fn options(&self) -> crawl::Options {
        crawl::Options {
            pace: Pace { interval: 400, back_off: 200, back_off_limit: 1000 },
            // A host rests as long as it is broken here, not for minutes.
            hosts: hosts::Limits { rest: 1000, rest_limit: 3000, ..hosts::Limits::default() },
            concurrency: 8,
            resident: 0,
            dx_port: self.world.dmtp_port(),
            dmtp: dmtp::Options {
                handshake: self.deadline(),
                reply: self.deadline(),
                filter: self.world.address_filter(),
                roots: self.world.roots(),
                ..dmtp::Options::default()
            },
            ..crawl::Options::default()
        }
    }

    /// Takes in what visits said: which changes were seen, what is in the log.
    fn take_reports(&mut self) {
        let taken =
            std::mem::take(&mut *self.reports.lock().unwrap_or_else(PoisonError::into_inner));
        for report in taken {
            for entered in &report.entries {
                if let Placed::Version(version) = entered.placed {
                    self.acknowledged.push((entered.name.clone(), version, entered.events));
                }
            }
            let domain = (Name::Domain(report.domain.clone()), report.outcome);
            let users =
                report.users.iter().map(|(user, outcome)| (Name::Address(user.clone()), *outcome));
            for (name, outcome) in users.chain([domain]) {
                let Some(story) = self.stories.get_mut(&name) else { continue };
                story.seen |= outcome.is_good() && report.started > story.changed_at;
            }
            self.last.insert(report.domain.clone(), report);
        }
    }

    /// Why a name was not seen, as far as its domain's last visit tells.
    fn why(&self, name: &Name) -> String {
        let Some(report) = self.last.get(name.domain()) else {
            return format!("{name}: no visit");
        };
        let ago = self.clock.now().since(report.ended);
        let (outcome, later) = (report.outcome, report.later);
        let users = &report.users;
        format!("{name}: {outcome:?} {ago} ms ago, later {later:?}, {users:?}, {:?}", report.detail)
    }

    fn is_seen(&self, name: &Name) -> bool {
        self.stories.get(name).is_some_and(|story| story.seen)
    }

    fn happened(&mut self, name: &Name, event: &str) {
        let now = self.clock.now();
        let story = self.stories.get_mut(name).expect("a story");
        story.events.push(event.to_owned());
        (story.changed_at, story.seen) = (now, false);
    }

    /// Something happens to a name whose last change was served long enough.
    fn change(&mut self, chance: &mut Chance) {
        let all = self.world.addresses();
        let address = chance.pick(&all).clone();
        let (name, domain) = (Name::Address(address.clone()), address.domain().clone());
        let owner = Name::Domain(domain.clone());
        if !self.is_seen(&name) || !self.is_seen(&owner) {
            return;
        }
        let plain = domain.as_str().starts_with('d') && domain.as_str() != "damson.example";
        let world = &self.world;
        match chance.within(0..=9) {
            0..=4 => {
                world.rotate(&address).unwrap();
                self.happened(&name, "ROTATED");
            }
            5 => {
                world.swap_key(&address).unwrap();
                self.happened(&name, "RESTARTED");
            }
            6 => {
                world.skip(&address).unwrap();
                self.happened(&name, "GAP");
            }
            7 if plain => {
                world.reissue(&address, &format!("motto {}", chance.next())).unwrap();
                self.happened(&name, "REISSUED");
            }
            8 if plain => {
                world.replace_pok(&domain, true).unwrap();
                // The one before the last goes as a third one comes.
                match self.rolling.contains(&domain) {
                    true => self.happened(&owner, "POK_ADDED, POK_REMOVED"),
                    false => {
                        self.rolling.push(domain);
                        self.happened(&owner, "POK_ADDED");
                    }
                }
                self.happened(&name, "RESIGNED");
            }
            9 if plain && self.rolling.contains(&domain) => {
                world.retire_poks(&domain).unwrap();
                self.rolling.retain(|rolling| *rolling != domain);
                self.happened(&owner, "POK_REMOVED");
            }
            9 if plain => {
                world.replace_pok(&domain, false).unwrap();
                self.happened(&owner, "POK_REPLACED");
                self.happened(&name, "RESIGNED");
            }
            _ => {}
        }
    }

    /// Something breaks.
    async fn break_something(&self, chance: &mut Chance) {
        let domains = self.world.domains();
        let domain = chance.pick(&domains);
        match chance.within(0..=9) {
            0..=3 => {
                let slow = DnsFault::Slow(Duration::from_millis(chance.within(1..=400)));
                let fault = *chance.pick(&[
                    DnsFault::Tampered,
                    DnsFault::Expired,
                    DnsFault::Stripped,
                    DnsFault::WrongKey,
                    DnsFault::Silent,
                    DnsFault::SilentKeys,
                    DnsFault::ServFail,
                    slow,
                ]);
                self.world.set_dns_fault(domain, Some(fault)).unwrap();
            }
            4..=5 => self.world.stop_hosts(domain).await.unwrap(),
            6 => {
                let conducts = [
                    Conduct::Mute,
                    Conduct::HangsUp,
                    Conduct::Greets("554 GO AWAY\r\n"),
                    Conduct::Org(Reply::Cut(60)),
                    Conduct::User(Reply::Cut(70)),
                    Conduct::User(Reply::Breaks("250 OK [AAAA".into())),
                    Conduct::History(Reply::Floods("250-[AAAA]\r\n")),
                    Conduct::History(Reply::Cycle(3)),
                    Conduct::Org(Reply::Floods("A")),
                ];
                chance.pick(&self.rogues).behave(chance.pick(&conducts).clone());
            }
            _ => {
                let operation =
                    *chance.pick(&[Operation::Write, Operation::Write, Operation::Read]);
                let place = *chance.pick(&[
                    "public/",
                    "private/",
                    "private/commit",
                    "private/batch",
                    "private/payload",
                    "public/tile",
                    "public/checkpoints",
                ]);
                let answer = *chance.pick(&Answer::ALL);
                let fault = match chance.within(0..=5) {
                    0..=1 => Fault::Refuse(answer),
                    2..=3 => Fault::Lie(answer),
                    4 => Fault::DieAfter,
                    _ => Fault::DieBefore,
                };
                self.faults.on(operation, place, chance.within(0..=3), fault);
            }
        }
    }

    /// Everything that is broken is whole again.
    async fn heal(&self) {
        self.faults.clear();
        for domain in self.world.domains() {
            self.world.set_dns_fault(&domain, None).unwrap();
            self.world.resume_hosts(&domain).await.unwrap();
        }
        for rogue in &self.rogues {
            rogue.behave(Conduct::Honest);
        }
    }
}

/// Ends a life, as an operator does or as a power cut does.
async fn end(life: Life, gently: bool) {
    let Life { mirror, listener } = life;
    match gently {
        true => mirror.stop().await,
        false => mirror.crash().await,
    }
    // It ends with the last handle, and has then heard all.
    let _ = listener.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_a_long_run_with_faults() {
    words::listen();
    let mut chance = Chance::new();
    let length = length();
    let mut scene = Scene::new().await;
    let mut client = Client::new(wired::verifier());
    let mut life = scene.start().await;
    let (mut lives, mut breaks, mut ended) = (1, 0, 0);
    let end_at = Instant::now() + length;
    while Instant::now() < end_at {
        match chance.within(0..=99) {
            0..=69 => scene.change(&mut chance),
            70..=84 => {
                scene.break_something(&mut chance).await;
                breaks += 1;
            }
            85..=94 => scene.heal().await,
            95..=97 => {
                end(life, chance.within(0..=1) == 0).await;
                life = scene.start().await;
                lives += 1;
            }
            _ => {}
        }
        sleep(Duration::from_millis(chance.within(2..=30))).await;
        client.look(&life.mirror.http).await;
        scene.take_reports();
        // What is written may be unknown: the process ends, and looks again.
        if life.mirror.has_ended() {
            ended += 1;
            end(life, false).await;
            life = scene.start().await;
            lives += 1;
        }
    }

    // All is well again, and all is seen.
    scene.heal().await;
    end(life, true).await;
    scene.calm = true;
    let life = scene.start().await;
    let deadline = Instant::now() + PATIENCE;
    let mut spoke = Instant::now();
    loop {
        scene.take_reports();
        let unseen: Vec<&Name> =
            scene.stories.iter().filter(|(_, story)| !story.seen).map(|(name, _)| name).collect();
        if unseen.is_empty() {
            break;
        }
        let why = || unseen.iter().map(|name| scene.why(name)).collect::<Vec<_>>().join("\n");
        assert!(Instant::now() < deadline, "never seen again:\n{}", why());
        if spoke.elapsed() > PATIENCE / 9 {
            println!("waiting for:\n{}", why());
            spoke = Instant::now();
        }
        sleep(Duration::from_millis(100)).await;
    }
    let changes: usize = scene.stories.values().map(|story| story.events.len()).sum();
    client.prove_all(&life.mirror.http).await;
    let entries = client.entries(&life.mirror.http).await;
    println!(
        "{length:?}: {changes} changes, {breaks} breaks, {lives} lives, {ended} ended by the disk, \
         {} entries, {} heads seen",
        entries.len(),
        client.heads.len()
    );
    let histories = histories(&entries);
    let vrf = wired::keys().vrf;
    let label = |name: &Name| match name {
        Name::Domain(domain) => Label::of_domain(domain),
        Name::Address(address) => Label::of_address(&vrf, address),
    };
    for (name, version, events) in &scene.acknowledged {
        let at = *version as usize - 1;
        let kept = histories.get(&label(name)).and_then(|history| history.get(at));
        assert_eq!(kept, Some(events), "{name}: version {version} was acknowledged");
    }
    for (name, story) in &scene.stories {
        let history = histories.get(&label(name)).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(told(name, history), story.events, "{name}");
    }
    end(life, true).await;
    let whole = check(&scene.store(), &wired::verifier()).await.unwrap().unwrap();
    assert_eq!(whole.entries[..entries.len()], entries);
    client.hold_to(&whole);
    words::no_mailbox_was_named();
}

/// The events of each label's versions, in order.
fn histories(entries: &[bytes::Bytes]) -> BTreeMap<Label, Vec<Events>> {
    let mut histories: BTreeMap<Label, Vec<Events>> = BTreeMap::new();
    for entry in entries {
        let (label, version, events) = match Entry::decode(entry).unwrap().kind {
            Kind::Domain(seen) => {
                (Label::of_domain(&seen.domain.parse().unwrap()), seen.version, seen.events)
            }
            Kind::User(seen) => (seen.label, seen.version, seen.events),
            _ => continue,
        };
        let history = histories.entry(label).or_default();
        history.push(events);
        assert_eq!(history.len() as u64, version);
    }
    histories
}

/// What a history says in a story's terms: all of a mailbox; of a domain what
/// became of its POKs. That DNS was bogus may be seen or not; that a record or
/// DNSSEC was lost is never true here.
fn told(name: &Name, history: &[Events]) -> Vec<String> {
    if let Name::Address(_) = name {
        return history.iter().map(ToString::to_string).collect();
    }
    let false_alarms = Events::of(&[
        Event::RecordWithdrawn,
        Event::RecordExpired,
        Event::DnssecLost,
        Event::NameConflict,
    ]);
    let keys = [Event::PokAdded, Event::PokRemoved, Event::PokReplaced];
    let mut told = Vec::new();
    for events in history {
        assert!(!events.intersects(false_alarms), "{name}: {events}");
        let mut of_keys = Events::EMPTY;
        keys.into_iter().filter(|key| events.contains(*key)).for_each(|key| of_keys.insert(key));
        if !of_keys.is_empty() {
            told.push(of_keys.to_string());
        }
    }
    told
}
