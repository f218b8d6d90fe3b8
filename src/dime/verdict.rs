//! One answer about one object and everything it came with: what the command
//! line and the vectors ask for.
//!
//! The rooms that crawl and prove use [`super::org`], [`super::user`] and
//! [`super::chain`] directly, because they know where each part came from. Here
//! the parts are bytes, none of them trusted, and the answer is valid or not:
//!
//! - An org signet needs the POKs of a management record. No list and an empty
//!   list both refuse, with `no-pok` and `pok-mismatch`.
//! - A user signet needs an org signet, which is validated first (G3). Without
//!   a list of POKs the caller vouches for the org signet: its field 1 counts
//!   as the POK, and a note says so.
//! - With a previous signet the object must be its successor (`custody`). Without
//!   one, a custody signature that nobody can check is a note, `G16`: the
//!   organization's word stands, as if the name were seen for the first time.
//! - A request is judged by its own signature and custody; libdime compares the
//!   wrong field and refuses every rotation, hence note `G9`.

use std::fmt;

use super::signet::{Fingerprint, Kind, Level, Signet};
use super::user::Signer;
use super::{Name, Rejection, chain, org, user};

/// What an object is checked against. Nothing in it is trusted or decoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The org signet that is said to have signed the user signet.
    pub org: Option<&'a [u8]>,
    /// The POKs of the management record; `None` if no record was read.
    pub poks: Option<&'a [[u8; 32]]>,
    /// The signet that this one is said to succeed.
    pub previous: Option<&'a [u8]>,
    /// The org signet that signed `previous`, if it is another than `org`.
    pub previous_org: Option<&'a [u8]>,
    /// The name asked for.
    pub name: Option<&'a Name>,
}

/// What became of the custody signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Custody {
    /// The object has none.
    Absent,
    /// By the key of the previous signet.
    Verified,
    /// There was nothing to check it with.
    Unverified,
}

impl fmt::Display for Custody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Custody::Absent => "absent",
            Custody::Verified => "verified",
            Custody::Unverified => "unverified",
        })
    }
}

/// Why an object is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who made each organizational signature, by field id. Org signets have
    /// only the POK here.
    pub signers: Vec<(u8, Signer)>,
    pub custody: Custody,
    /// What a reader should know, with the rule where one decided.
    pub notes: Vec<Note>,
}

/// A remark on a valid object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub rule: Option<&'static str>,
    pub message: &'static str,
}

/// The answer. `signet` is there whenever the object could be decoded.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub signet: Option<Signet>,
    pub outcome: Result<Accepted, Rejection>,
}

impl Verdict {
    pub fn is_valid(&self) -> bool {
        self.outcome.is_ok()
    }

    pub fn level(&self) -> Option<Level> {
        self.signet.as_ref().map(Signet::level)
    }

    pub fn fingerprint(&self, level: Level) -> Option<Fingerprint> {
        self.signet.as_ref()?.fingerprint(level)
    }

    /// The rule that decided: that of the refusal, or of the first note.
    pub fn rule(&self) -> Option<&'static str> {
        match &self.outcome {
            Ok(accepted) => accepted.notes.iter().find_map(|note| note.rule),
            Err(refused) => Some(refused.rule),
        }
    }
}

/// Decodes `bytes` and checks all that can be checked in `context`.
pub fn examine(bytes: &[u8], context: &Context<'_>) -> Verdict {
    let signet = match Signet::decode(bytes) {
        Ok(signet) => signet,
        Err(refused) => return Verdict { signet: None, outcome: Err(refused) },
    };
    let outcome = match signet.kind() {
        Kind::Org => examine_org(&signet, context),
        Kind::User => examine_user(&signet, context),
        Kind::Ssr => examine_request(&signet, context),
    };
    Verdict { signet: Some(signet), outcome }
}

fn examine_org(signet: &Signet, context: &Context<'_>) -> Result<Accepted, Rejection> {
    let name = match context.name {
        None => None,
        Some(Name::Domain(domain)) => Some(domain),
        Some(Name::Address(_)) => {
            return Err(Rejection::new("G2", "an org signet, and an address was asked for"));
        }
    };
    let Some(poks) = context.poks else {
        let message = "no POKs of a management record to check it against";
        return Err(Rejection::new("no-pok", message));
    };
    let valid = org::validate(signet, poks, name)?;
    let signatures = [Level::Crypto, Level::Full, Level::Id]
        .into_iter()
        .filter_map(|level| Kind::Org.deciding_signature(level))
        .filter(|id| valid.signet().field(*id).is_some());
    Ok(Accepted {
        signers: signatures.map(|id| (id, Signer::Pok)).collect(),
        custody: Custody::Absent,
        notes: Vec::new(),
    })
}

