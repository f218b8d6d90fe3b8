//! A mirror that is killed, and two that were started on one folder: nothing
//! that anybody was shown is lost, and the log never forks.
//!
//! The mirror is a process; the world it crawls is here. What counts as
//! acknowledged is what a client saw: checkpoints and receipts. Two sequencers
//! on one store that do not share an index are in `log.rs`.

#[path = "support/chance.rs"]
mod chance;
#[path = "support/client.rs"]
mod client;
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chance::Chance;
use client::Client;
use process::{Faces, Mirror, PATIENCE};
use syndicate::config::File;
use syndicate::demo::world::{Options, World};
use syndicate::dime::Address;
use syndicate::log::check::{Checked, check};
use syndicate::store::Store;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Plain domains beside the dozen for every dozen rounds, so that there is
/// something to be killed at.
const FURTHER: usize = 12;
/// Longest time from listening to the kill, milliseconds.
const LONGEST: u64 = 2500;
/// Longest time from the first write of a sequencing round to a kill that is to
/// fall into it, milliseconds.
const ROUND: u64 = 40;

/// The world, and what the operator of a mirror in it has on disk.
struct Scene {
    world: World,
    folder: TempDir,
    file: File,
}

impl Scene {
    async fn new(rounds: usize) -> Scene {
        let further = FURTHER * rounds.div_ceil(12);
        let world = World::start(Options { further, ..Options::default() }).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut file = process::configuration(folder.path(), world.dns(), world.dmtp_port());
        let roots = folder.path().join("ca.pem");
        fs::write(&roots, world.authority_pem()).unwrap();
        file.crawl.roots = Some(roots);
        file.crawl.names = world.addresses().iter().map(ToString::to_string).collect();
        // Few at a time, so that every kill meets visits under way.
        file.crawl.concurrency = 4;
        // A mailbox with a history that changes twice would be over a day's quota.
        file.crawl.entries_per_day = 100_000;
        Scene { world, folder, file }
    }

    fn start(&self) -> Mirror {
        Mirror::start(&process::write(self.folder.path(), &self.file), "info")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Waits until a sequencing round writes its first object, or too long.
    async fn round_begins(&self) {
        let private = self.data().join("private");
        let (before, end) = (files(&private), Instant::now() + Duration::from_secs(4));
        while files(&private) == before && Instant::now() < end {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn state(&self) -> PathBuf {
        self.data().join("state")
    }

    /// Reads the whole log, which no process may be writing to, and checks
    /// every rule. `None` before the first commit.
    async fn whole(&self, client: Option<&Client>) -> Option<Checked> {
        let client = client?;
        let store = Store::folder(&self.data()).unwrap();
        let checked = check(&store, client.key()).await.unwrap();
        if let Some(checked) = &checked {
            client.hold_to(checked);
        }
        checked
    }
}

/// Files below a folder, however deep.
fn files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let counts = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        _ => 1,
    });
    counts.sum()
}

/// What happens to the index between two lives.
#[derive(Clone, Copy, Debug)]
enum Damage {
    None,
    Deleted,
    Garbage,
}

fn damage(state: &Path, how: Damage, chance: &mut Chance) {
    match how {
        Damage::None => {}
        Damage::Deleted if state.exists() => fs::remove_dir_all(state).unwrap(),
        Damage::Garbage if state.exists() => fill(state, chance),
        Damage::Deleted | Damage::Garbage => {}
    }
}

/// Overwrites every file, or a part of it, with random bytes.
fn fill(folder: &Path, chance: &mut Chance) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fill(&path, chance);
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        let from = match bytes.len() {
            0 => 0,
            length => chance.within(0..=length as u64 / 2) as usize,
        };
        bytes.iter_mut().skip(from).for_each(|byte| *byte = chance.next() as u8);
        fs::write(&path, bytes).unwrap();
    }
}

