//! What no log entry says, kept in the private blobs once a day: when each name
//! was last seen, how long its record is valid, and which names are known at
//! all. `State` may be thrown away; with this, names known only by request,
//! validity periods and times of confirmation come back (threat 16).
//!
//! On disk: `seen/<day>/<table>-<part>`, JSON lines of up to 5,000 rows, and
//! `seen/<day>/complete`, written last, with the number of parts.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::rows::{self, FrontierRow, SeenRow, Typed};
use super::state::{Applied, Batch, Range, State};
use super::{Blobs, Error, keys};
use crate::dime::{Address, Name, Timestamp};

/// Rows in one part.
const PART: usize = 5_000;
/// Largest part, bytes.
const MAX_PART: u64 = 16 << 20;
/// Days that are kept, complete ones.
const KEPT: usize = 2;
const COMPLETE: &str = "complete";
const MILLIS_A_DAY: u64 = 86_400_000;

/// One line of a part: exactly one of the two.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<SeenRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frontier: Option<FrontierRow>,
}

/// Number of a day, counted from 1970-01-01.
pub fn day(now: Timestamp) -> u64 {
    now.millis() / MILLIS_A_DAY
}

/// Whether the day's copy is complete.
pub async fn is_saved(private: &Blobs, day: u64) -> Result<bool, Error> {
    Ok(private.head(&keys::seen(day, COMPLETE)).await?.is_some())
}

/// Writes all rows as the copy of a day, and deletes copies older than the last
/// two, and later ones, which are from a clock that was ahead: they would pass for
/// the newest. Gives the number of rows.
pub async fn save(private: &Blobs, state: &dyn State, day: u64) -> Result<usize, Error> {
    let seen = save_table(private, state, day, "seen", |row: SeenRow| Line {
        seen: Some(row),
        frontier: None,
    });
    let (seen, parts) = seen.await?;
    let frontier = save_table(private, state, day, "frontier", |row: FrontierRow| Line {
        seen: None,
        frontier: Some(row),
    });
    let (frontier, more) = frontier.await?;
    delete_parts(private, day, "seen", parts).await?;
    delete_parts(private, day, "frontier", more).await?;
    let parts = Bytes::from((parts + more).to_string());
    private.overwrite(&keys::seen(day, COMPLETE), parts).await?;
    delete_days(private, |other| other > day).await?;
    let complete = days(private).await?;
    if let Some(oldest) = complete.get(KEPT - 1) {
        delete_days(private, |day| day < *oldest).await?;
    }
    Ok(seen + frontier)
}

async fn save_table<R: Typed>(
    private: &Blobs,
    state: &dyn State,
    day: u64,
    table: &str,
    line: impl Fn(R) -> Line,
) -> Result<(usize, usize), Error> {
    let (mut rows, mut parts) = (0, 0);
    let mut range = Range::all();
    loop {
        let page: Vec<R> = rows::scan(state, range.clone(), PART).await?;
        let Some(last) = page.last().map(Typed::key) else { return Ok((rows, parts)) };
        rows += page.len();
        let mut text = Vec::new();
        for row in page {
            text.extend(serde_json::to_vec(&line(row)).unwrap_or_default());
            text.push(b'\n');
        }
        private.overwrite(&keys::seen(day, &format!("{table}-{parts:06}")), text.into()).await?;
        parts += 1;
        range = range.after(&last);
    }
}

/// Deletes what a longer copy of the same day has left, from part `from` on.
async fn delete_parts(private: &Blobs, day: u64, table: &str, from: usize) -> Result<(), Error> {
    for name in private.names(&format!("seen/{}", keys::number(day))).await? {
        let part = name.strip_prefix(table).and_then(|part| part.strip_prefix('-'));
        if part.and_then(|part| part.parse::<usize>().ok()).is_some_and(|part| part >= from) {
            private.delete(&keys::seen(day, &name)).await?;
        }
    }
    Ok(())
}

/// Brings back the rows of the newest complete day that the state has not.
/// Gives their number.
pub async fn load(private: &Blobs, state: &dyn State) -> Result<usize, Error> {
    let Some(day) = days(private).await?.first().copied() else { return Ok(0) };
    let mut loaded = 0;
    for name in private.names(&format!("seen/{}", keys::number(day))).await? {
        if name == COMPLETE {
            continue;
        }
        let Some(bytes) = private.get(&keys::seen(day, &name), MAX_PART).await? else { continue };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // A line that is none was damaged; the rest still helps.
            let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
            let mut batches = Vec::new();
            if let Some(row) = line.seen {
                let mut batch = expecting_none(&row);
                batch.row(&row);
                batches.push(batch);
            }
            if let Some(row) = line.frontier {
                let mut batch = expecting_none(&row);
                batch.frontier(None, Some(&row));
                batches.push(batch);
            }
            for batch in batches {
                loaded += usize::from(state.apply(batch).await? == Applied::Applied);
            }
        }
    }
    Ok(loaded)
}