fn examine_user(signet: &Signet, context: &Context<'_>) -> Result<Accepted, Rejection> {
    let name = match context.name {
        None => None,
        Some(Name::Address(address)) => Some(address),
        Some(Name::Domain(_)) => {
            return Err(Rejection::new("G2", "a user signet, and a domain was asked for"));
        }
    };
    let mut notes = Vec::new();
    if context.poks.is_none() {
        let message = "no POKs were given: the org signet's own field 1 was taken as the POK";
        notes.push(Note { rule: None, message });
    }
    let Some(org) = context.org else {
        return Err(Rejection::new("signer", "no org signet to check it against"));
    };
    let org = validate_org(org, context)?;
    let valid = user::validate(signet, &org, name)?;
    let custody = examine_custody(signet, context, Some(&org))?;
    if custody == Custody::Unverified {
        notes.push(Note { rule: Some("G16"), message: UNVERIFIED });
    }
    Ok(Accepted { signers: valid.signers().to_vec(), custody, notes })
}

const UNVERIFIED: &str = "custody unverified: no previous signet to check field 4 with (GAP)";

fn examine_request(signet: &Signet, context: &Context<'_>) -> Result<Accepted, Rejection> {
    user::validate_request(signet)?;
    let org = match (context.previous, context.org) {
        (Some(_), Some(org)) => Some(validate_org(org, context)?),
        _ => None,
    };
    let custody = examine_custody(signet, context, org.as_ref())?;
    let note = match custody {
        Custody::Absent => None,
        Custody::Verified => {
            Some(Note { rule: Some("G9"), message: "custody verified over field 4" })
        }
        Custody::Unverified => Some(Note { rule: Some("G16"), message: UNVERIFIED }),
    };
    Ok(Accepted { signers: Vec::new(), custody, notes: note.into_iter().collect() })
}

/// Rule `G3`: the org signet is itself checked, not only its shape.
fn validate_org(bytes: &[u8], context: &Context<'_>) -> Result<org::ValidOrgSignet, Rejection> {
    let nested = |refused: Rejection| {
        if refused.rule == "pok-mismatch" {
            return Rejection::new(refused.rule, format!("the org signet: {}", refused.message));
        }
        Rejection::new("G3", format!("the org signet is refused: {refused}"))
    };
    let signet = Signet::decode(bytes).map_err(nested)?;
    let own = [signet.signing_key()];
    let domain = context.name.map(Name::domain);
    org::validate(&signet, context.poks.unwrap_or(&own), domain).map_err(nested)
}

/// The successor question. `org` is the signet that validated the object; a
/// request has none, and then the previous signet is checked as far as it
/// speaks for itself.
fn examine_custody(
    signet: &Signet,
    context: &Context<'_>,
    org: Option<&org::ValidOrgSignet>,
) -> Result<Custody, Rejection> {
    let Some(previous) = context.previous else {
        return Ok(match signet.custody() {
            Some(_) => Custody::Unverified,
            None => Custody::Absent,
        });
    };
    let nested = |refused: Rejection| {
        Rejection::new("G3", format!("the previous signet is refused: {refused}"))
    };
    let previous = Signet::decode(previous).map_err(nested)?;
    if signet.custody().is_none() {
        let message = "no custody signature, though a previous signet was given (RESTART)";
        return Err(Rejection::new("custody", message));
    }
    chain::custody(&previous, signet)?;
    match (context.previous_org, org) {
        (Some(other), _) => {
            // Other keys than today's: only its own field 1 can be asked.
            let other = Signet::decode(other).map_err(nested)?;
            let other = org::validate(&other, &[other.signing_key()], None).map_err(nested)?;
            user::validate(&previous, &other, None).map_err(nested)?;
        }
        (None, Some(org)) => {
            user::validate(&previous, org, None).map_err(nested)?;
        }
        (None, None) => user::validate_own(&previous).map_err(nested)?,
    }
    Ok(Custody::Verified)
}
