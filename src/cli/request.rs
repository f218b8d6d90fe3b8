//! `syndicate watch-request`: what an owner posts to a mirror's `/v1/watch`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use syndicate::clock::Clock;
use syndicate::dime::key::{self, PrivateKey};
use syndicate::dime::{Address, Name, ed25519};
use syndicate::proof::entry::is_origin;
use syndicate::proof::request::{Method, NONCE, Request};
use zeroize::Zeroizing;

use super::output;

#[derive(clap::Args)]
pub struct Args {
    /// A domain, or a mailbox that asks for itself.
    name: Name,
    /// Addresses of that domain to watch; at most 64.
    addresses: Vec<Address>,
    /// The origin of the mirror's log: the first line of its checkpoint.
    #[arg(long)]
    origin: String,
    /// Private key that speaks for the name: the POK, a secondary key that may
    /// sign messages, or the mailbox's current key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// Prints the JSON to send; it is good for five minutes, and once.
pub fn run(args: Args) -> ExitCode {
    match made(&args) {
        Ok(json) => {
            output::json_line(&json);
            ExitCode::from(output::YES)
        }
        Err(message) => output::usage(message),
    }
}

fn made(args: &Args) -> Result<serde_json::Value, String> {
    if !is_origin(&args.origin) {
        return Err(format!("{:?} is no origin of a log", args.origin));
    }
    let domain = match &args.name {
        Name::Domain(domain) => Some(domain),
        Name::Address(_) => None,
    };
    if args.addresses.iter().any(|address| Some(address.domain()) != domain) {
        return Err("only a domain may list addresses, its own".into());
    }
    let body: String = args.addresses.iter().map(|address| format!("{address}\n")).collect();
    let seed = seed(&args.key)?;
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|error| format!("cannot read random bytes: {error}"))?;
    let request = Request {
        method: Method::Watch,
        name: args.name.clone(),
        body_sha256: Sha256::digest(&body).into(),
        time: Clock::system().now().secs(),
        nonce,
    };
    Ok(json!({
        "name": args.name.as_str(),
        "body": body,
        "time": request.time,
        "nonce": hex::encode(nonce),
        "key": hex::encode(ed25519::public_key(&seed)),
        "signature": hex::encode(request.sign(&args.origin, &seed)),
    }))
}

/// The secret of a stand-alone Ed25519 key, or of a key file.
fn seed(file: &Path) -> Result<Zeroizing<[u8; 32]>, String> {
    let say = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read(file).map(Zeroizing::new).map_err(|error| say(&error))?;
    key::pok_from_armor(&text).or_else(|_| {
        let key = PrivateKey::from_armor(&text).or_else(|_| PrivateKey::decode(&text));
        key.map(|key| Zeroizing::new(*key.seed())).map_err(|why| say(&why))
    })
}
