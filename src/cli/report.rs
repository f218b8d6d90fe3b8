//! A judged receipt in words that whoever runs mail understands, or as JSON.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use syndicate::client::Judgement;
use syndicate::dime::signet::{Level, Signet};
use syndicate::dime::{Dnssec, Name, Timestamp};
use syndicate::proof::Hash;
use syndicate::proof::entry::{Entry, Events, Kind, UserPayload};
use syndicate::proof::note::VerifierKey;
use syndicate::proof::receipt::{Backing, Content, Note, Receipt, Statement, Word};

use super::output;

/// Where the receipt comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Fetched,
    File,
}

/// A receipt and what it is worth.
pub struct Report<'a> {
    pub receipt: &'a Receipt,
    pub judgement: &'a Judgement,
    /// Show every version.
    pub history: bool,
    pub source: Source,
}

impl Report<'_> {
    /// Prints it; the exit code is 0 only if it is verified.
    pub fn print(&self, as_json: bool) -> ExitCode {
        if as_json {
            output::json_line(&self.json());
        } else {
            print!("{}", self.text());
        }
        ExitCode::from(if self.judgement.is_verified() { output::YES } else { output::NO })
    }

    fn json(&self) -> Value {
        let mut object = json!({
            "verified": self.judgement.is_verified(),
            "verdict": self.verdict(),
            "name": self.receipt.name.as_str(),
            "as_of": self.as_of().map(|time| time.to_string()),
        });
        let mut set = |key: &str, value: Value| {
            if let Some(object) = object.as_object_mut() {
                object.insert(key.to_owned(), value);
            }
        };
        if let Some(said) = self.judgement.statement() {
            set("word", json!(said.word.to_string()));
            set("version", json!(said.latest));
            set("current", json!(said.current));
            set("events", json!(names(said.events)));
            set("notes", json!(said.notes.iter().map(ToString::to_string).collect::<Vec<_>>()));
            set(
                "successor",
                json!(said.successor.as_ref().map(|next| json!({
                    "origin": next.origin, "log_key": hex::encode(next.log_key),
                }))),
            );
            set("held_until", json!(said.held_until.map(|time| time.to_string())));
            set("confirmed_at", json!(confirmed(said).map(|time| time.to_string())));
            set("fingerprints", signet(said).map_or(Value::Null, |signet| prints(&signet)));
            set("poks", json!(said.poks.iter().map(hex::encode).collect::<Vec<_>>()));
            set("log", json!({"origin": said.origin, "size": said.size, "vkey": vkey(said)}));
        }
        if let Some(backing) = self.judgement.backing() {
            let cosigners: Vec<&str> =
                backing.cosigners.iter().map(|(name, _)| name.as_str()).collect();
            let warnings: Vec<String> = backing.warnings.iter().map(ToString::to_string).collect();
            set("cosigners", json!(cosigners));
            set("warnings", json!(warnings));
        }
        if self.history {
            let rows: Vec<Value> = self.versions().iter().map(VersionLine::json).collect();
            set("versions", json!(rows));
        }
        if let Some((rule, message)) = self.error() {
            set("error", json!({"rule": rule, "message": message}));
        }
        object
    }

    /// One word for programs.
    fn verdict(&self) -> String {
        match self.judgement {
            Judgement::Verified(said, _) => said.word.to_string(),
            Judgement::Old(..) => "STALE".to_owned(),
            Judgement::SignerUnknown(_) => "consistent, signer unknown".to_owned(),
            Judgement::Refused(_) => "INVALID".to_owned(),
        }
    }

    fn error(&self) -> Option<(&'static str, String)> {
        match self.judgement {
            Judgement::Verified(..) => None,
            Judgement::Old(_, backing) => Some((
                "stale",
                format!("this was the latest as of {}, too long ago", backing.as_of),
            )),
            Judgement::SignerUnknown(_) => {
                Some(("signer-unknown", "no log key and no policy was given".to_owned()))
            }
            Judgement::Refused(fault) => Some((fault.rule(), fault.to_string())),
        }
    }

    /// Until when this is the latest; by the log's own clock where nobody else says.
    fn as_of(&self) -> Option<Timestamp> {
        match self.judgement {
            Judgement::Verified(_, backing) | Judgement::Old(_, backing) => Some(backing.as_of),
            Judgement::SignerUnknown(said) => Some(said.root_time),
            Judgement::Refused(_) => None,
        }
    }

    fn text(&self) -> String {
        let name = &self.receipt.name;
        let mut page = Page::default();
        match self.judgement {
            Judgement::Verified(..) => page.line(&format!("{name}: VERIFIED")),
            Judgement::Old(_, backing) => {
                page.line(&format!("{name}: NOT VERIFIED, too old"));
                page.line(&format!(
                    "It is genuine, and was the latest as of {}. That is longer ago than you \
                     allow (--max-age).",
                    backing.as_of
                ));
            }
            Judgement::SignerUnknown(_) => {
                page.line(&format!("{name}: NOT VERIFIED: consistent, signer unknown"));
                page.line(
                    "The answer agrees with itself, but anybody can make such an answer. Give \
                     the key of a log you believe (--log) or a policy (--policy).",
                );
            }
            Judgement::Refused(fault) => {
                page.line(&format!("{name}: NOT VERIFIED"));
                page.line(&format!("The answer does not hold: {fault} [{}].", fault.rule()));
                page.line(match self.source {
                    Source::Fetched => {
                        "Do not use any key from it. Either the mirror is at fault, or its answer \
                         was changed on the way, or your policy does not know its log."
                    }
                    Source::File => {
                        "Do not use any key from it. Either the file was changed, or your policy \
                         does not know its log."
                    }
                });
            }
        }
        if let Some(said) = self.judgement.statement() {
            self.facts(&mut page, said);
            if self.history {
                page.head("Every version, oldest first");
                for version in self.versions() {
                    page.item(&version.text());
                }
            }
            if let Some(backing) = self.judgement.backing() {
                page.head("Proved");
                for line in self.proved(said, backing) {
                    page.item(&line);
                }
            }
            let open = self.not_proved(said);
            if !open.is_empty() {
                page.head("Not proved");
                for line in open {
                    page.item(&line);
                }
            }
        }
        page.0
    }

    fn facts(&self, page: &mut Page, said: &Statement) {
        page.line("");
        page.fact("Verdict", &format!("{}: {}", said.word, meaning(said)));
        let clock = self.judgement.backing().is_none_or(|backing| !backing.quorum);
        let as_of = self.as_of().unwrap_or(said.root_time);
        page.fact(
            "Latest as of",
            &format!("{as_of}{}", if clock { " (by the log's own clock)" } else { "" }),
        );
        if said.latest > 0 {
            let in_force = match said.current {
                0 => "none in force".to_owned(),
                current if current == said.latest => "in force".to_owned(),
                current => format!("version {current} in force"),
            };
            page.fact("Version", &format!("{} ({in_force})", said.latest));
            if !said.events.is_empty() {
                page.fact("Events", &names(said.events).join(", "));
            }
        }
        if let Some(signet) = signet(said) {
            for (i, (level, print)) in fingerprints(&signet).into_iter().enumerate() {
                page.fact(if i == 0 { "Fingerprint" } else { "" }, &format!("{level:<7}{print}"));
            }
        }
        if matches!(said.name, Name::Domain(_)) {
            for pok in &said.poks {
                page.fact("POK", &hex::encode(pok));
            }
        }
        if let Some(dnssec) = said.dnssec {
            page.fact("DNSSEC", &dnssec.to_string());
        }
        if said.latest > 0 {
            let seen = confirmed(said).map_or("not known".to_owned(), |time| time.to_string());
            page.fact("Last served", &format!("{seen} (the log's word)"));
        }
        if let Some(until) = said.held_until {
            page.fact("Held until", &until.to_string());
        }
        page.fact("Log", &format!("{}, {} entries", said.origin, said.size));
        if let Some(vkey) = vkey(said) {
            page.fact("", &vkey);
        }
        if let Some(backing) = self.judgement.backing() {
            let signers: Vec<String> =
                backing.cosigners.iter().map(|(name, time)| format!("{name} at {time}")).collect();
            let signers = match signers.is_empty() {
                true => "nobody but the log".to_owned(),
                false => signers.join(", "),
            };
            page.fact("Cosigned by", &signers);
        }
        for note in &said.notes {
            page.fact("Note", &explain(note));
        }
        if let Some(next) = &said.successor {
            let key = VerifierKey::ed25519(&next.origin, &next.log_key);
            page.fact(
                "Successor",
                &key.map_or_else(|_| next.origin.clone(), |key| key.to_string()),
            );
        }
        if let Some(backing) = self.judgement.backing() {
            for warning in &backing.warnings {
                page.fact("Warning", &format!("your policy: {warning}"));
            }
        }
    }

    fn proved(&self, said: &Statement, backing: &Backing) -> Vec<String> {
        let mut lines = vec![format!(
            "The log {} signed its state of {} entries{}.",
            said.origin,
            said.size,
            match backing.cosigners.len() {
                0 => String::new(),
                n => format!(", and {n} of your cosigners signed the same state"),
            }
        )];
        let name = &said.name;
        if said.latest == 0 {
            lines.push(format!("In that state the log holds nothing of {name}."));
            return lines;
        }
        lines.push(match self.history {
            true => format!(
                "These are all versions of {name} from {} on, none left out, and {} is the newest.",
                said.latest - self.receipt.subject.items.len() as u64 + 1,
                said.latest
            ),
            false => format!("Version {} is the newest that it holds of {name}.", said.latest),
        });
        if said.content == Content::Checked {
            lines.push(match name {
                Name::Domain(_) => {
                    "The management record has these POKs, and one of them signed the org signet."
                        .to_owned()
                }
                Name::Address(_) => {
                    "The organization signed this signet, with a key that its POK vouches for."
                        .to_owned()
                }
            });
        }
        match dnssec_evidence(said) {
            Some(Dnssec::Secure) => lines.push(
                "DNS gave this record when it was logged: the kept chain of signatures leads to \
                 the root."
                    .to_owned(),
            ),
            Some(Dnssec::Insecure) => lines.push(
                "DNS did not sign this record: the root's chain proves that the zone is unsigned."
                    .to_owned(),
            ),
            _ => {}
        }
        lines
    }

    fn not_proved(&self, said: &Statement) -> Vec<String> {
        let mut lines = Vec::new();
        match self.judgement.backing() {
            None => lines.push("Who signed it.".to_owned()),
            Some(backing) if !backing.quorum => lines.push(
                "That everybody is shown the same log: no cosigner is asked for. The log alone \
                 says that it is complete and fresh."
                    .to_owned(),
            ),
            Some(_) => {}
        }
        if said.dnssec.is_some() && dnssec_evidence(said) != Some(Dnssec::Secure) {
            lines.push(
                "That DNS really gave this record: that rests on the mirror's word.".to_owned(),
            );
        }
        if let Content::Unchecked { left_out, withdrawn } = &said.content {
            lines.push(format!(
                "What the signets say: {} of their bytes are not here, {} were withdrawn.",
                left_out.len(),
                withdrawn.len()
            ));
        }
        if said.latest > 0 {
            lines.push("That the mail host serves you the same key: compare fingerprints.".into());
        }
        lines
    }

    /// Each version that the receipt holds.
    fn versions(&self) -> Vec<VersionLine> {
        let blobs: BTreeMap<Hash, &[u8]> = self
            .receipt
            .blobs
            .iter()
            .map(|blob| (Sha256::digest(blob).into(), blob.as_ref()))
            .collect();
        let items = self.receipt.subject.items.iter();
        items
            .filter_map(|item| {
                let entry = Entry::decode(&item.entry).ok()?;
                let (version, current, events, named) = match &entry.kind {
                    Kind::Domain(seen) => {
                        let signet = seen.org_signet.map(|blob| blob.sha256);
                        (seen.version, seen.current, names(seen.events), signet)
                    }
                    Kind::User(seen) => {
                        let hidden = item.hidden.as_ref();
                        let payload = hidden.and_then(|h| UserPayload::decode(&h.payload).ok());
                        let signet = payload.and_then(|p| p.signet).map(|facts| facts.sha256);
                        (seen.version, seen.current, names(seen.events), signet)
                    }
                    Kind::Forgotten(gone) => (gone.version, 0, vec!["FORGOTTEN"], None),
                    _ => return None,
                };
                let bytes = named.and_then(|hash| blobs.get(&hash));
                let signet = bytes.and_then(|bytes| Signet::decode(bytes).ok());
                Some(VersionLine { version, current, time: entry.time, events, signet })
            })
            .collect()
    }
}

