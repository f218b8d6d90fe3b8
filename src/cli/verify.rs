//! `syndicate verify`: check a saved answer or incident, with no network.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use syndicate::client;
use syndicate::dime::{Rejection, Timestamp};
use syndicate::errors::with_sources;
use syndicate::proof::incident::Incident;
use syndicate::proof::receipt::{MAX_RECEIPT, Receipt};

use super::incident;
use super::output;
use super::report::{Report, Source};
use super::trust::{self, Trust};

/// Check a saved answer of a mirror, or an incident, with no network.
///
/// FILE is what `lookup --save` or a mirror wrote, JSON or binary. An answer
/// proves what was the latest at its time; --max-age says how old that may be.
/// An incident is judged at its own time; what it proves, about whom, and what
/// is only said, is told apart.
///
/// Exit code: 0 verified, or something is proved; 1 not verified, or nothing is
/// proved; 2 wrong call or unreadable file.
#[derive(clap::Args)]
pub struct Args {
    /// The answer or incident; `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    trust: Trust,
    /// Judge as if it were this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = trust::moment)]
    now: Option<Timestamp>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    let policy = match args.trust.policy() {
        Ok(policy) => policy,
        Err(error) => return output::usage(with_sources(&error)),
    };
    let root = match args.trust.root() {
        Ok(root) => root,
        Err(error) => return output::usage(with_sources(&error)),
    };
    let bytes = match read(&args.file) {
        Ok(bytes) => bytes,
        Err(error) => return output::usage(format!("{}: {error}", args.file.display())),
    };
    if Incident::is_one(&bytes) {
        return incident::print(&bytes, policy.as_ref(), &root, args.json);
    }
    let receipt = match Receipt::read(&bytes) {
        Ok(receipt) => receipt,
        Err(rejection) => return no_receipt(&args, &rejection),
    };
    let judgement = client::judge(&receipt, policy.as_ref(), &root, trust::now(args.now));
    // A lookup holds one version, or those since the one in force.
    let history = receipt.subject.items.len() > 1;
    Report { receipt: &receipt, judgement: &judgement, history, source: Source::File }
        .print(args.json)
}

/// At most twice the largest receipt, which JSON may need.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let limit = 2 * MAX_RECEIPT as u64;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(limit + 1).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    }
    match bytes.len() as u64 > limit {
        true => Err(std::io::Error::other("longer than any receipt")),
        false => Ok(bytes),
    }
}

fn no_receipt(args: &Args, rejection: &Rejection) -> ExitCode {
    if args.json {
        output::json_line(&serde_json::json!({
            "verified": false,
            "verdict": "INVALID",
            "error": {"rule": rejection.rule, "message": rejection.message},
        }));
    } else {
        println!("NOT VERIFIED: {} is no receipt: {rejection}", args.file.display());
    }
    ExitCode::from(output::NO)
}
