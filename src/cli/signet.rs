//! `syndicate signet`: look into signets, check them, make them.

mod batch;
mod make;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Map, Value, json};
use syndicate::dime::armor::{self, Tag};
use syndicate::dime::signet::{Level, Signet};
use syndicate::dime::verdict::{self, Context, Verdict};
use syndicate::dime::{Name, Rejection, key};

use super::output::{self, NO, YES};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Inspect(Inspect),
    Verify(Verify),
    VerifyBatch(batch::VerifyBatch),
    Keygen(make::Keygen),
    Org(make::Org),
    Request(make::Request),
    Rotate(make::Rotate),
    Sign(make::Sign),
    Split(make::Split),
    Armor(make::Armor),
}

/// Show what is in a signet, without judging its signatures.
///
/// Checks the structure only: a signet that `inspect` shows may still be signed
/// by nobody. Exit code 0 if it is well-formed, 1 if not, 2 if the file cannot
/// be read.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  syndicate signet inspect alice.signet")]
struct Inspect {
    /// The signet or request, binary or armoured; - reads standard input.
    file: PathBuf,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Check a signet against its issuer.
///
/// An organization's signet needs --pok, the key from the domain's management
/// record. A user's signet needs --org; with --pok the org signet is checked
/// too, without it you vouch for the org signet yourself. --previous asks
/// whether this signet is the successor of that one. Exit code 0 valid,
/// 1 invalid, 2 if the call itself was wrong.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  syndicate signet verify org.signet --pok iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w
  syndicate signet verify alice2.signet --org org.signet --previous alice1.signet \\
      --name alice@example.com")]
struct Verify {
    /// The signet or request, binary or armoured; - reads standard input.
    file: PathBuf,
    /// The organization's signet.
    #[arg(long, value_name = "FILE")]
    org: Option<PathBuf>,
    /// A primary organizational key of the management record: 64 hex digits or
    /// 43 characters of base64. Repeat it for each key of the record.
    #[arg(long, value_name = "HEX|B64", value_parser = public_key)]
    pok: Vec<[u8; 32]>,
    /// The signet that this one replaces.
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// The org signet that signed the previous one, if it is another than --org.
    /// You vouch for it: its own first key counts as its primary key.
    #[arg(long, value_name = "FILE", requires = "previous")]
    previous_org: Option<PathBuf>,
    /// The domain or address you asked for; a signet that names another is refused.
    #[arg(long)]
    name: Option<Name>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    let done = match args.command {
        Command::Inspect(args) => inspect(&args),
        Command::Verify(args) => verify(&args),
        Command::VerifyBatch(args) => batch::run(&args),
        Command::Keygen(args) => make::keygen(&args),
        Command::Org(args) => make::org(&args),
        Command::Request(args) => make::request(&args),
        Command::Rotate(args) => make::rotate(&args),
        Command::Sign(args) => make::sign(&args),
        Command::Split(args) => make::split(&args),
        Command::Armor(args) => make::armor(&args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Usage(message)) => output::usage(message),
        Err(Failure::Refused(refused)) => {
            eprintln!("syndicate: {refused}");
            ExitCode::from(NO)
        }
    }
}

/// Why a command could not do what it was asked.
enum Failure {
    /// A file or an argument: exit code 2.
    Usage(String),
    /// What was given is not acceptable: exit code 1.
    Refused(Rejection),
}

impl From<Rejection> for Failure {
    fn from(refused: Rejection) -> Failure {
        Failure::Refused(refused)
    }
}

type Done = Result<u8, Failure>;

fn public_key(text: &str) -> Result<[u8; 32], String> {
    key::parse_public(text).map_err(|refused| refused.message)
}

/// The whole file, or standard input for `-`, at most what armour may take.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let limit = armor::TEXT_LIMIT as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::Usage(format!("cannot read {}: {error}", path.display()))),
    }
}

/// The binary object in a file's bytes, out of its armour if it wears one.
fn unwrap_armor(bytes: Vec<u8>) -> Result<Vec<u8>, Rejection> {
    if !armor::is_armored(&bytes) {
        return Ok(bytes);
    }
    match armor::decode(&bytes)? {
        (Tag::OrgSignet | Tag::UserSignet | Tag::Request, object) => Ok(object),
        (tag, _) => {
            let message = format!("{} is not a signet or request", tag.text());
            Err(Rejection::new("armor", message))
        }
    }
}

/// The bytes of the signet in `path`. Refused only if its armour is.
fn load(path: &Path) -> Result<Vec<u8>, Failure> {
    Ok(unwrap_armor(read(path)?)?)
}

fn load_signet(path: &Path) -> Result<Signet, Failure> {
    Ok(Signet::decode(&load(path)?)?)
}

/// `{"ssr":…,"crypto":…,"full":…,"id":…}`, null where a level is not defined.
fn fingerprints(signet: Option<&Signet>) -> Value {
    let of = |level: Level| {
        let print = signet.and_then(|signet| signet.fingerprint(level));
        (level.to_string(), print.map_or(Value::Null, |print| print.to_string().into()))
    };
    Level::NAMED.into_iter().map(of).collect::<Map<_, _>>().into()
}