/// One version of a history.
struct VersionLine {
    version: u64,
    current: u64,
    time: Timestamp,
    events: Vec<&'static str>,
    signet: Option<Signet>,
}

impl VersionLine {
    fn json(&self) -> Value {
        json!({
            "version": self.version,
            "current": self.current,
            "time": self.time.to_string(),
            "events": self.events,
            "fingerprints": self.signet.as_ref().map(prints),
        })
    }

    fn text(&self) -> String {
        let print = self.signet.as_ref().and_then(|s| s.fingerprint(Level::Crypto));
        let print = print.map_or_else(String::new, |print| format!("  {print}"));
        let mark = if self.current == self.version { "" } else { " (not in force)" };
        format!("{} {} {}{mark}{print}", self.version, self.time, self.events.join(", "))
    }
}

/// Text in the making.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn head(&mut self, text: &str) {
        self.line("");
        self.line(&format!("{text}:"));
    }

    fn item(&mut self, text: &str) {
        self.line(&format!("  - {text}"));
    }

    fn fact(&mut self, key: &str, value: &str) {
        self.line(&format!("  {key:<13} {value}"));
    }
}

fn names(events: Events) -> Vec<&'static str> {
    events.iter().map(|event| event.name()).collect()
}

fn confirmed(said: &Statement) -> Option<Timestamp> {
    (said.confirmed_at != Timestamp::default()).then_some(said.confirmed_at)
}

