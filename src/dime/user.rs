//! From a decoded user signet to a [`ValidUserSignet`]; requests (SSR) too.
//!
//! The order is that of the reference §3.6: the user's own signature, the
//! organization's, the name. Custody is not part of it: a signet with another
//! predecessor than ours is valid and an event, see [`crate::dime::chain`].

use std::fmt;

use super::org::ValidOrgSignet;
use super::signet::{Kind, Level, Signet, field};
use super::{Address, Rejection};

/// Which key of the organization made a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signer {
    /// The primary key.
    Pok,
    /// The secondary key at this position among all of the org signet's.
    Sok(usize),
}

/// `pok`, `sok:0`, `sok:1` …
impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signer::Pok => f.write_str("pok"),
            Signer::Sok(number) => write!(f, "sok:{number}"),
        }
    }
}

/// A user signet that verified under a valid org signet. Only [`validate`]
/// makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidUserSignet {
    signet: Signet,
    signers: Vec<(u8, Signer)>,
}

impl ValidUserSignet {
    pub fn signet(&self) -> &Signet {
        &self.signet
    }

    /// For each signature field of the organization, who made it (A11: they
    /// may differ).
    pub fn signers(&self) -> &[(u8, Signer)] {
        &self.signers
    }
}

/// Checks a user signet against a valid org signet and, at level
/// [`Level::Id`], its identifier against `name`.
///
/// Refused: not a user signet (`structure`), no deciding signature
/// (`incomplete`), the user's own signature (`G1`), an organizational
/// signature that neither the POK nor a secondary key with permission 0x01
/// made (`signer`, `G5`), another name in the identifier (`G2`).
pub fn validate(
    signet: &Signet,
    org: &ValidOrgSignet,
    name: Option<&Address>,
) -> Result<ValidUserSignet, Rejection> {
    validate_own(signet)?;
    let mut signers = Vec::with_capacity(3);
    for id in [field::USER_CRYPTO_SIGNATURE, field::FULL_SIGNATURE, field::ID_SIGNATURE] {
        if signet.field(id).is_some() {
            let likely = signers.last().map(|(_, signer)| *signer);
            signers.push((id, signer_of(signet, id, org, likely)?));
        }
    }
    check_name(signet, name)?;
    Ok(ValidUserSignet { signet: signet.clone(), signers })
}

/// The part of [`validate`] that needs no org signet: kind, completeness, the
/// user's own signature. Says nothing about who the user is.
pub fn validate_own(signet: &Signet) -> Result<(), Rejection> {
    if signet.kind() != Kind::User {
        let message = format!("a signet of kind {} where a user signet belongs", signet.kind());
        return Err(Rejection::new("structure", message));
    }
    if signet.level() == Level::Incomplete {
        return Err(Rejection::new("incomplete", "the user signet lacks keys or signatures"));
    }
    check_own_signature(signet, "G1")
}

/// Checks a request: complete, and signed by its own key. Custody is
/// [`crate::dime::chain::custody`].
pub fn validate_request(signet: &Signet) -> Result<(), Rejection> {
    if signet.kind() != Kind::Ssr {
        let message = format!("a signet of kind {} where a request belongs", signet.kind());
        return Err(Rejection::new("structure", message));
    }
    if signet.level() == Level::Incomplete {
        return Err(Rejection::new("incomplete", "the request lacks keys or its signature"));
    }
    check_own_signature(signet, "signature")
}

/// Field 5 by field 1. Nobody in libdime checks it in a user signet (G1).
fn check_own_signature(signet: &Signet, rule: &'static str) -> Result<(), Rejection> {
    signet.verify_field(field::SSR_SIGNATURE, &signet.signing_key()).map_err(|refused| {
        let rule = if refused.rule == "signature" { rule } else { refused.rule };
        Rejection::new(rule, format!("field 5 by the user's own key: {}", refused.message))
    })
}

/// Finds the key that made field `id`, trying `likely` first.
fn signer_of(
    signet: &Signet,
    id: u8,
    org: &ValidOrgSignet,
    likely: Option<Signer>,
) -> Result<Signer, Rejection> {
    let soks = org.signers().iter().map(|(number, key)| (Signer::Sok(*number), *key));
    let mut keys: Vec<_> = std::iter::once((Signer::Pok, org.pok())).chain(soks).collect();
    keys.sort_by_key(|(signer, _)| Some(*signer) != likely);
    let mut strict = None;
    for (signer, key) in keys {
        match signet.verify_field(id, &key) {
            Ok(()) => return Ok(signer),
            Err(refused) if refused.rule == "G5" => strict = strict.or(Some(refused)),
            Err(_) => {}
        }
    }
    Err(match strict {
        Some(refused) => Rejection::new("G5", format!("field {id}: {}", refused.message)),
        None => Rejection::new(
            "signer",
            format!("field {id} was made by neither the POK nor a key that may sign signets"),
        ),
    })
}

/// Rule `G2`: the whole address in lower case, the domain in A-labels (A28).
fn check_name(signet: &Signet, name: Option<&Address>) -> Result<(), Rejection> {
    let Some(identifier) = signet.identifier() else {
        return Ok(());
    };
    let signed: Address = identifier
        .parse()
        .map_err(|_| Rejection::new("G2", "the identifier is not a mail address"))?;
    match name {
        // Addresses stay out of messages, which reach log lines.
        Some(name) if *name != signed => {
            Err(Rejection::new("G2", "the identifier is another address than the one asked for"))
        }
        _ => Ok(()),
    }
}
