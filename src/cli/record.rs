//! `syndicate record`: read a management record, write one.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use syndicate::dime::key::{self, Owner, PrivateKey};
use syndicate::dime::record::{self, Host, MAX_EXPIRY_DAYS, MAX_RECORD, Policy, Record, Subdomain};
use syndicate::dime::{Domain, Rejection, ed25519};

use zeroize::Zeroizing;

use super::output;

/// TTL of the lines that `--zone` prints, seconds.
const ZONE_TTL: u32 = 3600;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read a record by the strict rules; exit 0 if it is accepted, 1 if a rule refuses it.
    Parse {
        /// The text of one TXT record, its strings joined; `-` reads it from
        /// standard input, without the line end.
        text: OsString,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Write a record, with the signature that pins the DX host's certificate.
    Create(Create),
}

#[derive(clap::Args)]
struct Create {
    /// Private key of a POK: an `ED25519 PRIVATE KEY` PEM or an organization's
    /// key file. Repeat it for a rollover; the first one signs the certificates.
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Certificate of a DX host, PEM, to be pinned. Give the current one first:
    /// libdime looks at no other.
    #[arg(long, value_name = "PEM")]
    cert: Vec<PathBuf>,
    /// A host that takes mail and answers for signets, in order of preference.
    #[arg(long, value_name = "HOST", value_parser = host)]
    dx: Vec<String>,
    /// A syndicate to ask as well: HOST or HOST:PORT, in order of preference.
    #[arg(long, value_name = "HOST", value_parser = host)]
    syn: Vec<String>,
    /// Which mail the domain accepts: experimental, mixed or strict.
    #[arg(long, default_value_t, value_name = "POLICY")]
    policy: Policy,
    /// Days the record stays in force after it is gone from DNS.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_EXPIRY_DAYS)))]
    expiry: Option<u32>,
    /// What the record means for subdomains: strict, relaxed or explicit.
    #[arg(long, default_value_t, value_name = "RULE")]
    sub: Subdomain,
    /// Print lines for the zone file of this domain, under both names.
    #[arg(long, value_name = "DOMAIN")]
    zone: Option<Domain>,
    /// Print one JSON object: the text and its character-strings.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    match args.command {
        Command::Parse { text, json } => parse(text, json),
        Command::Create(create) => match create.template() {
            Ok(template) => print_made(&create, &template.text()),
            Err(message) => output::usage(message),
        },
    }
}

fn parse(text: OsString, json: bool) -> ExitCode {
    let text = if text == "-" {
        match standard_input() {
            Ok(text) => text,
            Err(error) => return output::usage(format!("cannot read standard input: {error}")),
        }
    } else {
        text.into_vec()
    };
    match Record::parse(&text) {
        Ok(record) => {
            if json {
                output::json_line(&as_json(&record));
            } else {
                print_record(&record);
            }
            ExitCode::from(output::YES)
        }
        Err(why) => {
            refuse(&why, json);
            ExitCode::from(output::NO)
        }
    }
}

