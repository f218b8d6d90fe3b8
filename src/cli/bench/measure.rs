//! What is measured of the directory, for `syndicate bench` and `cargo bench`.
//!
//! The work is that of a replayer and a sequencer: entries as bytes, through
//! the same functions. Labels are spread evenly, the tree is *aged* (grown in
//! batches of random labels), and every batch touches other labels, so nothing
//! is in a cache that would not be. Left out: storage, the log's own tree,
//! signatures, unless a figure says so.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use syndicate::dime::{Address, Timestamp};
use syndicate::directory::{self, Directory, Options};
use syndicate::proof::entry::{DirectoryRoot, Entry, Event, Kind, UserObservation};
use syndicate::proof::replay::{Change, Expected, Position, Replayer};
use syndicate::proof::vrf::SecretKey;
use syndicate::proof::{Label, map};
use syndicate::store::Blobs;

/// Changes in one batch.
pub const BATCH: u64 = 10_000;

/// Batches of updates that are measured.
const UPDATE_BATCHES: u64 = 20;

/// New labels that are measured, with their VRF.
const NEW_LABELS: u64 = 30_000;

/// Lookups that are measured.
const LOOKUPS: u64 = 200_000;

/// Lookups with a fresh VRF proof that are measured.
const VRF_LOOKUPS: u64 = 2_000;

/// Of all entries: a mailbox's entry carries its root's time.
pub const TIME: Timestamp = Timestamp::from_secs(1_800_000_000);

/// How long something took, by the clock and on the processors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    pub wall: Duration,
    pub cpu: Duration,
}

impl Took {
    /// Runs `work`, with the CPU time of all threads of this process.
    pub fn process<T>(work: impl FnOnce() -> T) -> (T, Took) {
        Took::by(process_cpu, work)
    }

    /// Runs `work`, with the CPU time of this thread.
    pub fn thread<T>(work: impl FnOnce() -> T) -> (T, Took) {
        Took::by(thread_cpu, work)
    }

    fn by<T>(cpu: fn() -> Duration, work: impl FnOnce() -> T) -> (T, Took) {
        let (before, start) = (cpu(), Instant::now());
        let result = work();
        let wall = start.elapsed();
        (result, Took { wall, cpu: cpu().saturating_sub(before) })
    }

    /// How many a second, by the clock.
    pub fn rate(&self, count: u64) -> f64 {
        count as f64 / self.wall.as_secs_f64()
    }

    /// Microseconds of CPU each.
    pub fn cpu_us(&self, count: u64) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count as f64
    }
}

/// CPU time of the process so far; steps of 10 ms.
pub fn process_cpu() -> Duration {
    cpu_of("self")
}

/// The same of any process, by its number.
pub fn cpu_of(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Fields 14 and 15; the second field may hold spaces, and ends with `)`.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(10 * ticks)
}

/// CPU time of the thread so far; steps of up to 4 ms.
fn thread_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(
        stat.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0),
    )
}

/// Resident memory of the process, bytes.
pub fn resident() -> u64 {
    status("VmRSS:")
}

/// A line of the process's status, which is in KiB: bytes.
pub fn status(field: &str) -> u64 {
    status_of("self", field)
}

/// The same of any process, by its number.
pub fn status_of(process: &str, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    1024 * line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0)
}

/// The `n`-th label.
pub fn label(n: u64) -> Label {
    Label(map::entry_leaf_hash(&n.to_be_bytes()))
}

/// A mailbox's entry, as long as a real one.
fn entry(label: Label, version: u64) -> Bytes {
    let event = if version == 1 { Event::FirstSeen } else { Event::Rotated };
    let user = UserObservation {
        label,
        version,
        current: version,
        commitment: map::entry_leaf_hash(&version.to_be_bytes()),
        events: event.into(),
        held_until: None,
        coalesced: None,
    };
    Entry::new(TIME, Kind::User(user)).encode().into()
}

fn root_entry(head: directory::Head, index: u64) -> Bytes {
    let root = DirectoryRoot { root: head.root, labels: head.labels, covered: index };
    Entry::new(TIME, Kind::Root(root)).encode().into()
}

