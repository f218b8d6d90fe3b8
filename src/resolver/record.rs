//! What DNS says of a domain's management record: under both names and, where
//! the record of an ancestor may decide, above (reference §1.1, §1.7).
//!
//! Left out: what the record means, and whether a bogus answer is believed.

use std::iter;

use futures::future::join_all;

use super::{Answer, Error, Resolver, weaker};
use crate::dime::record::{self, Governing, Label, Selection};
use crate::dime::{Dnssec, Domain, suffix};

/// TTL that a denial counts as, at most, seconds.
const ABSENCE_TTL: u32 = 3600;

/// The record that counts at a domain, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub selection: Selection,
    /// Whether both names have something, and not the same POKs. `None`: the
    /// other name could not be asked.
    pub conflict: Option<bool>,
    /// The texts at the other name, if those conflict.
    pub other: Vec<Vec<u8>>,
    /// The weakest of all that was asked.
    pub dnssec: Dnssec,
    /// Seconds.
    pub ttl: u32,
}

/// Asks for the record that counts at a domain: its own, or one above (§1.7).
/// All names are asked at once, and one that fails fails the whole: whoever can
/// stop an answer must not choose the record.
///
/// # Errors
/// [`Error::Bogus`] if any of the answers is, whatever else failed.
pub async fn find(resolver: &dyn Resolver, domain: &Domain) -> Result<Found, Error> {
    let names: Vec<Domain> = iter::once(domain.clone()).chain(suffix::ancestors(domain)).collect();
    let asked = join_all(names.iter().map(|name| at(resolver, name))).await;
    let mut answers = Vec::new();
    let mut failure = None;
    for answer in asked {
        match answer {
            Ok(found) => answers.push(found),
            Err(bogus @ Error::Bogus { .. }) => return Err(bogus),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let (dnssec, ttl) = answers.iter().fold((Dnssec::Secure, u32::MAX), |weakest, found| {
        (weaker(weakest.0, found.dnssec), weakest.1.min(found.ttl))
    });
    let selections: Vec<&Selection> = answers.iter().map(|found| &found.selection).collect();
    let governing = selections.split_first().map(|(own, above)| record::govern(own, above));
    let number = match governing {
        Some(Governing::Own) => Some(0),
        Some(Governing::Ancestor(at)) => Some(at + 1),
        Some(Governing::Nothing) | None => None,
    };
    let (selection, other) = (Selection::None, Vec::new());
    let nothing = Found { selection, conflict: None, other, dnssec, ttl };
    Ok(match number.filter(|number| *number < answers.len()) {
        Some(number) => Found { dnssec, ttl, ..answers.swap_remove(number) },
        None => nothing,
    })
}

/// What is at one domain: both names at once (§1.1). A name that fails cannot
/// make the other count: an attacker must not choose.
async fn at(resolver: &dyn Resolver, domain: &Domain) -> Result<Found, Error> {
    let (dime_name, dx_name) = (format!("_dime.{domain}"), format!("_dx.{domain}"));
    let (dime, dx) = tokio::join!(resolver.txt(&dime_name), resolver.txt(&dx_name));
    // Forged for those who ask for `_dx` only, and do not validate.
    let (dime, dx) = match (dime, dx) {
        (_, Err(bogus @ Error::Bogus { .. })) => return Err(bogus),
        (dime, dx) => (dime?, dx),
    };
    let selection = record::select(&dime.records);
    let dx = match dx {
        Ok(dx) => dx,
        Err(_) if selection != Selection::None => return Ok(found(selection, None, &dime)),
        Err(error) => return Err(error),
    };
    let chosen = record::choose(selection, record::select(&dx.records));
    let conflict = Some(chosen.conflict);
    Ok(match (&chosen.selection, chosen.label) {
        (Selection::None, _) => {
            // Nothing at both: as good as the weaker denial.
            let dnssec = weaker(dime.dnssec, dx.dnssec);
            let ttl = dime.ttl.min(dx.ttl).min(ABSENCE_TTL);
            found(chosen.selection, conflict, &Answer { dnssec, ttl, ..dime })
        }
        (_, Label::Dime) => {
            let other = if chosen.conflict { dx.records } else { Vec::new() };
            Found { other, ..found(chosen.selection, conflict, &dime) }
        }
        // That `_dime` has nothing is part of the answer.
        (_, Label::Dx) => {
            let dnssec = weaker(dime.dnssec, dx.dnssec);
            found(chosen.selection, conflict, &Answer { dnssec, ..dx })
        }
    })
}

fn found<T>(selection: Selection, conflict: Option<bool>, answer: &Answer<T>) -> Found {
    let (dnssec, ttl) = (answer.dnssec, answer.ttl);
    Found { selection, conflict, other: Vec::new(), dnssec, ttl }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::FixedResolver;

    /// §1.1: one of the two that does not verify is no silence.
    #[tokio::test]
    async fn a_bogus_answer_counts_at_either_name() {
        let domain: Domain = "a.example".parse().unwrap();
        let text = record::Template { poks: vec![[7; 32]], ..Default::default() };
        for (bogus, other) in [("_dx", "_dime"), ("_dime", "_dx")] {
            let resolver = FixedResolver::new(Dnssec::Secure);
            resolver.set_txt(&format!("{other}.{domain}"), &[&text.text()], Dnssec::Secure);
            assert!(find(&resolver, &domain).await.is_ok(), "{other}");
            let name = format!("{bogus}.{domain}");
            resolver.say_txt(&name, Err(Error::Bogus { name: name.clone() }));
            let found = find(&resolver, &domain).await;
            assert!(matches!(found, Err(Error::Bogus { .. })), "{bogus}: {found:?}");
        }
    }
}