fn signet(said: &Statement) -> Option<Signet> {
    Signet::decode(said.signet.as_deref()?).ok()
}

/// The log's key in the form that `--log` takes.
fn vkey(said: &Statement) -> Option<String> {
    VerifierKey::ed25519(&said.origin, &said.log_key).ok().map(|key| key.to_string())
}

/// Every fingerprint that is defined, by the level's name.
fn fingerprints(signet: &Signet) -> Vec<(&'static str, String)> {
    let levels = [("crypto", Level::Crypto), ("full", Level::Full), ("id", Level::Id)];
    levels
        .into_iter()
        .filter_map(|(name, level)| Some((name, signet.fingerprint(level)?.to_string())))
        .collect()
}

fn prints(signet: &Signet) -> Value {
    let object =
        fingerprints(signet).into_iter().map(|(level, print)| (level.into(), json!(print)));
    Value::Object(object.collect())
}

fn meaning(said: &Statement) -> &'static str {
    match said.word {
        Word::Absent => "the log holds nothing of this name.",
        Word::Forgotten => "the owner had this mailbox erased.",
        Word::NoneInForce => "there was a key, and none is in force any more.",
        Word::Held => {
            "a new key came without the old one's consent, and is too fresh to be relied on. \
             Ask its owner before you use it."
        }
        Word::Withdrawn => {
            "the mail host no longer serves it; this is the last one that was in force."
        }
        Word::Unchecked => {
            "the log vouches for a hash; the signet itself was not all here to be checked."
        }
        Word::Unconfirmed => {
            "this key is in force, but the mirror has not seen the mail host serve it for too long."
        }
        Word::Valid => "this key is in force.",
    }
}