/// Changes of the labels' next versions, as a sequencer makes them.
fn changes(first: u64, entries: &[Bytes]) -> anyhow::Result<Vec<Change>> {
    let mut changes = Vec::with_capacity(entries.len());
    for (index, entry) in (first..).zip(entries) {
        changes.extend(Change::of(index, entry.clone()).context("own entry")?);
    }
    Ok(changes)
}

/// Pseudo-random numbers (splitmix64), the same in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// `count` different numbers below `limit`.
    pub fn distinct(&mut self, count: u64, limit: u64) -> Vec<u64> {
        let mut seen = std::collections::HashSet::new();
        while (seen.len() as u64) < count.min(limit) {
            seen.insert(self.below(limit));
        }
        seen.into_iter().collect()
    }
}

/// A directory of `labels` labels, grown in batches.
pub fn grown(labels: u64, threads: usize) -> anyhow::Result<Directory> {
    let directory = Directory::new(Options { threads, follow: true, ..Options::default() });
    let mut done = 0;
    while done < labels {
        let batch = BATCH.min(labels - done);
        let mut new: Vec<Label> = (done..done + batch).map(label).collect();
        new.sort();
        let entries: Vec<Bytes> = new.into_iter().map(|label| entry(label, 1)).collect();
        directory.apply(&changes(done, &entries)?)?;
        done += batch;
    }
    Ok(directory)
}

/// What an update costs, from entry bytes to a root that is compared.
pub struct Updates {
    pub count: u64,
    pub took: Took,
    pub entry_bytes: usize,
}

/// Replays batches of updates of existing labels, each batch with its root.
/// `writer` is a second directory with the same labels, which makes the roots.
pub fn updates(directory: &Directory, writer: &Directory, labels: u64) -> anyhow::Result<Updates> {
    let mut numbers = Numbers(1);
    let mut batches = Vec::new();
    let mut size = labels;
    let mut entry_bytes = 0;
    for _ in 0..UPDATE_BATCHES {
        let mut chosen: Vec<Label> =
            numbers.distinct(BATCH.min(labels / 2), labels).into_iter().map(label).collect();
        chosen.sort();
        let mut entries = Vec::with_capacity(chosen.len() + 1);
        for label in chosen {
            let tip = writer.tip(&label).context("every label is there")?;
            entries.push(entry(label, tip.version + 1));
        }
        entry_bytes = entries.first().map_or(0, Bytes::len);
        let head = writer.apply(&changes(size, &entries)?)?;
        writer.publish(head.batch)?;
        size += entries.len() as u64;
        entries.push(root_entry(head, size));
        size += 1;
        batches.push(entries);
    }
    let position = Position {
        size: labels,
        time: TIME,
        vrf_key: [0; 32],
        closed: false,
        unknown: None,
        carrying: None,
    };
    let expected = Expected { origin: "bench".into(), log_key: [0; 32] };
    let mut replayer = Replayer::resume(expected, position);
    let mut map = directory;
    let (outcome, took) = Took::process(|| -> anyhow::Result<()> {
        for entry in batches.into_iter().flatten() {
            replayer.push(&mut map, entry)?;
        }
        Ok(())
    });
    outcome?;
    if replayer.finish()?.size != size {
        bail!("the replay did not take every batch");
    }
    Ok(Updates { count: size - labels - UPDATE_BATCHES, took, entry_bytes })
}

/// New mailboxes from their addresses to the directory's root: VRF, entry,
/// batch. Without the VRF proof, the commitment, and storage.
pub fn new_labels(directory: &Directory, threads: usize) -> anyhow::Result<(u64, Took)> {
    let key = SecretKey::from_seed(&[7; 32]);
    let addresses: Vec<Address> = (0..NEW_LABELS)
        .map(|n| format!("user{n}@example.com").parse().context("own address"))
        .collect::<Result<_, _>>()?;
    let mut size = directory.committed().labels;
    let (outcome, took) = Took::process(|| -> anyhow::Result<()> {
        for addresses in addresses.chunks(BATCH as usize) {
            let share = addresses.len().div_ceil(threads);
            let key = &key;
            let mut labels: Vec<Label> = std::thread::scope(|scope| {
                let shares: Vec<_> = addresses
                    .chunks(share)
                    .map(|share| {
                        scope.spawn(move || {
                            share
                                .iter()
                                .map(|address| Label::of_address(key, address))
                                .collect::<Vec<_>>()
                        })
                    })
                    .collect();
                shares.into_iter().flat_map(|share| share.join().unwrap_or_default()).collect()
            });
            labels.sort();
            let entries: Vec<Bytes> = labels.into_iter().map(|label| entry(label, 1)).collect();
            let head = directory.apply(&changes(size, &entries)?)?;
            size += entries.len() as u64;
            directory.publish(head.batch)?;
        }
        Ok(())
    });
    outcome?;
    Ok((NEW_LABELS, took))
}