/// Takes mailboxes out of every copy.
pub async fn without(
    private: &Blobs,
    gone: &(dyn Fn(&Address) -> bool + Sync),
) -> Result<(), Error> {
    let is_gone = |line: &[u8]| {
        let Ok(line) = serde_json::from_slice::<Line>(line) else { return false };
        let names = [line.seen.map(|row| row.name), line.frontier.map(|row| row.name)];
        names.iter().flatten().any(|name| matches!(name, Name::Address(name) if gone(name)))
    };
    for day in private.names("seen").await? {
        let Some(day) = keys::parse_number(&day) else { continue };
        for part in private.names(&format!("seen/{}", keys::number(day))).await? {
            let key = keys::seen(day, &part);
            if part == COMPLETE {
                continue;
            }
            let Some(bytes) = private.get(&key, MAX_PART).await? else { continue };
            let lines = bytes.split_inclusive(|byte| *byte == b'\n');
            let kept: Vec<u8> = lines.filter(|line| !is_gone(line)).flatten().copied().collect();
            if kept.len() < bytes.len() {
                private.overwrite(&key, kept.into()).await?;
            }
        }
    }
    Ok(())
}

fn expecting_none<R: Typed>(row: &R) -> Batch {
    let mut batch = Batch::new();
    batch.expect(R::TABLE, row.key(), None);
    batch
}

/// Complete days, the newest first.
async fn days(private: &Blobs) -> Result<Vec<u64>, Error> {
    let mut complete = Vec::new();
    for name in private.names("seen").await?.iter().rev() {
        if let Some(day) = keys::parse_number(name)
            && is_saved(private, day).await?
        {
            complete.push(day);
        }
    }
    Ok(complete)
}

async fn delete_days(private: &Blobs, is_gone: impl Fn(u64) -> bool) -> Result<(), Error> {
    for name in private.names("seen").await? {
        let Some(day) = keys::parse_number(&name).filter(|day| is_gone(*day)) else { continue };
        for part in private.names(&format!("seen/{name}")).await? {
            private.delete(&keys::seen(day, &part)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::MemoryState;

    fn seen(name: &str, at: u64) -> SeenRow {
        SeenRow {
            name: name.parse().unwrap(),
            version: 1,
            confirmed_at: Timestamp::from_millis(at),
            attempted_at: Timestamp::from_millis(at),
            validity: Some((1, 2)),
            last_served: None,
            bogus: false,
            other: None,
            outcome: String::new(),
        }
    }

    #[tokio::test]
    async fn a_copy_of_a_day_to_come_does_not_stand_for_the_newest() {
        let private = Blobs::memory();
        let keep = async |day: u64, at: u64| {
            let state = MemoryState::default();
            let mut batch = Batch::new();
            batch.row(&seen("u@a.example", at));
            let _ = state.apply(batch).await.unwrap();
            save(&private, &state, day).await.unwrap();
        };
        for (day, at) in [(90, 1), (91, 2), (5, 3), (6, 4)] {
            keep(day, at).await;
        }
        assert!(is_saved(&private, 5).await.unwrap() && is_saved(&private, 6).await.unwrap());
        let fresh = MemoryState::default();
        assert_eq!(load(&private, &fresh).await.unwrap(), 1);
        let row: SeenRow = rows::find(&fresh, b"u@a.example").await.unwrap().unwrap();
        assert_eq!(row.confirmed_at.millis(), 4);
    }

    #[tokio::test]
    async fn what_was_seen_survives_the_state() {
        let private = Blobs::memory();
        let state = MemoryState::default();
        let mut batch = Batch::new();
        for i in 0..PART + 10 {
            batch.row(&seen(&format!("u{i}@a.example"), 5));
        }
        assert_eq!(state.apply(batch).await.unwrap(), Applied::Applied);
        for day in [3, 4, 5] {
            assert_eq!(save(&private, &state, day).await.unwrap(), PART + 10);
        }
        assert!(!is_saved(&private, 3).await.unwrap() && is_saved(&private, 5).await.unwrap());

        let fresh = MemoryState::default();
        let mut batch = Batch::new();
        batch.row(&seen("u1@a.example", 9));
        assert_eq!(fresh.apply(batch).await.unwrap(), Applied::Applied);
        assert_eq!(load(&private, &fresh).await.unwrap(), PART + 9);
        let newer: SeenRow = rows::find(&fresh, b"u1@a.example").await.unwrap().unwrap();
        assert_eq!(newer.confirmed_at.millis(), 9, "what is newer stays");
        assert_eq!(load(&private, &fresh).await.unwrap(), 0);
    }
}
