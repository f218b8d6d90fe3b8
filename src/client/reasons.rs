//! A check in plain words, for whoever runs mail.

use super::ask::{Proof, Said};
use super::check::{Answer, Check, Options};
use super::verdict::{Standing, Verdict};
use crate::dime::{Dnssec, Name};

/// The weightiest first: what the verdict rests on, then what there is to say of
/// one's own view and of each answer that does not agree.
pub(super) fn of(check: &Check, options: &Options) -> Vec<String> {
    let mut reasons = vec![head(check, options)];
    if let Some(lack) = &check.lack {
        reasons.push(format!("Seen from here: {lack}."));
    }
    if let (Some(named), Some(seen)) = (&options.fingerprint, check.view.signet(&check.name))
        && !seen.matches(named)
    {
        reasons.push("The mail host shows another key than the fingerprint you gave.".to_owned());
    }
    if let Some(dnssec) = check.view.dnssec.filter(|dnssec| *dnssec != Dnssec::Secure) {
        reasons.push(format!(
            "DNS does not protect the domain's record ({dnssec}): whoever is on the way to you \
             can change it."
        ));
    }
    let others = check.answers.iter().filter(|answer| answer.standing != Some(Standing::Agrees));
    reasons.extend(others.map(|answer| format!("{}: {}.", answer.from, answer.words())));
    reasons
}

fn head(check: &Check, options: &Options) -> String {
    let Check { agreeing, needed, operators, .. } = check;
    let nobody = options.policy.is_none();
    match check.verdict {
        Verdict::Agreed => format!(
            "{agreeing} of {operators} operators of your policy prove the key that is seen here \
             ({needed} are needed)."
        ),
        Verdict::Unknown if nobody => {
            "You named nobody to believe, so nothing that was answered counts. Give a policy \
             (--policy) or the key of a log (--log)."
                .to_owned()
        }
        Verdict::Unknown => format!(
            "Only {agreeing} of the {needed} operators that are needed prove this key; the others \
             do not know the name, or cannot be compared."
        ),
        Verdict::Split if check.forked() => {
            "A log has signed two histories that contradict each other. Nothing from it can be \
             believed."
                .to_owned()
        }
        Verdict::Split
            if check.view.signet(&check.name).is_none() && options.fingerprint.is_none() =>
        {
            "Logs of your policy contradict each other: each proves a key that the other never \
             had. Use neither: ask the owner another way."
                .to_owned()
        }
        Verdict::Split if check.incidents.is_empty() => {
            "Your logs never had the key of the fingerprint that you gave: they prove another one. \
             See whether it is whole and of this name; if it is, you are shown another key than \
             its owner has. Ask the owner another way."
                .to_owned()
        }
        Verdict::Split => {
            "The key seen here is not the one that your logs prove, now or before. Do not use it: \
             either somebody shows you a forged key, or its owner lost the old one within the \
             last hours. Ask the owner another way."
                .to_owned()
        }
        Verdict::Unreachable if check.is_behind() => format!(
            "All logs that answered are ahead of this machine's clock, which says {}. Set the \
             clock, and ask again.",
            check.at
        ),
        Verdict::Unreachable => format!(
            "Too few logs of your policy could be asked: {agreeing} agree, {needed} are needed. \
             That says nothing about the key."
        ),
        Verdict::Held => {
            "The key was changed without the old key's consent not long ago. Everybody sees the \
             new one, but it may be a thief's: ask its owner before you use it."
                .to_owned()
        }
        Verdict::Lagging if check.is_unheard_of() => {
            "A primary key that none of your logs has signed what is seen here, beside one that \
             they have: its owner is changing keys, or somebody forges that. Do not use what it \
             signs before your logs have it: ask again in an hour."
                .to_owned()
        }
        Verdict::Lagging => format!(
            "An older key is in play: only {agreeing} of the {needed} operators that are needed \
             have the key seen here as the latest. Ask again in an hour."
        ),
        Verdict::Unconfirmed if check.view.sights.tip().is_none() => {
            "No key could be seen from here, so there is nothing to compare with what the logs \
             prove."
                .to_owned()
        }
        Verdict::Unconfirmed => format!(
            "What the logs prove is too old to rely on: {agreeing} of the {needed} operators that \
             are needed have seen the key lately."
        ),
    }
}