/// Reads one byte more than a record may have, so that a longer one is refused
/// by the parser. One line end is the file's, not the record's (§1.3).
fn standard_input() -> std::io::Result<Vec<u8>> {
    let limit = MAX_RECORD + "\r\n".len() + 1;
    let mut text = Vec::new();
    std::io::stdin().take(limit as u64).read_to_end(&mut text)?;
    if text.last() == Some(&b'\n') {
        text.pop();
        if text.last() == Some(&b'\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn refuse(why: &Rejection, json: bool) {
    if json {
        output::json_line(&json!({"error": {"rule": why.rule, "message": why.message}}));
    } else {
        println!("refused: {why}");
    }
}

fn as_json(record: &Record) -> serde_json::Value {
    let tls = |pin: &record::Pin| json!({"form": pin.form(), "value": hex::encode(pin.bytes())});
    json!({
        "version": 1,
        "poks": record.poks.iter().map(hex::encode).collect::<Vec<_>>(),
        "tls": record.tls.iter().map(tls).collect::<Vec<_>>(),
        "policy": record.policy.to_string(),
        "subdomain": record.subdomain.to_string(),
        "syndicates": record.syndicates.iter().map(Host::to_string).collect::<Vec<_>>(),
        "dx": record.dx,
        "expiry_days": record.expiry_days,
        "ttl": record.ttl,
        "unknown": record.unknown,
        "flags": record.flags.iter().map(|flag| flag.as_str()).collect::<Vec<_>>(),
    })
}

fn print_record(record: &Record) {
    println!("accepted");
    for pok in &record.poks {
        println!("pok        {}", hex::encode(pok));
    }
    for pin in &record.tls {
        println!("tls        {} {}", pin.form(), hex::encode(pin.bytes()));
    }
    println!("policy     {}", record.policy);
    println!("subdomain  {}", record.subdomain);
    for host in &record.syndicates {
        println!("syndicate  {host}");
    }
    for host in &record.dx {
        println!("dx         {}", host.escape_debug());
    }
    println!("expiry     {} days", record.expiry_days);
    if let Some(ttl) = record.ttl {
        println!("ttl        {ttl} s");
    }
    for field in &record.unknown {
        println!("unknown    {}", field.escape_debug());
    }
    for flag in &record.flags {
        println!("flag       {}", flag.as_str());
    }
}

fn host(text: &str) -> Result<String, String> {
    Host::parse(text.as_bytes())
        .map(|host| host.to_string())
        .ok_or_else(|| "not a host name".to_owned())
}

impl Create {
    fn template(&self) -> Result<record::Template, String> {
        let seeds = self.key.iter().map(|file| seed(file)).collect::<Result<Vec<_>, _>>()?;
        let signer = seeds.first().ok_or("a POK is needed")?;
        let pin = |file: &PathBuf| {
            CertificateDer::from_pem_file(file)
                .map(|certificate| record::sign_certificate(signer, &certificate))
                .map_err(|error| format!("{}: no PEM certificate: {error}", file.display()))
        };
        Ok(record::Template {
            poks: seeds.iter().map(|seed| ed25519::public_key(seed)).collect(),
            tls: self.cert.iter().map(pin).collect::<Result<_, _>>()?,
            policy: self.policy,
            syndicates: self.syn.clone(),
            dx: self.dx.clone(),
            expiry_days: self.expiry.unwrap_or(0),
            subdomain: self.sub,
        })
    }
}

/// The secret of a POK: from a stand-alone file, or an organization's keys.
fn seed(file: &Path) -> Result<Zeroizing<[u8; 32]>, String> {
    let say = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read(file).map(Zeroizing::new).map_err(|error| say(&error))?;
    key::pok_from_armor(&text).or_else(|_| match PrivateKey::from_armor(&text) {
        Ok(key) if key.owner() == Owner::Org => Ok(Zeroizing::new(*key.seed())),
        Ok(_) => Err(say(&"this is a user's key, not an organization's")),
        Err(why) => Err(say(&why)),
    })
}

fn print_made(create: &Create, text: &str) -> ExitCode {
    // What a stranger's mirror would say of it; a maker should hear it first.
    if let Err(why) = Record::parse(text.as_bytes()) {
        return output::usage(format!("this would make no valid record: {why}"));
    }
    let strings: Vec<_> =
        record::character_strings(text).into_iter().map(String::from_utf8_lossy).collect();
    if create.json {
        output::json_line(&json!({"text": text, "strings": strings}));
        return ExitCode::from(output::YES);
    }
    match &create.zone {
        None => println!("{text}"),
        Some(domain) => {
            let quoted: Vec<_> = strings.iter().map(|string| format!("\"{string}\"")).collect();
            for label in ["_dime", "_dx"] {
                println!("{label}.{domain}. {ZONE_TTL} IN TXT ( {} )", quoted.join(" "));
            }
        }
    }
    ExitCode::from(output::YES)
}