/// Microseconds of CPU for a latest-version proof of a random label.
pub fn lookup_us(directory: &Directory, labels: u64) -> f64 {
    let mut numbers = Numbers(2);
    let wanted: Vec<Label> = (0..LOOKUPS).map(|_| label(numbers.below(labels))).collect();
    let (_, took) = Took::thread(|| {
        for label in &wanted {
            std::hint::black_box(directory.lookup(label));
        }
    });
    took.cpu_us(LOOKUPS)
}

/// The same with a VRF proof made afresh.
pub fn lookup_with_vrf_us(directory: &Directory) -> f64 {
    let key = SecretKey::from_seed(&[7; 32]);
    let wanted: Vec<Vec<u8>> = (0..VRF_LOOKUPS)
        .filter_map(|n| format!("user{n}@example.com").parse::<Address>().ok())
        .map(|address| syndicate::proof::label::alpha(&address))
        .collect();
    let (_, took) = Took::thread(|| {
        for alpha in &wanted {
            let (output, proof) = key.prove(alpha);
            std::hint::black_box((proof, directory.lookup(&Label::from_vrf(&output))));
        }
    });
    took.cpu_us(VRF_LOOKUPS)
}

/// Nanoseconds of CPU for one inner node's hash through the plain hasher:
/// tells how busy the machine was (105 on an idle Zen 4).
pub fn node_hash_ns() -> f64 {
    const ROUNDS: u64 = 500_000;
    let (_, took) = Took::thread(|| {
        let fold =
            (0..ROUNDS).fold([0; 32], |hash, _| map::inner_hash(12, &[0; 32], &hash, &[9; 32]));
        std::hint::black_box(fold);
    });
    1e3 * took.cpu_us(ROUNDS)
}

/// Writes a snapshot into a folder and gives the time that took.
pub async fn snapshot(directory: Arc<Directory>, folder: &Path) -> anyhow::Result<Duration> {
    let blobs = Blobs::folder(folder)?;
    let start = Instant::now();
    directory::write(&directory, &blobs, directory.committed().batch, 1, b"").await?;
    Ok(start.elapsed())
}

/// Reads the snapshot back: the directory, ready to answer.
pub async fn restored(folder: &Path, threads: usize) -> anyhow::Result<(Directory, Duration)> {
    let start = Instant::now();
    let blobs = Blobs::folder(folder)?;
    let options = Options { threads, ..Options::default() };
    let restored =
        directory::restore(&blobs, 1, options).await?.context("the snapshot is there")?;
    Ok((restored.directory, start.elapsed()))
}

/// The child's side of [`restart`]: serves one lookup, and says so.
pub async fn restored_child(folder: &Path, threads: usize) -> anyhow::Result<()> {
    let (directory, _) = restored(folder, threads).await?;
    let lookup = directory.lookup(&label(0));
    println!(
        "{}",
        serde_json::json!({
            "found": lookup.tip.is_some(),
            "resident": resident(),
            "bytes": directory.bytes(),
        })
    );
    Ok(())
}

/// A process of its own that restores the snapshot.
pub struct Restart {
    /// From starting the process to the first proof.
    pub wall: Duration,
    /// Memory of the whole process, bytes.
    pub resident: u64,
    /// The directory's part of it.
    pub bytes: u64,
}

/// Starts this program again with `arguments`, which lead to [`restored_child`].
pub fn restart(arguments: &[&std::ffi::OsStr]) -> anyhow::Result<Restart> {
    let start = Instant::now();
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let wall = start.elapsed();
    let said: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("the restarted process did not answer")?;
    if said["found"] != true {
        bail!("the restarted process does not know the first label");
    }
    let number = |name: &str| said[name].as_u64().unwrap_or(0);
    Ok(Restart { wall, resident: number("resident"), bytes: number("bytes") })
}
