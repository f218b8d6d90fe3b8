//! All that this process says for its operator while a test runs, searched for
//! mailbox names as it is said.
#![allow(dead_code)] // each test binary uses another part

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::EnvFilter;

/// Part of every local part that tests give out; nothing else is called that.
pub const MARK: &str = "quetzalcoatl";
/// The mailboxes of the private world.
const WORLD: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];
/// Offending lines that are kept.
const SHOWN: usize = 10;
/// From this length on letters, digits, `+` and `/` in a row are base64: a key or
/// a signature, in which chance may write `/bob/`. Shorter ones may be paths.
const BASE64: usize = 40;

#[derive(Default)]
struct Said {
    lines: u64,
    leaks: Vec<String>,
}

static SAID: Mutex<Said> = Mutex::new(Said { lines: 0, leaks: Vec::new() });

/// The first line that names a mailbox.
pub fn leak(text: &str) -> Option<&str> {
    let in_base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    text.lines().find(|line| {
        let line = line.to_ascii_lowercase();
        let runs = line.split(|c: char| !in_base64(c)).filter(|run| run.len() < BASE64);
        let mut words = runs.flat_map(|run| run.split(['+', '/']));
        line.contains(MARK) || words.any(|word| WORLD.contains(&word))
    })
}

/// From now on every trace of this process is searched: all there are of this
/// crate, `debug` of others. Our own HTTP client, which asks for mailboxes by
/// name, is none of the mirror's.
pub fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let filter = EnvFilter::new("debug,syndicate=trace,reqwest=off,hyper_util::client=off");
        let lines = tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter);
        lines.with_writer(|| Ear).init();
    });
}

/// Panics if a mailbox was named, or if nothing was said at all.
pub fn no_mailbox_was_named() {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(said.lines > 10, "nothing was heard");
    assert!(said.leaks.is_empty(), "mailbox names were written:\n{}", said.leaks.concat());
}

struct Ear;

impl io::Write for Ear {
    /// One event at a time: the subscriber writes each as a whole.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        said.lines += 1;
        if leak(&text).is_some() && said.leaks.len() < SHOWN {
            said.leaks.push(text.into_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
