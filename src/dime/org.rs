//! From a decoded org signet to a [`ValidOrgSignet`].
//!
//! An org signet is valid under one POK of the management record: its field 1
//! is that key, and that key made every signature. Secondary keys never sign
//! org signets (reference A26). What it leaves out: where the POKs come from.

use super::signet::{Kind, Level, SecondaryKey, Signet, field};
use super::{Domain, Rejection};

/// An org signet that verified against a POK. Only [`validate`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidOrgSignet {
    signet: Signet,
    signers: Vec<(usize, [u8; 32])>,
}

impl ValidOrgSignet {
    pub fn signet(&self) -> &Signet {
        &self.signet
    }

    /// The primary key it verified under: field 1, and one of the record's POKs.
    pub fn pok(&self) -> [u8; 32] {
        self.signet.signing_key()
    }

    /// The secondary keys that may sign signets (permission 0x01), each with
    /// its position among all secondary keys.
    pub fn signers(&self) -> &[(usize, [u8; 32])] {
        &self.signers
    }
}

/// Checks an org signet against the POKs of a management record and, at level
/// [`Level::Id`], its identifier against `name`.
///
/// Refused: not an org signet (`structure`), no deciding signature
/// (`incomplete`), field 1 is none of `poks` (`pok-mismatch`; the reference
/// calls it UNKNOWN, G8), a signature (`signature`, `G5`), another domain's
/// name or none at all in the identifier (`G2`).
pub fn validate(
    signet: &Signet,
    poks: &[[u8; 32]],
    name: Option<&Domain>,
) -> Result<ValidOrgSignet, Rejection> {
    if signet.kind() != Kind::Org {
        let message = format!("a signet of kind {} where an org signet belongs", signet.kind());
        return Err(Rejection::new("structure", message));
    }
    if signet.level() == Level::Incomplete {
        return Err(Rejection::new("incomplete", "the org signet lacks keys or signatures"));
    }
    let pok = signet.signing_key();
    if !poks.contains(&pok) {
        let message = format!("field 1 is none of the record's {} POKs", poks.len());
        return Err(Rejection::new("pok-mismatch", message));
    }
    for id in [field::ORG_CRYPTO_SIGNATURE, field::FULL_SIGNATURE, field::ID_SIGNATURE] {
        if signet.field(id).is_some() {
            signet.verify_field(id, &pok).map_err(|refused| {
                Rejection::new(refused.rule, format!("field {id} by the POK: {}", refused.message))
            })?;
        }
    }
    check_name(signet, name)?;
    let signers = signet
        .secondary_keys()
        .enumerate()
        .filter(|(_, key)| key.may(SecondaryKey::MAY_SIGN_SIGNETS))
        .map(|(number, key)| (number, key.key))
        .collect();
    Ok(ValidOrgSignet { signet: signet.clone(), signers })
}

/// Rule `G2`. Without an identifier the name rests on the channel (A12).
fn check_name(signet: &Signet, name: Option<&Domain>) -> Result<(), Rejection> {
    let Some(identifier) = signet.identifier() else {
        return Ok(());
    };
    let signed: Domain = identifier
        .parse()
        .map_err(|_| Rejection::new("G2", "the identifier is not a domain name"))?;
    match name {
        Some(name) if *name != signed => {
            let message = format!("the identifier names {signed}, not {name}");
            Err(Rejection::new("G2", message))
        }
        _ => Ok(()),
    }
}