fn inspect(args: &Inspect) -> Done {
    let bytes = read(&args.file)?;
    let signet = match unwrap_armor(bytes).and_then(|bytes| Signet::decode(&bytes)) {
        Ok(signet) => signet,
        Err(refused) if args.json => {
            let Rejection { rule, message } = refused;
            output::json_line(&json!({"error": {"rule": rule, "message": message}}));
            return Ok(NO);
        }
        Err(refused) => {
            println!("malformed: {refused}");
            return Ok(NO);
        }
    };
    if args.json {
        output::json_line(&describe(&signet));
    } else {
        print_signet(&signet);
    }
    Ok(YES)
}

fn describe(signet: &Signet) -> Value {
    let fields = signet.fields().map(|field| {
        let mut row = json!({"id": field.id, "name": field.name, "length": field.data.len()});
        if !field.label.is_empty() {
            row["label"] = String::from_utf8_lossy(field.label).into();
        }
        row
    });
    let flags = signet.flags();
    json!({
        "type": signet.kind().to_string(),
        "dialect": signet.dialect().to_string(),
        "level": signet.level().to_string(),
        "fingerprints": fingerprints(Some(signet)),
        "signet_id": signet.identifier(),
        "signing_key": hex::encode(signet.signing_key()),
        "encryption_key": hex::encode(signet.encryption_key()),
        "fields": fields.collect::<Vec<_>>(),
        "flags": flags.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn print_signet(signet: &Signet) {
    println!("type            {}", signet.kind());
    println!("dialect         {}", signet.dialect());
    println!("level           {}", signet.level());
    println!("identifier      {}", signet.identifier().unwrap_or("none"));
    println!("signing key     {}", hex::encode(signet.signing_key()));
    println!("encryption key  {}", hex::encode(signet.encryption_key()));
    for (number, sok) in signet.secondary_keys().enumerate() {
        println!("sok {number:<11} {} permissions {:#04x}", hex::encode(sok.key), sok.permissions);
    }
    for level in Level::NAMED {
        if let Some(print) = signet.fingerprint(level) {
            println!("fingerprint     {level:<6} {print}");
        }
    }
    for flag in signet.flags() {
        println!("flag            {flag}");
    }
    println!("fields");
    for field in signet.fields() {
        println!("  {:>3}  {:<30} {} bytes", field.id, field.name, field.data.len());
    }
}

fn verify(args: &Verify) -> Done {
    // Broken armour goes on as it is: the verdict says which part is refused.
    let load = |path: &Path| {
        let bytes = read(path)?;
        Ok::<_, Failure>(unwrap_armor(bytes.clone()).unwrap_or(bytes))
    };
    let optional = |path: &Option<PathBuf>| path.as_deref().map(load).transpose();
    let org = optional(&args.org)?;
    let previous = optional(&args.previous)?;
    let previous_org = optional(&args.previous_org)?;
    let context = Context {
        org: org.as_deref(),
        poks: (!args.pok.is_empty()).then_some(args.pok.as_slice()),
        previous: previous.as_deref(),
        previous_org: previous_org.as_deref(),
        name: args.name.as_ref(),
    };
    let verdict = match unwrap_armor(read(&args.file)?) {
        Ok(bytes) => verdict::examine(&bytes, &context),
        Err(refused) => Verdict { signet: None, outcome: Err(refused) },
    };
    if args.json {
        output::json_line(&answer(&verdict));
    } else {
        print_verdict(&verdict);
    }
    Ok(if verdict.is_valid() { YES } else { NO })
}

/// The JSON form of a verdict: rule and message are null when there is nothing
/// to say.
fn answer(verdict: &Verdict) -> Value {
    let (signers, custody) = match &verdict.outcome {
        Ok(accepted) => (
            accepted
                .signers
                .iter()
                .map(|(field, signer)| (field.to_string(), signer.to_string().into()))
                .collect::<Map<_, _>>(),
            Some(accepted.custody.to_string()),
        ),
        Err(_) => (Map::new(), None),
    };
    json!({
        "verdict": if verdict.is_valid() { "valid" } else { "invalid" },
        "level": verdict.level().map(|level| level.to_string()),
        "rule": verdict.rule(),
        "message": message(verdict),
        "signers": signers,
        "custody": custody,
    })
}

/// Why it was refused, or what there is to note.
fn message(verdict: &Verdict) -> Option<String> {
    match &verdict.outcome {
        Err(refused) => Some(refused.message.clone()),
        Ok(accepted) if accepted.notes.is_empty() => None,
        Ok(accepted) => {
            let notes: Vec<&str> = accepted.notes.iter().map(|note| note.message).collect();
            Some(notes.join("; "))
        }
    }
}

fn print_verdict(verdict: &Verdict) {
    let what = verdict.signet.as_ref().map_or("not a signet".to_owned(), |signet| {
        format!("{} signet, dialect {}, level {}", signet.kind(), signet.dialect(), signet.level())
    });
    match &verdict.outcome {
        Err(refused) => println!("invalid  {what}\nbecause  {refused}"),
        Ok(accepted) => {
            println!("valid    {what}");
            for (field, signer) in &accepted.signers {
                println!("signed   field {field} by {signer}");
            }
            println!("custody  {}", accepted.custody);
            for note in &accepted.notes {
                println!("note     {}", note.message);
            }
        }
    }
}
