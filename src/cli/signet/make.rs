//! The making side: keys, org signets, requests, rotations, user signets.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use clap::ValueEnum;
use syndicate::dime::armor::Tag;
use syndicate::dime::key::{Owner, PrivateKey, pok_to_armor};
use syndicate::dime::signet::build::{self, Content, SignTo};
use syndicate::dime::signet::{self, Kind, SecondaryKey, Signet, field};
use syndicate::dime::{Address, Domain, Rejection, chain, user};
use syndicate::dime::{armor as armoring, org as orgs};
use zeroize::Zeroizing;

use super::{Done, Failure, Failure::Usage, load, load_signet, read};
use crate::cli::output::YES;

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "verbatim")]
enum Dialect {
    /// libdime: what existing clients read.
    L,
    /// magma.
    M,
    /// magma's newer code: crypto level only.
    P,
}

impl From<Dialect> for signet::Dialect {
    fn from(dialect: Dialect) -> signet::Dialect {
        match dialect {
            Dialect::L => signet::Dialect::L,
            Dialect::M => signet::Dialect::M,
            Dialect::P => signet::Dialect::P,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Keys only.
    Crypto,
    /// Keys and texts, no name.
    Full,
    /// Everything, with the name in it.
    Id,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeyOwner {
    Org,
    User,
}

/// Where a made object goes.
#[derive(clap::Args)]
struct Target {
    /// The file to write. It must not exist yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write the binary form instead of armour.
    #[arg(long)]
    binary: bool,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

/// What goes into a signet between its keys and the last signatures.
#[derive(clap::Args)]
struct Contents {
    /// A text field, by its name or number: Name=Example, 160=https://example.com.
    #[arg(long = "field", value_name = "NAME=TEXT")]
    fields: Vec<String>,
    /// A field of your own naming.
    #[arg(long = "undefined", value_name = "NAME=TEXT")]
    undefined: Vec<String>,
    /// A picture (PNG).
    #[arg(long, value_name = "FILE")]
    photo: Option<PathBuf>,
    /// How far to sign [default: id, or crypto in dialect P].
    #[arg(long, value_enum)]
    level: Option<Level>,
}

/// Make the two private keys of an organization or a user.
///
/// The file holds both secrets, unencrypted, and only you may read it. Prints
/// the public signing key; that of an organization is what the management
/// record lists as pok=.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  syndicate signet keygen org --out org.key")]
pub struct Keygen {
    /// Whose keys. Secondary keys of an organization are org keys too.
    #[arg(value_enum)]
    owner: KeyOwner,
    /// Layout of the key file.
    #[arg(long, value_enum, default_value = "L")]
    dialect: Dialect,
    /// Also write the signing key alone, as the record tools of libdime read it.
    #[arg(long, value_name = "FILE")]
    pok_file: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// Make an organization's signet.
///
/// Secondary keys (--sok) may sign for the organization, each only what its
/// permissions say: signets, messages, certificates, software, or none.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  syndicate signet org --key org.key --sok sok.key=signets,messages \\
      --field Name='Example LLC' --domain example.com --out org.signet")]
pub struct Org {
    /// The key file with the primary organizational key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A secondary key and its permissions. Repeat it for more.
    #[arg(long = "sok", value_name = "KEYFILE=PERMISSIONS")]
    soks: Vec<String>,
    /// The domain to write into the signet; needed for level id.
    #[arg(long)]
    domain: Option<Domain>,
    #[arg(long, value_enum, default_value = "L")]
    dialect: Dialect,
    #[command(flatten)]
    contents: Contents,
    #[command(flatten)]
    target: Target,
}

/// Make a signing request for a user's first keys.
///
/// Send it to your organization, which turns it into your signet with
/// `signet sign`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  syndicate signet request --key alice.key --out alice.ssr")]
pub struct Request {
    /// The user's key file.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[arg(long, value_enum, default_value = "L")]
    dialect: Dialect,
    #[command(flatten)]
    target: Target,
}

/// Make a signing request for new keys, signed over by the old key.
///
/// That signature (chain of custody) tells everybody that the holder of the old
/// key made the change. Without it the change looks like a stranger's.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  syndicate signet keygen user --out alice2.key
  syndicate signet rotate --key alice2.key --previous alice1.key --out alice2.ssr")]
pub struct Rotate {
    /// The key file with the new keys.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The key file with the keys in use until now.
    #[arg(long, value_name = "FILE")]
    previous: PathBuf,
    #[arg(long, value_enum, default_value = "L")]
    dialect: Dialect,
    #[command(flatten)]
    target: Target,
}

/// Turn a user's request into a signet, as the organization.
///
/// The key is the primary one, or a secondary one that the org signet allows to
/// sign signets. The result is checked before it is written.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  syndicate signet sign alice.ssr --org org.signet --key org.key \\
      --address alice@example.com --field Name=Alice --out alice.signet")]
pub struct Sign {
    /// The request.
    request: PathBuf,
    /// The organization's signet.
    #[arg(long, value_name = "FILE")]
    org: PathBuf,
    /// The key file to sign with.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The mail address to write into the signet; needed for level id.
    #[arg(long)]
    address: Option<Address>,
    /// The user's signet until now: refuse a request that its key did not sign.
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    #[command(flatten)]
    contents: Contents,
    #[command(flatten)]
    target: Target,
}

/// Cut a signet down to a lower level.
#[derive(clap::Args)]
pub struct Split {
    /// The signet.
    file: PathBuf,
    /// What to keep.
    #[arg(long, value_enum)]
    level: Level,
    #[command(flatten)]
    target: Target,
}

/// Put a binary signet into armour, or take it out with --binary.
#[derive(clap::Args)]
pub struct Armor {
    /// The signet or request.
    file: PathBuf,
    #[command(flatten)]
    target: Target,
}

pub fn keygen(args: &Keygen) -> Done {
    let owner = match args.owner {
        KeyOwner::Org => Owner::Org,
        KeyOwner::User => Owner::User,
    };
    let key = PrivateKey::from_secrets(owner, *secret()?, *secret()?)?;
    let dialect = args.dialect.into();
    if args.target.binary {
        write(&args.target, &key.encode(dialect), 0o600)?;
    } else {
        write(&args.target, key.to_armor(dialect).as_bytes(), 0o600)?;
    }
    if let Some(path) = &args.pok_file {
        write_file(path, pok_to_armor(key.seed()).as_bytes(), 0o600, args.target.force)?;
    }
    println!("signing key     {}", hex::encode(key.signing_key()));
    println!("encryption key  {}", hex::encode(key.encryption_key()));
    if owner == Owner::Org {
        println!("pok={}", STANDARD_NO_PAD.encode(key.signing_key()));
    }
    Ok(YES)
}

pub fn org(args: &Org) -> Done {
    let key = load_key(&args.key)?;
    let soks = args.soks.iter().map(|sok| secondary(sok)).collect::<Result<Vec<_>, _>>()?;
    let contents = args.contents.read(Kind::Org)?;
    let dialect: signet::Dialect = args.dialect.into();
    let to = args.contents.sign_to(dialect, args.domain.as_ref().map(Domain::as_str))?;
    let signet = build::org(&key, dialect, &soks, &contents, to)?;
    orgs::validate(&signet, &[key.signing_key()], args.domain.as_ref())?;
    write_signet(&args.target, &signet)
}

pub fn request(args: &Request) -> Done {
    let key = load_key(&args.key)?;
    let signet = build::request(&key, args.dialect.into(), None)?;
    write_signet(&args.target, &signet)
}

pub fn rotate(args: &Rotate) -> Done {
    let (key, previous) = (load_key(&args.key)?, load_key(&args.previous)?);
    let signet = build::request(&key, args.dialect.into(), Some(&previous))?;
    write_signet(&args.target, &signet)
}

pub fn sign(args: &Sign) -> Done {
    let request = load_signet(&args.request)?;
    let org = load_signet(&args.org)?;
    let org = orgs::validate(&org, &[org.signing_key()], None)?;
    let key = load_key(&args.key)?;
    let public = key.signing_key();
    if public != org.pok() && org.signers().iter().all(|(_, sok)| *sok != public) {
        let message = "this key is neither the org signet's primary key nor one that may sign \
                       signets";
        return Err(Rejection::new("signer", message).into());
    }
    if let Some(previous) = &args.previous {
        chain::custody(&load_signet(previous)?, &request)?;
    }
    let contents = args.contents.read(Kind::User)?;
    let to =
        args.contents.sign_to(request.dialect(), args.address.as_ref().map(Address::as_str))?;
    let signet = build::user(&request, key.seed(), &contents, to)?;
    user::validate(&signet, &org, args.address.as_ref())?;
    write_signet(&args.target, &signet)
}

pub fn split(args: &Split) -> Done {
    let level = match args.level {
        Level::Crypto => signet::Level::Crypto,
        Level::Full => signet::Level::Full,
        Level::Id => signet::Level::Id,
    };
    write_signet(&args.target, &build::split(&load_signet(&args.file)?, level)?)
}

pub fn armor(args: &Armor) -> Done {
    let signet = Signet::decode(&load(&args.file)?)?;
    write_signet(&args.target, &signet)
}

impl Contents {
    fn read(&self, kind: Kind) -> Result<Vec<Content>, Failure> {
        let mut contents = Vec::new();
        for text in &self.fields {
            let (name, value) = pair(text)?;
            let id = name.parse().ok().or_else(|| field::id_of(kind, name));
            let id = id.ok_or_else(|| Usage(format!("{kind} signets have no field {name}")))?;
            contents.push(Content::text(id, value));
        }
        for text in &self.undefined {
            let (name, value) = pair(text)?;
            contents.push(Content::Undefined(name.into(), value.into()));
        }
        if let Some(photo) = &self.photo {
            contents.push(Content::Known(field::PHOTO, read(photo)?));
        }
        Ok(contents)
    }

    fn sign_to<'a>(
        &self,
        dialect: signet::Dialect,
        name: Option<&'a str>,
    ) -> Result<SignTo<'a>, Failure> {
        let highest = match dialect {
            signet::Dialect::P => Level::Crypto,
            signet::Dialect::L | signet::Dialect::M => Level::Id,
        };
        match (self.level.unwrap_or(highest), name) {
            (Level::Crypto, _) => Ok(SignTo::Crypto),
            (Level::Full, _) => Ok(SignTo::Full),
            (Level::Id, Some(name)) => Ok(SignTo::Id(name)),
            (Level::Id, None) => Err(Usage(
                "level id needs a name: --domain or --address (or choose --level)".into(),
            )),
        }
    }
}

fn pair(text: &str) -> Result<(&str, &str), Failure> {
    text.split_once('=').ok_or_else(|| Usage(format!("{text:?} is not NAME=TEXT")))
}

/// `KEYFILE=PERMISSIONS`.
fn secondary(text: &str) -> Result<SecondaryKey, Failure> {
    let (path, permissions) = text
        .rsplit_once('=')
        .ok_or_else(|| Usage(format!("{text:?} is not KEYFILE=PERMISSIONS")))?;
    let mut bits = 0;
    for word in permissions.split(',') {
        bits |= match word {
            "none" => 0,
            "signets" => SecondaryKey::MAY_SIGN_SIGNETS,
            "messages" => SecondaryKey::MAY_SIGN_MESSAGES,
            "certificates" => SecondaryKey::MAY_SIGN_CERTIFICATES,
            "software" => SecondaryKey::MAY_SIGN_SOFTWARE,
            _ => return Err(Usage(format!("{word:?} is not a permission of a secondary key"))),
        };
    }
    let key = load_key(Path::new(path))?.signing_key();
    Ok(SecondaryKey { permissions: bits, key })
}

/// 32 random bytes from the operating system.
fn secret() -> Result<Zeroizing<[u8; 32]>, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut())
        .map_err(|error| Usage(format!("cannot read random bytes: {error}")))?;
    Ok(bytes)
}

fn load_key(path: &Path) -> Result<PrivateKey, Failure> {
    let bytes = Zeroizing::new(read(path)?);
    let key = if armoring::is_armored(&bytes) {
        PrivateKey::from_armor(&bytes)
    } else {
        PrivateKey::decode(&bytes)
    };
    key.map_err(|refused| Usage(format!("{}: {refused}", path.display())))
}

fn write_signet(target: &Target, signet: &Signet) -> Done {
    if target.binary {
        write(target, signet.bytes(), 0o644)?;
    } else {
        // The tag that libdime writes for requests and reads (reference A25).
        let tag = match signet.kind() {
            Kind::Org | Kind::Ssr => Tag::OrgSignet,
            Kind::User => Tag::UserSignet,
        };
        write(target, armoring::encode(signet.bytes(), tag).as_bytes(), 0o644)?;
    }
    let (kind, level) = (signet.kind(), signet.level());
    println!("wrote {} ({kind} signet, level {level})", target.out.display());
    Ok(YES)
}

fn write(target: &Target, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    write_file(&target.out, bytes, mode, target.force)
}

/// A new file with `mode`; with `force` an existing one is removed first, so
/// that its permissions and whoever has it open do not matter.
fn write_file(path: &Path, bytes: &[u8], mode: u32, force: bool) -> Result<(), Failure> {
    if force && path.is_file() {
        std::fs::remove_file(path)
            .map_err(|error| Usage(format!("cannot replace {}: {error}", path.display())))?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| Usage(format!("cannot write {}: {error}", path.display())))
}
