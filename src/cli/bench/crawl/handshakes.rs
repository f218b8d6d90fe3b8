//! What a connection costs: a full TLS handshake beside one that resumes a
//! session, each up to the host's banner, in turns.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use syndicate::clock::Clock;
use syndicate::demo::crowd::host_name;
use syndicate::dmtp::client::{connect, connect_anew};
use syndicate::dmtp::{self, AddressFilter, Entrance, Roots, Target};

use super::super::{measure, round};
use super::Crowd;

/// Connections of one turn.
const TURN: u32 = 100;
/// Turns of each kind.
const TURNS: u32 = 10;

/// What one kind took.
#[derive(Default)]
struct Took {
    wall: Duration,
    here: Duration,
    there: Duration,
}

pub async fn figures(crowd: &Crowd) -> anyhow::Result<Value> {
    let options = dmtp::Options {
        filter: AddressFilter::with_loopback(),
        roots: Roots::none(),
        ..dmtp::Options::default()
    };
    // What is made once is not a handshake's, and leaves sessions to resume.
    turn(crowd, &options, false, &mut Took::default()).await?;
    let (mut full, mut resumed) = (Took::default(), Took::default());
    for _ in 0..TURNS {
        turn(crowd, &options, false, &mut full).await?;
        turn(crowd, &options, true, &mut resumed).await?;
    }
    let each = |took: Duration| round(took.as_secs_f64() * 1e6 / f64::from(TURN * TURNS));
    Ok(json!({
        "handshake_us": each(full.wall),
        "handshake_cpu_us": each(full.here),
        "handshake_hosts_cpu_us": each(full.there),
        "resumed_us": each(resumed.wall),
        "resumed_cpu_us": each(resumed.here),
        "resumed_hosts_cpu_us": each(resumed.there),
    }))
}

/// Connections one after the other.
async fn turn(
    crowd: &Crowd,
    options: &dmtp::Options,
    resume: bool,
    took: &mut Took,
) -> anyhow::Result<()> {
    let host = host_name(0);
    let addr = crowd.host(0).context("no host")?;
    let (wall, here, there) = (Instant::now(), measure::process_cpu(), crowd.cpu());
    for _ in 0..TURN {
        let target = Target { host: &host, addr, entrance: Entrance::Tls };
        let now = Clock::system().now();
        let connected = match resume {
            true => connect(target, options, now).await?,
            false => connect_anew(target, options, now).await?,
        };
        anyhow::ensure!(connected.is_resumed() == resume, "resumed: {}", connected.is_resumed());
        // Tickets come with the host's first words.
        connected.open().await?;
    }
    took.wall += wall.elapsed();
    took.here += measure::process_cpu().saturating_sub(here);
    took.there += crowd.cpu().saturating_sub(there);
    Ok(())
}