impl Check {
    /// Whether a log was caught with two histories.
    pub fn forked(&self) -> bool {
        self.answers.iter().any(|answer| matches!(answer.said, Said::Fork(..)))
    }

    /// Whether every log that answered is ahead of the clock here.
    fn is_behind(&self) -> bool {
        let mut early = self.answers.iter().map(|answer| matches!(answer.said, Said::Early(_)));
        let answered = self.answers.iter().filter(|answer| {
            !matches!(answer.said, Said::Silent(_) | Said::Claim(_) | Said::Early(_))
        });
        early.any(|early| early) && answered.count() == 0
    }

    /// Whether a domain's keys are signed by a POK that no log has which answered:
    /// a rollover that they have yet to see, or a forgery that looks like one.
    fn is_unheard_of(&self) -> bool {
        let Some(org) = self.view.org.as_ref().filter(|_| matches!(self.name, Name::Domain(_)))
        else {
            return false;
        };
        let mut proofs = self.answers.iter().filter_map(|answer| answer.said.proof());
        proofs.all(|proof| !proof.statement.poks.contains(&org.pok()))
    }
}

impl Answer {
    /// What it said, without a stop at the end.
    pub fn words(&self) -> String {
        match &self.said {
            Said::Proof(proof) => proof_words(proof, self.standing),
            Said::Fork(key, fork) => format!(
                "the log {} signed two histories, of {} and of {} entries, of which none \
                 continues the other",
                key.name(),
                fork.smaller.checkpoint().size,
                fork.larger.checkpoint().size
            ),
            Said::Claim(words) => format!("{words} (a claim, which counts for nothing)"),
            Said::Refused(why) => format!("its answer does not hold: {why}"),
            Said::Early(why) => format!("its answer is not of this machine's time: {why}"),
            Said::Silent(why) => format!("no answer: {why}"),
        }
    }
}

fn proof_words(proof: &Proof, standing: Option<Standing>) -> String {
    let said = &proof.statement;
    let log = &said.origin;
    let seen = match said.confirmed_at.millis() {
        0 => "never since it was logged".to_owned(),
        _ => format!("last at {}", said.confirmed_at),
    };
    match standing {
        None | Some(Standing::Unsure) => {
            format!("the log {log} has another key, and does not show enough to say what it is")
        }
        Some(Standing::Agrees) => {
            format!("the log {log} has this key as the latest (version {}), {seen}", said.current)
        }
        Some(Standing::Held) => format!(
            "the log {log} holds this key back until {}: it came without the old key's consent",
            said.held_until.unwrap_or_default()
        ),
        Some(Standing::Behind) => {
            format!("the log {log} has an older key, which it saw {seen}")
        }
        Some(Standing::Ahead) => format!(
            "the key seen here is an old one; the log {log} has a newer one, which it saw {seen}"
        ),
        Some(Standing::Older) => format!(
            "the log {log} was shown in an older state ({} entries) than it has had before",
            said.size
        ),
        Some(Standing::Apart) => {
            format!("the log {log} proves another key, which it saw {seen}, and never had this one")
        }
        Some(Standing::Unconfirmed) if !proof.fresh => format!(
            "what the log {log} proves was the latest as of {}, too long ago",
            proof.backing.as_of
        ),
        Some(Standing::Unconfirmed) => {
            format!("the log {log} has seen its key {seen}, too long ago, or it was withdrawn")
        }
        Some(Standing::Absent) => {
            format!("the log {log} has no key of this name in force ({})", said.word)
        }
    }
}
