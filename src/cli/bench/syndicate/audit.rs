//! What `syndicate audit` takes for a whole log.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use syndicate::clock::Clock;
use tokio::process::Command;

use super::super::{Scratch, measure, round};
use super::Teller;
use super::made_log::MadeLog;
use crate::cli::bench::crawl::mib;

/// Between two looks at the auditor's memory and processor time.
const GLANCE: Duration = Duration::from_millis(20);

pub async fn figures(labels: u64, teller: Teller) -> anyhow::Result<Value> {
    teller.say(&format!("an audit of a log of {labels} mailboxes"));
    let log = MadeLog::start(labels, Clock::system().now()).await?;
    let folder = Scratch::new()?;
    let program = std::env::current_exe().context("where this program is")?;
    let began = Instant::now();
    let mut auditor = Command::new(program)
        .args(["audit", &log.url, "--once", "--json", "--log", &log.key().to_string()])
        .arg("--state")
        .arg(&folder.0)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the auditor")?;
    let id = auditor.id().context("it runs")?.to_string();
    let (mut peak, mut cpu) = (0, Duration::ZERO);
    let status = loop {
        tokio::select! {
            status = auditor.wait() => break status?,
            () = tokio::time::sleep(GLANCE) => {
                peak = peak.max(measure::status_of(&id, "VmHWM:"));
                cpu = cpu.max(measure::cpu_of(&id));
            }
        }
    };
    let wall = began.elapsed().as_secs_f64();
    ensure!(status.success(), "the auditor found something in a log that is right: {status}");
    let entries = log.size() as f64;
    Ok(json!({
        "audited_entries": log.size(),
        "audited_labels": labels,
        "audit_s": round(wall),
        "audit_entries_per_s": (entries / wall).round(),
        "audit_cpu_us_per_entry": round(cpu.as_secs_f64() * 1e6 / entries),
        "audit_peak_mib": mib(peak),
        "audit_peak_bytes_per_label": (peak as f64 / labels as f64).round(),
    }))
}