/// What no life of the mirror may say. The engine of the index may panic on
/// garbage; that is caught.
fn blameless(words: &str, how: Damage) {
    let panicked = words.contains("panicked") && !matches!(how, Damage::Garbage);
    assert!(!panicked, "{how:?}:\n{words}");
    for bad in ["nothing is sequenced", "another process visits it"] {
        assert!(!words.contains(bad), "{how:?}: {bad}:\n{words}");
    }
}

/// A client uses the mirror until the time is over: every new checkpoint, and
/// now and then a receipt.
async fn use_until(
    end: Instant,
    client: &mut Client,
    faces: &Faces,
    names: &[Address],
    chance: &mut Chance,
) {
    while Instant::now() < end {
        client.look(&faces.http).await;
        if chance.within(0..=3) == 0 {
            client.look_up(&faces.http, chance.pick(names)).await;
        }
        sleep(Duration::from_millis(chance.within(10..=80))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_it_loses_nothing_that_anybody_saw() {
    let mut chance = Chance::new();
    let rounds = if chance::slow() { 100 } else { 12 };
    let mut scene = Scene::new(rounds).await;
    let names = scene.world.addresses();
    let mut client: Option<Client> = None;
    let (mut last, mut torn): (Option<Checked>, _) = (None, 0);
    for round in 0..rounds {
        let how = [Damage::None, Damage::Deleted, Damage::None, Damage::Garbage][round % 4];
        damage(&scene.state(), how, &mut chance);
        // Something to find out wherever the crawl comes by.
        scene.world.rotate(chance.pick(&names)).unwrap();
        let mut mirror = scene.start();
        // One in four dies while it starts; but first there must be a key.
        if client.is_some() && chance.within(0..=3) == 0 {
            sleep(Duration::from_millis(chance.within(0..=LONGEST / 2))).await;
        } else {
            let faces = mirror.faces().await;
            let client = client.get_or_insert_with(|| Client::new(faces.key.clone()));
            assert_eq!(*client.key(), faces.key, "the same log");
            let end = Instant::now() + Duration::from_millis(chance.within(0..=LONGEST));
            use_until(end, client, &faces, &names, &mut chance).await;
            if chance.within(0..=2) > 0 {
                scene.round_begins().await;
                sleep(Duration::from_millis(chance.within(0..=ROUND))).await;
            }
        }
        let words = mirror.kill();
        blameless(&words, how);
        let whole = scene.whole(client.as_ref()).await;
        if let (Some(whole), Some(last)) = (&whole, &last) {
            assert!(whole.continues(last), "round {round}, {how:?}: the log was rewritten");
        }
        if let (Some(whole), Some(client)) = (&whole, &client) {
            let size = whole.entries.len() as u64;
            let published = whole.checkpoints.last().map_or(0, |(size, _)| *size);
            torn += u64::from(published < size);
            let (heads, receipts) = (client.heads.len(), client.receipts.len());
            println!(
                "round {round}, {how:?}: {size} entries, {published} published; {heads} heads and {receipts} receipts seen"
            );
        }
        last = whole.or(last);
    }
    println!("{torn} kills between a commit and its checkpoint");

    // Left alone, it has everything in the end. Without its index it looks at
    // every domain at once.
    damage(&scene.state(), Damage::Deleted, &mut chance);
    scene.file.crawl.concurrency = 32;
    let mut mirror = scene.start();
    let faces = mirror.faces().await;
    let mut client = client.unwrap();
    client.prove_all(&faces.http).await;
    for address in &names {
        let served = scene.world.served(address).unwrap();
        let newest = served.last().unwrap().full_split();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known = client.look_up(&faces.http, address).await;
            if known.is_some_and(|known| known.signet.is_some_and(|signet| *signet == *newest)) {
                break;
            }
            assert!(Instant::now() < deadline, "{address} is not there:\n{}", mirror.words());
            sleep(Duration::from_millis(500)).await;
        }
    }
    client.prove_all(&faces.http).await;
    assert!(client.heads.len() > 3, "the client saw next to nothing");
    let (code, words) = mirror.stop().await;
    assert_eq!(code, Some(0), "{words}");
    let whole = scene.whole(Some(&client)).await.unwrap();
    assert!(whole.continues(&last.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_mirror_on_the_folder_is_refused() {
    let mut chance = Chance::new();
    let scene = Scene::new(1).await;
    let names = scene.world.addresses();
    let mut first = scene.start();
    let faces = first.faces().await;
    let mut client = Client::new(faces.key.clone());
    for _ in 0..2 {
        let (code, words) = scene.start().ended().await;
        assert_eq!(code, Some(1), "{words}");
        assert!(words.contains("in use by another process"), "{words}");
    }
    // The first one did not notice.
    let end = Instant::now() + Duration::from_secs(3);
    use_until(end, &mut client, &faces, &names, &mut chance).await;
    client.prove_all(&faces.http).await;
    blameless(&first.kill(), Damage::None);
    // The lock went with the process, however it ended.
    let mut second = scene.start();
    let faces = second.faces().await;
    assert_eq!(*client.key(), faces.key);
    client.prove_all(&faces.http).await;
    assert_eq!(second.stop().await.0, Some(0));
    scene.whole(Some(&client)).await.unwrap();
}

/// Threats 4, 5 and 28: two nodes on one store, each with an index and a guard of
/// its own. One is stopped in whatever it does, and wakes up when the other has
/// long gone on. The detector is put-if-absent of the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_process_wakes_up_and_follows() {
    let mut chance = Chance::new();
    let scene = Scene::new(1).await;
    let names = scene.world.addresses();
    let mut one = scene.start();
    let mut client = Client::new(one.faces().await.key);
    assert_eq!(one.stop().await.0, Some(0));
    // The second node shares the truth and the keys, and knows where the log ends.
    let second = tempfile::tempdir().unwrap();
    let data = second.path().join("data");
    fs::create_dir(&data).unwrap();
    for shared in ["private", "public", "keys"] {
        std::os::unix::fs::symlink(scene.data().join(shared), data.join(shared)).unwrap();
    }
    fs::copy(scene.data().join("guard"), data.join("guard")).unwrap();
    let file = File { data: Some(data), ..scene.file.clone() };
    let path = process::write(second.path(), &file);
    let (mut one, mut two) = (scene.start(), Mirror::start(&path, "info"));
    let (first, other) = (one.faces().await, two.faces().await);
    let mut by_other = Client::new(first.key.clone());
    for turn in 0..4 {
        one.signal("STOP");
        let stopped = Instant::now();
        let before = by_other.look(&other.http).await.unwrap();
        let ends = Instant::now() + PATIENCE;
        while by_other.look(&other.http).await.unwrap() <= before {
            assert!(Instant::now() < ends, "the other does not go on:\n{}", two.words());
            scene.world.rotate(chance.pick(&names)).unwrap();
            let soon = Instant::now() + Duration::from_millis(500);
            use_until(soon, &mut by_other, &other, &names, &mut chance).await;
        }
        let gone_on = by_other.look(&other.http).await.unwrap();
        one.signal("CONT");
        let woke = Instant::now();
        let ends = woke + PATIENCE;
        while client.look(&first.http).await.is_none_or(|size| size < gone_on) {
            assert!(Instant::now() < ends, "it does not follow:\n{}", one.words());
            sleep(Duration::from_millis(50)).await;
        }
        println!("{turn}: asleep {:?}, followed after {:?}", woke - stopped, woke.elapsed());
    }
    client.prove_all(&first.http).await;
    by_other.prove_all(&other.http).await;
    for mirror in [one, two] {
        let (code, words) = mirror.stop().await;
        assert_eq!(code, Some(0), "{words}");
    }
    let whole = scene.whole(Some(&client)).await.unwrap();
    by_other.hold_to(&whole);
}