fn explain(note: &Note) -> String {
    match note {
        Note::SignerRetired => "a key that signed the signet is no longer the domain's".into(),
        Note::SignerNotCompared => {
            "whether the signing key is still the domain's could not be seen".into()
        }
        Note::NameUnsigned => {
            "the organization's signature does not cover the name; it rests on the log's word"
                .into()
        }
        Note::LogClock => "completeness and age rest on the log and its clock alone".into(),
        Note::DnssecNotSecure(status) => {
            format!("the domain's record was not protected by DNSSEC ({status})")
        }
        Note::DomainNotInForce => "the domain has no record in force any more".into(),
        Note::DomainEvents(events) => {
            format!("what happened to the domain last: {}", names(*events).join(", "))
        }
        Note::Withdrawn(count) => format!("the operator withdrew {count} of the files named here"),
        Note::NoOrgSignet => "the log has no org signet of this domain".into(),
        Note::DnssecUnchecked => {
            "the DNSSEC chain does not lead to the root key used here: on the mirror's word".into()
        }
        Note::LogClosed => {
            "this log has ended: ask its successor, once you know that log's key to be right".into()
        }
    }
}

/// The DNSSEC status that the receipt's chain proves, if it proves one.
fn dnssec_evidence(said: &Statement) -> Option<Dnssec> {
    let proved = said.content == Content::Checked && !said.notes.contains(&Note::DnssecUnchecked);
    said.dnssec.filter(|_| proved)
}
