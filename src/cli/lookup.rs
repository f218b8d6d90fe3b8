//! `syndicate lookup` and `syndicate history`: ask a mirror, check its answer.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use syndicate::client::{self, Ask, Fault};
use syndicate::dime::{Name, Timestamp};
use syndicate::errors::with_sources;
use syndicate::proof::receipt::Receipt;

use super::output;
use super::report::{Report, Source};
use super::trust::{self, Trust};

/// Ask a mirror for the key of a domain or mailbox, and check its proof here.
///
/// The mirror is only where the answer comes from. Whether it is believed is
/// decided by the log key or policy that you give.
///
/// Exit code: 0 verified, 1 not verified, 2 wrong call or no answer.
#[derive(clap::Args)]
pub struct LookupArgs {
    #[command(flatten)]
    common: Common,
}

/// The same for the whole history of a name: every version, in one proof.
///
/// Exit code: 0 verified, 1 not verified, 2 wrong call or no answer.
#[derive(clap::Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    common: Common,
    /// First version that is wanted; all if left out.
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    from: u64,
}

#[derive(clap::Args)]
struct Common {
    /// A domain (example.com) or a mailbox (alice@example.com).
    #[arg(value_name = "NAME")]
    name: Name,
    /// The mirror to ask: http://… or https://…
    #[arg(long, value_name = "URL")]
    via: String,
    #[command(flatten)]
    trust: Trust,
    /// Keep the answer, to be checked again with `syndicate verify`: as JSON if
    /// FILE ends in .json, else binary.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Judge as if it were this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = trust::moment)]
    now: Option<Timestamp>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn lookup(args: LookupArgs) -> ExitCode {
    ask(args.common, Ask::Lookup)
}

pub fn history(args: HistoryArgs) -> ExitCode {
    ask(args.common, Ask::History { from: args.from })
}

fn ask(args: Common, ask: Ask) -> ExitCode {
    let policy = match args.trust.policy() {
        Ok(policy) => policy,
        Err(error) => return output::usage(with_sources(&error)),
    };
    let root = match args.trust.root() {
        Ok(root) => root,
        Err(error) => return output::usage(with_sources(&error)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return output::usage(format!("this machine gives no runtime: {error}")),
    };
    let receipt = match runtime.block_on(client::fetch(&args.via, &args.name, ask)) {
        Ok(receipt) => receipt,
        Err(error) => return no_answer(&args, &error),
    };
    if let Some(path) = &args.save
        && let Err(error) = save(path, &receipt)
    {
        return output::usage(format!("{}: {error}", path.display()));
    }
    let judgement = client::judge(&receipt, policy.as_ref(), &root, trust::now(args.now));
    let history = matches!(ask, Ask::History { .. });
    Report { receipt: &receipt, judgement: &judgement, history, source: Source::Fetched }
        .print(args.json)
}

fn save(path: &Path, receipt: &Receipt) -> std::io::Result<()> {
    match path.extension().is_some_and(|ending| ending == "json") {
        true => std::fs::write(path, format!("{}\n", receipt.to_json())),
        false => std::fs::write(path, receipt.encode()),
    }
}

/// Says whose fault it is. An answer that is no receipt is a "no" of the
/// mirror's; everything else says nothing about the name.
fn no_answer(args: &Common, error: &client::Error) -> ExitCode {
    let whose = match error.fault() {
        Fault::Caller => "the question could not be asked like this",
        Fault::Network => {
            "no answer; the network or the mirror is down, which says nothing about the name"
        }
        Fault::Mirror => "the mirror is at fault",
    };
    let message = format!("{whose}: {}", with_sources(error));
    let code = match error {
        client::Error::NoReceipt { .. } | client::Error::OtherName { .. } => output::NO,
        _ => output::USAGE,
    };
    if args.json {
        output::json_line(&serde_json::json!({
            "verified": false,
            "verdict": "NO ANSWER",
            "name": args.name.as_str(),
            "error": {"rule": error.rule(), "message": message},
        }));
    } else {
        eprintln!("syndicate: {message}");
    }
    ExitCode::from(code)
}
