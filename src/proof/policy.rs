//! Whom a client believes: a trust policy file (c2sp.org/tlog-policy), and what
//! it says of a checkpoint at a time.
//!
//! The file is the standard's. What the standard has no words for stands in
//! comment lines that begin with `#!`, so that its other readers skip them;
//! here a line of that kind that is not understood is refused:
//!
//! ```text
//! #! operator <operator> <name> [<name> ...]   logs (by key name) and witnesses of one operator
//! #! max-age <seconds>                         oldest cosignature that counts; 3600 by default
//! #! max-observation-age <seconds>             oldest confirmation of a key; 172800 by default
//! ```
//!
//! A cosigner counts for nothing for a log of its own operator. These share an
//! operator without being told: a witness and a log with one public key or one
//! URL, or where the name of the witness, or of its key, is that of the log's key,
//! or its key's is `<origin>/cosigner`; and two keys of one origin.
//!
//! A group with the name `replaying` holds the witnesses whose published
//! statement is that they recompute the directory. Where it exists, f+1 of its
//! operators must be among those counted, whatever the quorum says.
//!
//! What is left out: the age of a directory root, on which a policy with
//! `quorum none` rests. The reader of the root compares it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use super::checkpoint::SignedCheckpoint;
use super::note::{KeyType, Note, VerifierKey};
use crate::dime::{Rejection, Timestamp};

/// Longest policy file, bytes.
pub const MAX_POLICY: usize = 1024 * 1024;
/// Most logs, witnesses and groups, of each (the standard asks for 32).
pub const MAX_MEMBERS: usize = 256;
/// Oldest cosignature that counts, milliseconds: six heartbeats.
pub const MAX_AGE: u64 = 3_600_000;
/// Oldest confirmation that a key is still served, milliseconds: 48 hours.
pub const MAX_OBSERVATION_AGE: u64 = 48 * 3_600_000;
/// How far ahead a cosigner's clock may be, milliseconds.
pub const MAX_FUTURE: u64 = 300_000;
/// Largest age a policy may set, seconds: a hundred years.
const MAX_AGE_SECONDS: u64 = 100 * 366 * 86_400;

/// The group whose members replay.
const REPLAYING: &[u8] = b"replaying";
/// What follows the origin in the name of a mirror's cosigner key.
const COSIGNER: &str = "/cosigner";
/// One operator, in the unit in which a quorum is measured. Divisible by 1 to 16.
const ONE_OPERATOR: u64 = 720_720;

/// A trust policy, read from its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    quorum: Option<Member>,
    /// Oldest cosignature that counts, milliseconds.
    pub max_age: u64,
    /// Oldest confirmation that a key is still served, milliseconds. For the
    /// reader of a receipt; nothing here uses it.
    pub max_observation_age: u64,
}

/// A log that is believed, as far as the quorum bears it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its name is the origin.
    pub key: VerifierKey,
    /// Where to ask; not what to believe.
    pub url: Option<String>,
    operator: usize,
}

/// A cosigner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    name: Vec<u8>,
    pub key: VerifierKey,
    pub url: Option<String>,
    operator: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: Vec<u8>,
    /// 1 to the number of members.
    threshold: usize,
    members: Vec<Member>,
}

/// Index into witnesses or groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    Witness(usize),
    Group(usize),
}

/// What a policy says of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'p> {
    /// Whose checkpoint it is.
    pub log: &'p Log,
    /// The witnesses whose cosignature verified, in the order of the note.
    pub cosigners: Vec<Cosigner<'p>>,
    pub quorum: Quorum,
    /// `None` if the policy has no group `replaying`.
    pub replaying: Option<Replaying>,
    /// The latest time of which quorum and replaying group both speak,
    /// whatever the maximum age. `None` if they never do, or are not asked for.
    pub as_of: Option<Timestamp>,
    pub warnings: Vec<Warning>,
}

/// A verified cosignature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosigner<'p> {
    pub witness: &'p Witness,
    /// When it was made; whole seconds.
    pub time: Timestamp,
    pub standing: Standing,
}

/// Whether a cosignature is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Counted,
    /// Older than the maximum age.
    Stale,
    /// More than 5 minutes ahead.
    Future,
    /// By the log's own operator.
    OwnOperator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// `quorum none`: nothing but the log's word and clock.
    NotAsked,
    Met,
    /// The witnesses and groups on the way that lack something, innermost first.
    NotMet(Vec<Lack>),
}

/// A witness or group that was not satisfied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub name: String,
    pub needed: usize,
    pub counted: usize,
}

/// Operators of the group `replaying` among those counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaying {
    /// f+1, or all others where there are fewer.
    pub needed: usize,
    pub counted: usize,
}

/// Why an accepted checkpoint may still be worth less than it seems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The quorum holds with as few as `fewest` operators, of `others`; below
    /// `default` of them, liars among them can split the world.
    WeakQuorum { fewest: usize, default: usize, others: usize },
    /// The quorum can only be met with the log's own cosigner, so never.
    Unreachable,
    /// `quorum none`: everything rests on the log, its clock included.
    NoQuorum,
    /// No group `replaying`: nobody vouches for the directory.
    NoReplaying,
}

/// Most liars assumed among `others` cosigners: max(1, floor((n-1)/3)).
pub fn assumed_liars(others: usize) -> usize {
    (others.saturating_sub(1) / 3).max(1)
}

/// The least quorum among `others` cosigners that two histories cannot both
/// have: floor((n+f)/2)+1. Above n for n below 2, where none exists.
pub fn default_quorum(others: usize) -> usize {
    (others + assumed_liars(others)) / 2 + 1
}

impl Policy {
    /// Believes one log on its word alone: what `--log VKEY` means.
    pub fn of_log(key: VerifierKey) -> Result<Policy, Rejection> {
        let mut reader = Reader::default();
        reader.add_log(key, None)?;
        reader.quorum = Some(None);
        reader.finish()
    }

    /// Reads a policy file of at most 1 MiB. Rule `policy`, with the number of
    /// the line, or `vkey`.
    pub fn parse(file: &[u8]) -> Result<Policy, Rejection> {
        if file.len() > MAX_POLICY {
            return Err(refuse("longer than 1,048,576 bytes"));
        }
        let mut reader = Reader::default();
        for (number, line) in (1..).zip(file.split(|byte| *byte == b'\n')) {
            reader.read_line(line).map_err(|rejection| Rejection {
                message: format!("line {number}: {}", rejection.message),
                ..rejection
            })?;
        }
        reader.finish()
    }

    pub fn logs(&self) -> &[Log] {
        &self.logs
    }

    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// The log with this origin, if it is believed.
    pub fn log(&self, origin: &str) -> Option<&Log> {
        self.logs.iter().find(|log| log.key.name() == origin)
    }

    /// Whether two logs are run by one operator.
    pub fn same_operator(&self, one: &Log, other: &Log) -> bool {
        one.operator == other.operator
    }

    /// Whether a log and a witness are run by one operator.
    pub fn runs(&self, log: &Log, witness: &Witness) -> bool {
        log.operator == witness.operator
    }

    /// What this policy says of a checkpoint at this time.
    ///
    /// Rule `unknown-log` if no key of the checkpoint's origin is in the
    /// policy or none of them claims a signature; rule `signature` if a
    /// signature by any key of the policy fails or is there twice. A quorum
    /// that is not met is a verdict, not a rejection.
    pub fn evaluate(
        &self,
        signed: &SignedCheckpoint,
        now: Timestamp,
    ) -> Result<Verdict<'_>, Rejection> {
        let log = self.signing_log(&signed.checkpoint().origin, signed.note())?;
        let keys = self.logs.iter().map(|log| &log.key);
        let keys = keys.chain(self.witnesses.iter().map(|witness| &witness.key));
        let verified = signed.verify(keys)?;

        let mut cosigners = Vec::new();
        for signature in &verified {
            let witness = self.witnesses.iter().find(|witness| witness.key == *signature.key);
            if let (Some(witness), Some(time)) = (witness, signature.time) {
                let standing = self.standing(log, witness, time, now);
                cosigners.push(Cosigner { witness, time, standing });
            }
        }
        let counted: Vec<&Witness> = cosigners
            .iter()
            .filter(|cosigner| cosigner.standing == Standing::Counted)
            .map(|cosigner| cosigner.witness)
            .collect();
        Ok(Verdict {
            log,
            quorum: self.quorum(&counted),
            replaying: self.replaying(log, &counted),
            as_of: self.as_of(log, &cosigners),
            warnings: self.warnings(log),
            cosigners,
        })
    }

    /// The log of this origin that has signed, by its own word.
    fn signing_log(&self, origin: &str, note: &Note) -> Result<&Log, Rejection> {
        let signed = |log: &&Log| {
            log.key.kind() == KeyType::Ed25519
                && log.key.name() == origin
                && note.signatures().iter().any(|signature| log.key.claims(signature))
        };
        self.logs.iter().find(signed).ok_or_else(|| {
            let message = format!("no key of the policy has signed for the log {origin:?}");
            Rejection::new("unknown-log", message)
        })
    }

    fn standing(&self, log: &Log, witness: &Witness, time: Timestamp, now: Timestamp) -> Standing {
        if witness.operator == log.operator {
            Standing::OwnOperator
        } else if time > now.plus(MAX_FUTURE) {
            Standing::Future
        } else if now.since(time) > self.max_age {
            Standing::Stale
        } else {
            Standing::Counted
        }
    }

    fn quorum(&self, counted: &[&Witness]) -> Quorum {
        let Some(quorum) = self.quorum else { return Quorum::NotAsked };
        let mut lacks = Vec::new();
        match self.holds(quorum, counted, &mut lacks) {
            true => Quorum::Met,
            false => Quorum::NotMet(lacks),
        }
    }

    /// Whether a member is satisfied; if not, what it lacks is noted. Groups
    /// name only earlier ones, so this ends.
    fn holds(&self, member: Member, counted: &[&Witness], lacks: &mut Vec<Lack>) -> bool {
        let (name, needed, have) = match member {
            Member::Witness(index) => {
                let witness = &self.witnesses[index];
                (&witness.name, 1, usize::from(counted.contains(&witness)))
            }
            Member::Group(index) => {
                let group = &self.groups[index];
                let mut inner = Vec::new();
                let holds = |member: &&Member| self.holds(**member, counted, &mut inner);
                let have = group.members.iter().filter(holds).count();
                if have < group.threshold {
                    lacks.append(&mut inner);
                }
                (&group.name, group.threshold, have)
            }
        };
        if have < needed {
            lacks.push(Lack { name: lossy(name).into_owned(), needed, counted: have });
        }
        have >= needed
    }

    fn replaying(&self, log: &Log, counted: &[&Witness]) -> Option<Replaying> {
        let members = self.replaying_members()?;
        let others = self.others(log);
        let counted: BTreeSet<usize> = counted
            .iter()
            .filter(|witness| members.contains(witness))
            .map(|witness| witness.operator)
            .collect();
        let needed = (assumed_liars(others) + 1).min(others.max(1));
        Some(Replaying { needed, counted: counted.len() })
    }

    /// The witnesses in the group `replaying`, and in groups inside it.
    fn replaying_members(&self) -> Option<Vec<&Witness>> {
        let group = self.groups.iter().position(|group| group.name == REPLAYING)?;
        let mut members = Vec::new();
        let mut open = vec![Member::Group(group)];
        while let Some(member) = open.pop() {
            match member {
                Member::Witness(index) => members.push(&self.witnesses[index]),
                Member::Group(index) => open.extend(&self.groups[index].members),
            }
        }
        Some(members)
    }

    /// Operators of witnesses that can count for this log.
    fn others(&self, log: &Log) -> usize {
        let operators: BTreeSet<usize> =
            self.witnesses.iter().map(|witness| witness.operator).collect();
        operators.iter().filter(|operator| **operator != log.operator).count()
    }

    /// Takes cosignatures from the newest on until all that is asked holds.
    fn as_of(&self, log: &Log, cosigners: &[Cosigner]) -> Option<Timestamp> {
        let mut usable: Vec<&Cosigner> = cosigners
            .iter()
            .filter(|cosigner| matches!(cosigner.standing, Standing::Counted | Standing::Stale))
            .collect();
        usable.sort_by_key(|cosigner| std::cmp::Reverse(cosigner.time));
        (1..=usable.len()).find_map(|count| {
            let taken = &usable[..count];
            let witnesses: Vec<&Witness> = taken.iter().map(|cosigner| cosigner.witness).collect();
            let replaying = self.replaying(log, &witnesses);
            let holds = self.quorum(&witnesses).holds() && replaying.is_none_or(Replaying::holds);
            let asked = self.quorum.is_some() || replaying.is_some();
            (holds && asked).then(|| taken[count - 1].time)
        })
    }

    /// What is to be said of this policy for a log before any checkpoint of it.
    pub fn warnings(&self, log: &Log) -> Vec<Warning> {
        let Some(quorum) = self.quorum else { return vec![Warning::NoQuorum] };
        let others = self.others(log);
        let mut warnings = match self.fewest(quorum, log) {
            None => vec![Warning::Unreachable],
            Some(cost) => {
                let fewest = cost.div_ceil(ONE_OPERATOR) as usize;
                let default = default_quorum(others);
                let weak = Warning::WeakQuorum { fewest, default, others };
                if fewest < default { vec![weak] } else { vec![] }
            }
        };
        if self.replaying_members().is_none() {
            warnings.push(Warning::NoReplaying);
        }
        warnings
    }

    /// A lower bound for the operators that can satisfy a member, times
    /// [`ONE_OPERATOR`]; `None` if that takes the log's own. A witness weighs
    /// one over the number of witnesses of its operator, so that two of them
    /// never look like two operators.
    fn fewest(&self, member: Member, log: &Log) -> Option<u64> {
        match member {
            Member::Witness(index) => {
                let operator = self.witnesses[index].operator;
                let siblings = self.witnesses.iter().filter(|w| w.operator == operator).count();
                (operator != log.operator).then_some(ONE_OPERATOR / siblings as u64)
            }
            Member::Group(index) => {
                let group = &self.groups[index];
                let mut costs: Vec<u64> =
                    group.members.iter().filter_map(|member| self.fewest(*member, log)).collect();
                costs.sort_unstable();
                Some(costs.get(..group.threshold)?.iter().sum())
            }
        }
    }
}

impl Witness {
    /// Its name in the policy. Other octets than UTF-8 are replaced.
    pub fn name(&self) -> Cow<'_, str> {
        lossy(&self.name)
    }
}

impl Quorum {
    /// Nothing is missing.
    pub fn holds(&self) -> bool {
        !matches!(self, Quorum::NotMet(_))
    }
}

impl Replaying {
    pub fn holds(self) -> bool {
        self.counted >= self.needed
    }
}

impl Verdict<'_> {
    /// Whether the checkpoint is to be believed. With [`Quorum::NotAsked`] that
    /// is the log's word, and its age is that of the directory root.
    pub fn accepted(&self) -> bool {
        self.quorum.holds() && self.replaying.is_none_or(Replaying::holds)
    }

    /// The witnesses that count.
    pub fn counted(&self) -> impl Iterator<Item = &Cosigner<'_>> {
        self.cosigners.iter().filter(|cosigner| cosigner.standing == Standing::Counted)
    }
}

fn refuse(why: impl fmt::Display) -> Rejection {
    Rejection::new("policy", format!("not a trust policy: {why}"))
}

fn lossy(name: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(name)
}

/// The lines read so far.
#[derive(Default)]
struct Reader {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    /// Members that a group has already.
    taken: BTreeSet<Member>,
    quorum: Option<Option<Member>>,
    /// Names said to be of one operator, with that operator's.
    operators: Vec<(Vec<u8>, Vec<u8>)>,
    max_age: Option<u64>,
    max_observation_age: Option<u64>,
}

impl Reader {
    fn read_line(&mut self, line: &[u8]) -> Result<(), Rejection> {
        // SPEC: 09, 0A, 20-7E and 80-FF may occur.
        if line.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
            return Err(refuse("a control character"));
        }
        let fields: Vec<&[u8]> =
            line.split(|byte| b" \t".contains(byte)).filter(|field| !field.is_empty()).collect();
        match fields.as_slice() {
            [] => Ok(()),
            [b"#!", rest @ ..] => self.directive(rest),
            [comment, ..] if comment.starts_with(b"#!") => {
                Err(refuse("a space belongs after '#!'"))
            }
            [comment, ..] if comment.starts_with(b"#") => Ok(()),
            [b"log", key] => self.add_log(read_key(key)?, None),
            [b"log", key, url] => self.add_log(read_key(key)?, Some(read_url(url)?)),
            [b"witness", name, key] => self.add_witness(name, read_key(key)?, None),
            [b"witness", name, key, url] => {
                self.add_witness(name, read_key(key)?, Some(read_url(url)?))
            }
            [b"group", name, threshold, members @ ..] => self.add_group(name, threshold, members),
            [b"quorum", name] => self.set_quorum(name),
            [keyword, ..] => Err(refuse(format!(
                "{:?} is no keyword, or has not that many fields",
                lossy(&keyword[..keyword.len().min(32)])
            ))),
        }
    }

    fn directive(&mut self, fields: &[&[u8]]) -> Result<(), Rejection> {
        match fields {
            [b"operator", operator, names @ ..] if !names.is_empty() => {
                let pair = |name: &&[u8]| (operator.to_vec(), name.to_vec());
                self.operators.extend(names.iter().map(pair));
                Ok(())
            }
            [b"max-age", seconds] => set_age(&mut self.max_age, seconds),
            [b"max-observation-age", seconds] => set_age(&mut self.max_observation_age, seconds),
            _ => Err(refuse("a line with '#!' is not understood")),
        }
    }

    fn add_log(&mut self, key: VerifierKey, url: Option<String>) -> Result<(), Rejection> {
        if key.kind() == KeyType::Cosignature {
            return Err(refuse("a log's key cannot be that of a cosigner (type 04)"));
        }
        if self.logs.len() == MAX_MEMBERS {
            return Err(refuse("more than 256 logs"));
        }
        if self.logs.iter().any(|log| log.key.public_bytes() == key.public_bytes()) {
            return Err(refuse("two logs have one public key"));
        }
        self.check_id(&key)?;
        self.logs.push(Log { key, url, operator: 0 });
        Ok(())
    }

    fn add_witness(
        &mut self,
        name: &[u8],
        key: VerifierKey,
        url: Option<String>,
    ) -> Result<(), Rejection> {
        if key.kind() == KeyType::Ed25519 {
            return Err(refuse("a witness's key must be that of a cosigner (type 04)"));
        }
        if self.witnesses.len() == MAX_MEMBERS {
            return Err(refuse("more than 256 witnesses"));
        }
        if self.witnesses.iter().any(|other| other.key.public_bytes() == key.public_bytes()) {
            return Err(refuse("two witnesses have one public key"));
        }
        self.check_id(&key)?;
        self.check_new(name)?;
        self.witnesses.push(Witness { name: name.to_vec(), key, url, operator: 0 });
        Ok(())
    }

    /// Two keys that a signature line cannot tell apart were made to be so.
    fn check_id(&self, key: &VerifierKey) -> Result<(), Rejection> {
        let logs = self.logs.iter().map(|log| &log.key);
        let mut keys = logs.chain(self.witnesses.iter().map(|witness| &witness.key));
        let clash = |other: &VerifierKey| {
            other != key && other.name() == key.name() && other.id() == key.id()
        };
        match keys.any(clash) {
            true => Err(refuse("two keys have one name and one ID")),
            false => Ok(()),
        }
    }

    fn add_group(
        &mut self,
        name: &[u8],
        threshold: &[u8],
        members: &[&[u8]],
    ) -> Result<(), Rejection> {
        if self.groups.len() == MAX_MEMBERS {
            return Err(refuse("more than 256 groups"));
        }
        self.check_new(name)?;
        let members: Vec<Member> =
            members.iter().map(|member| self.member(member)).collect::<Result<_, _>>()?;
        let threshold = match threshold {
            b"any" => Some(1),
            b"all" => Some(members.len()),
            number => read_decimal(number).and_then(|number| usize::try_from(number).ok()),
        };
        let threshold = threshold
            .filter(|threshold| (1..=members.len()).contains(threshold))
            .ok_or_else(|| refuse("a group needs all, any, or 1 to the number of its members"))?;
        for member in &members {
            if !self.taken.insert(*member) {
                return Err(refuse("a witness or group is a member of two groups, or twice"));
            }
        }
        self.groups.push(Group { name: name.to_vec(), threshold, members });
        Ok(())
    }

    fn set_quorum(&mut self, name: &[u8]) -> Result<(), Rejection> {
        if self.quorum.is_some() {
            return Err(refuse("a second quorum"));
        }
        self.quorum = Some(if name == b"none" { None } else { Some(self.member(name)?) });
        Ok(())
    }

    /// A witness or group named before.
    fn member(&self, name: &[u8]) -> Result<Member, Rejection> {
        let witness = self.witnesses.iter().position(|witness| witness.name == name);
        let group = || self.groups.iter().position(|group| group.name == name);
        witness.map(Member::Witness).or_else(|| group().map(Member::Group)).ok_or_else(|| {
            refuse(format!("{:?} is not the name of an earlier witness or group", lossy(name)))
        })
    }

    fn check_new(&self, name: &[u8]) -> Result<(), Rejection> {
        if name == b"none" || self.member(name).is_ok() {
            return Err(refuse(format!("the name {:?} is taken", lossy(name))));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Policy, Rejection> {
        let quorum = self.quorum.ok_or_else(|| refuse("no line says what the quorum is"))?;
        self.join_operators()?;
        Ok(Policy {
            logs: self.logs,
            witnesses: self.witnesses,
            groups: self.groups,
            quorum,
            max_age: self.max_age.unwrap_or(MAX_AGE),
            max_observation_age: self.max_observation_age.unwrap_or(MAX_OBSERVATION_AGE),
        })
    }

    /// Gives every log and witness the number of its operator: each its own,
    /// until one of the reasons at the top of this file joins two.
    fn join_operators(&mut self) -> Result<(), Rejection> {
        let logs = self.logs.len();
        let mut of: Vec<usize> = (0..logs + self.witnesses.len()).collect();
        let mut join = |one: usize, other: usize| {
            let (from, to) = (of[one], of[other]);
            of.iter_mut().filter(|operator| **operator == from).for_each(|it| *it = to);
        };
        for (number, witness) in (logs..).zip(&self.witnesses) {
            for (log_number, log) in self.logs.iter().enumerate() {
                let name = log.key.name();
                let of_log = |key: &str| {
                    key.strip_prefix(name).is_some_and(|rest| ["", COSIGNER].contains(&rest))
                };
                if witness.key.public_bytes() == log.key.public_bytes()
                    || of_log(witness.key.name())
                    || witness.name == name.as_bytes()
                    || place(&witness.url).is_some_and(|at| Some(at) == place(&log.url))
                {
                    join(number, log_number);
                }
            }
        }
        // Two keys of one origin.
        for (number, log) in self.logs.iter().enumerate() {
            let same = self.logs.iter().position(|other| other.key.name() == log.key.name());
            join(number, same.unwrap_or(number));
        }
        let mut first_of = std::collections::BTreeMap::new();
        for (operator, name) in &self.operators {
            let named_logs = self.logs.iter().map(|log| log.key.name().as_bytes());
            let named = named_logs.chain(self.witnesses.iter().map(|w| w.name.as_slice()));
            let mut found = false;
            for (number, _) in named.enumerate().filter(|(_, other)| *other == name.as_slice()) {
                join(number, *first_of.entry(operator).or_insert(number));
                found = true;
            }
            if !found {
                let name = lossy(name);
                return Err(refuse(format!("an operator's {name:?} is no log and no witness")));
            }
        }
        for (log, operator) in self.logs.iter_mut().zip(&of) {
            log.operator = *operator;
        }
        for (witness, operator) in self.witnesses.iter_mut().zip(of.iter().skip(logs)) {
            witness.operator = *operator;
        }
        Ok(())
    }
}

fn read_key(text: &[u8]) -> Result<VerifierKey, Rejection> {
    std::str::from_utf8(text).map_err(|_| refuse("a key is not UTF-8"))?.parse()
}

fn read_url(text: &[u8]) -> Result<String, Rejection> {
    let text = std::str::from_utf8(text).map_err(|_| refuse("a URL is not UTF-8"))?;
    Ok(text.to_owned())
}

/// Where a log or witness is, as two lines may write it.
fn place(url: &Option<String>) -> Option<&str> {
    Some(url.as_ref()?.trim_end_matches('/'))
}

fn read_decimal(text: &[u8]) -> Option<u64> {
    super::checkpoint::parse_decimal(std::str::from_utf8(text).ok()?)
}

/// Sets an age, given in seconds, kept in milliseconds.
fn set_age(age: &mut Option<u64>, seconds: &[u8]) -> Result<(), Rejection> {
    let seconds = read_decimal(seconds).filter(|seconds| *seconds <= MAX_AGE_SECONDS);
    let seconds = seconds.ok_or_else(|| refuse("an age is a number of seconds, decimal"))?;
    match age.replace(seconds * 1000) {
        Some(_) => Err(refuse("an age is set twice")),
        None => Ok(()),
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} needs {} and has {}", self.name, self.needed, self.counted)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Counted => "counted",
            Standing::Stale => "stale",
            Standing::Future => "in the future",
            Standing::OwnOperator => "by the log's own operator",
        })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::WeakQuorum { fewest, default, others } => write!(
                f,
                "the quorum can hold with {fewest} of {others} other operators; {default} would \
                 keep two histories apart"
            ),
            Warning::Unreachable => {
                f.write_str("the quorum needs the log's own cosigner, which never counts")
            }
            Warning::NoQuorum => f.write_str("no quorum: all rests on the log and its clock"),
            Warning::NoReplaying => {
                f.write_str("no group 'replaying': no cosigner vouches for the directory")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::checkpoint::Checkpoint;
    use super::super::note::SigningKey;
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn log(name: &str) -> SigningKey {
        SigningKey::ed25519(name, &seed(name, 1)).unwrap()
    }

    fn cosigner(name: &str) -> SigningKey {
        SigningKey::cosigner(name, &seed(name, 4)).unwrap()
    }

    fn seed(name: &str, kind: u8) -> [u8; 32] {
        let mut seed = [kind; 32];
        seed[..name.len()].copy_from_slice(name.as_bytes());
        seed
    }

    /// A file with the log `log` and witnesses named as their keys are.
    fn file(witnesses: &[&str], rest: &str) -> String {
        let mut file = format!("log {}\n", log("log").verifier());
        for name in witnesses {
            file += &format!("witness {name} {}\n", cosigner(name).verifier());
        }
        file + rest
    }

    fn policy(witnesses: &[&str], rest: &str) -> Policy {
        Policy::parse(file(witnesses, rest).as_bytes()).unwrap()
    }

    fn refused(witnesses: &[&str], rest: &str) -> String {
        let rejection = Policy::parse(file(witnesses, rest).as_bytes()).unwrap_err();
        assert!(["policy", "vkey"].contains(&rejection.rule));
        rejection.message
    }

    /// A checkpoint of `log`, cosigned so many seconds after `NOW`.
    fn cosigned(cosigners: &[(&str, i64)]) -> SignedCheckpoint {
        let checkpoint = Checkpoint::new("log", 7, [7; 32]).unwrap();
        let mut signed = checkpoint.sign(&log("log"), NOW).unwrap();
        for (name, offset) in cosigners {
            let time = Timestamp::from_secs(NOW.secs().saturating_add_signed(*offset));
            let signature = signed.cosign(&cosigner(name), time);
            signed.add(&cosigner(name).verifier(), signature).unwrap();
        }
        signed
    }

    fn accepts(policy: &Policy, cosigners: &[(&str, i64)]) -> bool {
        policy.evaluate(&cosigned(cosigners), NOW).unwrap().accepted()
    }

    #[test]
    fn the_default_quorum() {
        let table: Vec<_> = (1..=10).map(default_quorum).collect();
        assert_eq!(table, [2, 2, 3, 3, 4, 4, 5, 6, 6, 7]);
        // Two quorums share more than the liars, so one history only.
        for n in 2..200 {
            let (k, f) = (default_quorum(n), assumed_liars(n));
            assert!(k <= n && 2 * k > n + f, "{n}");
        }
    }

    #[test]
    fn a_quorum_of_groups() {
        let policy = policy(
            &["a", "b", "c", "d", "e"],
            "group X 2 a b c\n# comment é\n\n \tgroup\tY any d e \ngroup both all X Y\nquorum both\n",
        );
        assert_eq!((policy.max_age, policy.max_observation_age), (3_600_000, 172_800_000));
        assert!(accepts(&policy, &[("a", 0), ("c", 0), ("e", 0)]));
        assert!(!accepts(&policy, &[("a", 0), ("b", 0), ("c", 0)]));
        let signed = cosigned(&[("b", 0), ("d", 0)]);
        let verdict = policy.evaluate(&signed, NOW).unwrap();
        let Quorum::NotMet(lacks) = &verdict.quorum else { panic!("{verdict:?}") };
        let lacks: Vec<_> = lacks.iter().map(Lack::to_string).collect();
        assert_eq!(
            lacks,
            [
                "a needs 1 and has 0",
                "c needs 1 and has 0",
                "X needs 2 and has 1",
                "both needs 2 and has 1"
            ]
        );
        assert_eq!(verdict.as_of, None);
    }

    /// Threat 1: a stale receipt with one fresh cosignature.
    #[test]
    fn one_fresh_and_old_cosignatures_are_refused() {
        let policy = policy(&["a", "b", "c"], "group q 2 a b c\nquorum q\n");
        let stale = cosigned(&[("a", -7_776_000), ("b", -7_776_000), ("c", 0)]);
        let verdict = policy.evaluate(&stale, NOW).unwrap();
        assert!(!verdict.accepted());
        assert_eq!(verdict.counted().count(), 1);
        // It says of when it speaks, so a caller may allow more.
        assert_eq!(verdict.as_of, Some(Timestamp::from_secs(NOW.secs() - 7_776_000)));
        let patient = Policy { max_age: 7_776_000_000, ..policy };
        assert!(patient.evaluate(&stale, NOW).unwrap().accepted());
    }

    #[test]
    fn the_window_of_time() {
        let policy = policy(&["a"], "quorum a\n");
        for (offset, standing) in [
            (-3_601, Standing::Stale),
            (-3_600, Standing::Counted),
            (0, Standing::Counted),
            (300, Standing::Counted),
            (301, Standing::Future),
        ] {
            let signed = cosigned(&[("a", offset)]);
            let verdict = policy.evaluate(&signed, NOW).unwrap();
            assert_eq!(verdict.cosigners[0].standing, standing, "{offset}");
            assert_eq!(verdict.accepted(), standing == Standing::Counted, "{offset}");
            // What lies in the future says nothing of any time.
            assert_eq!(verdict.as_of.is_some(), standing != Standing::Future);
        }
    }

    #[test]
    fn ages_are_set_in_the_file() {
        let policy = policy(&["a"], "#! max-age 60\n#!\tmax-observation-age 0\nquorum a\n");
        assert_eq!((policy.max_age, policy.max_observation_age), (60_000, 0));
        assert!(accepts(&policy, &[("a", -60)]) && !accepts(&policy, &[("a", -61)]));
    }

    /// Threat 2: whatever ties a witness to the log's operator.
    #[test]
    fn the_logs_own_cosigner_never_counts() {
        let same_key = SigningKey::cosigner("elsewhere", &seed("log", 1)).unwrap();
        let named = cosigner("log");
        for line in [
            format!("witness a {}\n", same_key.verifier()),
            format!("witness a {}\n", named.verifier()),
        ] {
            let own = if line.contains("elsewhere") { &same_key } else { &named };
            let policy = policy(&[], &format!("{line}quorum a\n"));
            assert_eq!(policy.warnings(&policy.logs()[0])[0], Warning::Unreachable);
            let mut signed = cosigned(&[]);
            let signature = signed.cosign(own, NOW);
            signed.add(&own.verifier(), signature).unwrap();
            let verdict = policy.evaluate(&signed, NOW).unwrap();
            assert_eq!(verdict.cosigners[0].standing, Standing::OwnOperator);
            assert!(!verdict.accepted() && verdict.as_of.is_none());
        }
        // By the name in the policy, and by the directive.
        let by_name = format!("witness log {}\nquorum log\n", cosigner("a").verifier());
        assert!(!accepts(&policy(&[], &by_name), &[("a", 0)]));
        let told = policy(&["a", "b"], "group q 1 a b\n#! operator alpha log a\nquorum q\n");
        assert!(!accepts(&told, &[("a", 0)]));
        assert!(accepts(&told, &[("b", 0)]));
    }

    #[test]
    fn operators_are_joined_across_lines() {
        let other = format!("log {}\n", log("second").verifier());
        let policy = policy(
            &["a", "b"],
            &format!(
                "{other}#! operator one log\n#! operator two a\n#! operator one second a\nquorum b\n"
            ),
        );
        assert!(policy.same_operator(&policy.logs()[0], &policy.logs()[1]));
        let signed = cosigned(&[("a", 0), ("b", 0)]);
        let verdict = policy.evaluate(&signed, NOW).unwrap();
        let standings: Vec<_> = verdict.cosigners.iter().map(|c| c.standing).collect();
        assert_eq!(standings, [Standing::OwnOperator, Standing::Counted]);
    }

    /// A mirror is one operator, told or not.
    #[test]
    fn a_log_s_own_cosigner_is_known_by_its_name_or_its_place() {
        let key = |name: &str| SigningKey::cosigner(name, &[9; 32]).unwrap().verifier();
        let own = |key: VerifierKey, urls: [&str; 2]| {
            let log = log("log").verifier();
            let file = format!(
                "log {log} {}\nwitness w {key} {}\ngroup replaying all w\nquorum none\n",
                urls[0], urls[1],
            );
            let policy = Policy::parse(file.as_bytes()).unwrap();
            policy.runs(&policy.logs()[0], &policy.witnesses()[0])
        };
        let apart = ["https://a.example", "https://b.example"];
        assert!(own(key("log/cosigner"), apart));
        assert!(own(key("other"), ["https://a.example/", "https://a.example"]));
        assert!(!own(key("log/cosigner/b"), apart));
        assert!(!own(key("logs/cosigner"), apart));
        assert!(!own(key("other"), ["", ""]));
    }

    #[test]
    fn replaying_witnesses_must_be_among_those_counted() {
        let file = "group replaying all a b c\ngroup plain any d e\ngroup q any plain replaying\nquorum q\n";
        let policy = policy(&["a", "b", "c", "d", "e"], file);
        let signed = cosigned(&[("a", 0), ("d", -9)]);
        let verdict = policy.evaluate(&signed, NOW).unwrap();
        assert_eq!(verdict.quorum, Quorum::Met);
        assert_eq!(verdict.replaying, Some(Replaying { needed: 2, counted: 1 }));
        assert!(!verdict.accepted() && verdict.as_of.is_none());
        let signed = cosigned(&[("a", 0), ("c", -40), ("d", -9)]);
        let verdict = policy.evaluate(&signed, NOW).unwrap();
        assert!(verdict.accepted());
        assert_eq!(verdict.as_of, Some(Timestamp::from_secs(NOW.secs() - 40)));
    }

    /// Two replaying witnesses of one operator are one voice.
    #[test]
    fn an_operator_replays_once() {
        let policy = policy(
            &["a", "b", "c"],
            "group replaying 2 a b c\n#! operator alpha a b\nquorum replaying\n",
        );
        assert!(!accepts(&policy, &[("a", 0), ("b", 0)]));
        assert!(accepts(&policy, &[("a", 0), ("c", 0)]));
        let weak = Warning::WeakQuorum { fewest: 1, default: 2, others: 2 };
        assert_eq!(policy.warnings(&policy.logs()[0]), [weak]);
    }

    #[test]
    fn weak_policies_are_warned_of() {
        let warnings = |witnesses: &[&str], rest: &str| {
            let policy = policy(witnesses, rest);
            policy.warnings(&policy.logs()[0])
        };
        assert_eq!(warnings(&["a"], "quorum none\n"), [Warning::NoQuorum]);
        let three = ["a", "b", "c"];
        let weak = Warning::WeakQuorum { fewest: 2, default: 3, others: 3 };
        assert_eq!(warnings(&three, "group replaying 2 a b c\nquorum replaying\n"), [weak]);
        assert_eq!(warnings(&three, "group replaying 3 a b c\nquorum replaying\n"), []);
        assert_eq!(warnings(&three, "group q 3 a b c\nquorum q\n"), [Warning::NoReplaying]);
        let own = "group replaying 2 a b c\n#! operator x log a\nquorum replaying\n";
        assert_eq!(warnings(&three, own), []);
        let own = "group replaying all a b c\n#! operator x log a\nquorum replaying\n";
        assert_eq!(warnings(&three, own), [Warning::Unreachable]);
        let nested =
            "group x 2 a b c\ngroup y any d e\ngroup replaying all x y\nquorum replaying\n";
        let weak = Warning::WeakQuorum { fewest: 3, default: 4, others: 5 };
        assert_eq!(warnings(&["a", "b", "c", "d", "e"], nested), [weak]);
        // One other mirror cannot be told from a liar.
        let weak = Warning::WeakQuorum { fewest: 1, default: 2, others: 1 };
        assert_eq!(warnings(&["a"], "group replaying all a\nquorum replaying\n"), [weak]);
    }

    #[test]
    fn a_log_on_its_own_word() {
        let policy = Policy::of_log(log("log").verifier()).unwrap();
        let signed = cosigned(&[("a", 0)]);
        let verdict = policy.evaluate(&signed, NOW).unwrap();
        assert!(verdict.accepted());
        assert_eq!((&verdict.quorum, verdict.as_of), (&Quorum::NotAsked, None));
        assert_eq!(verdict.warnings, [Warning::NoQuorum]);
        assert!(Policy::of_log(cosigner("a").verifier()).is_err());
    }

    #[test]
    fn logs_that_are_not_believed() {
        let policy = policy(&["a"], "quorum a\n");
        let rule = |signed: &SignedCheckpoint| policy.evaluate(signed, NOW).unwrap_err().rule;
        let other = Checkpoint::new("other", 7, [7; 32]).unwrap();
        assert_eq!(rule(&other.sign(&log("other"), NOW).unwrap()), "unknown-log");
        // The same name with another key.
        let key = SigningKey::ed25519("log", &[9; 32]).unwrap();
        let fake = Checkpoint::new("log", 7, [7; 32]).unwrap().sign(&key, NOW).unwrap();
        assert_eq!(rule(&fake), "unknown-log");
        // The log's key under another origin is another log.
        let text = cosigned(&[]).to_string().replacen("log\n", "gol\n", 1);
        let moved = SignedCheckpoint::parse(text.as_bytes()).unwrap();
        assert_eq!(rule(&moved), "unknown-log");
        // A signature of the log, or of a witness of the policy, that fails.
        let text = cosigned(&[("a", 0)]).to_string();
        let changed = SignedCheckpoint::parse(text.replacen("7\n", "8\n", 1).as_bytes()).unwrap();
        assert_eq!(rule(&changed), "signature");
        let doubled = text.clone() + text.lines().last().unwrap() + "\n";
        assert_eq!(rule(&SignedCheckpoint::parse(doubled.as_bytes()).unwrap()), "signature");
        // Witnesses outside the policy are nobody.
        assert!(accepts(&policy, &[("a", 0), ("stranger", 0)]));
        assert!(!accepts(&policy, &[("stranger", 0)]));
    }

    #[test]
    fn files_that_are_refused() {
        for (rest, why) in [
            ("", "no line says what the quorum is"),
            ("quorum none\nquorum none\n", "second quorum"),
            ("quorum a\nquorum b\n", "second quorum"),
            ("quorum x\n", "earlier"),
            ("quorum\n", "keyword"),
            ("Quorum a\n", "keyword"),
            ("frobnicate\nquorum a\n", "keyword"),
            ("quorum a b\n", "keyword"),
            ("group a any b\nquorum a\n", "taken"),
            ("group none any b\nquorum none\n", "taken"),
            ("group x any none\nquorum x\n", "earlier"),
            ("group x any x\nquorum x\n", "earlier"),
            ("group x any y\ngroup y any a\nquorum x\n", "earlier"),
            ("group x any a a\nquorum x\n", "two groups"),
            ("group x any a\ngroup y any a b\nquorum x\n", "two groups"),
            ("group x all\nquorum x\n", "1 to the number"),
            ("group x 0 a b\nquorum x\n", "1 to the number"),
            ("group x 3 a b\nquorum x\n", "1 to the number"),
            ("group x 02 a b\nquorum x\n", "1 to the number"),
            ("group x +2 a b\nquorum x\n", "1 to the number"),
            ("group x most a b\nquorum x\n", "1 to the number"),
            ("quorum a\r\n", "control"),
            ("quorum a\0\n", "control"),
            ("# \x7f\nquorum a\n", "control"),
            ("log nonsense\nquorum a\n", "verifier key"),
            ("#!\nquorum a\n", "understood"),
            ("#!max-age 5\nquorum a\n", "space"),
            ("#! max_age 5\nquorum a\n", "understood"),
            ("#! max-age\nquorum a\n", "understood"),
            ("#! max-age 5 s\nquorum a\n", "understood"),
            ("#! max-age 1h\nquorum a\n", "decimal"),
            ("#! max-age 9223372036854775807\nquorum a\n", "decimal"),
            ("#! max-age 5\n#! max-age 5\nquorum a\n", "twice"),
            ("#! operator x\nquorum a\n", "understood"),
            ("#! operator x c\nquorum a\n", "no log and no witness"),
        ] {
            let message = refused(&["a", "b"], rest);
            assert!(message.contains(why), "{rest:?}: {message}");
        }
        assert!(refused(&[], "group x any\n").starts_with("line 2: "));
    }

    #[test]
    fn keys_that_a_policy_refuses() {
        let twin = SigningKey::cosigner("twin", &seed("a", 4)).unwrap().verifier();
        assert!(refused(&["a"], &format!("witness twin {twin}\n")).contains("one public key"));
        let twin = SigningKey::ed25519("twin", &seed("log", 1)).unwrap().verifier();
        assert!(refused(&[], &format!("log {twin}\n")).contains("one public key"));
        let cosigner = cosigner("c").verifier();
        assert!(refused(&[], &format!("log {cosigner}\n")).contains("type 04"));
        let plain = log("c").verifier();
        assert!(refused(&[], &format!("witness c {plain}\n")).contains("type 04"));
        // A type that is not known here: read, for others, and it never counts.
        let mldsa = include_str!("../../tests/data/tlog/mldsa44.txt");
        let mldsa = mldsa.lines().find_map(|line| line.strip_prefix("vkey ")).unwrap();
        let policy = policy(&["a"], &format!("witness pq {mldsa} https://pq.example\nquorum a\n"));
        assert_eq!(policy.witnesses()[1].url.as_deref(), Some("https://pq.example"));
        assert!(accepts(&policy, &[("a", 0)]));
    }

    #[test]
    fn as_many_as_the_standard_asks_for() {
        let names: Vec<String> = (0..32).map(|number| format!("w{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut rest = String::new();
        for number in 0..31 {
            rest += &format!("log {}\n", log(&format!("log{number}")).verifier());
            rest += &format!("group g{number} any w{number}\n");
        }
        rest += "group g31 all g0 w31\nquorum g31\n";
        let policy = policy(&names, &rest);
        assert_eq!((policy.logs().len(), policy.witnesses().len()), (32, 32));
        assert!(accepts(&policy, &[("w0", 0), ("w31", 0)]));
    }

    /// Names may be any octets that the standard allows.
    #[test]
    fn names_are_octets() {
        let mut file = file(&["a"], "").into_bytes();
        file.extend_from_slice(b"group \xff\xfe any a\nquorum \xff\xfe");
        assert!(accepts(&Policy::parse(&file).unwrap(), &[("a", 0)]));
    }

    proptest! {
        #[test]
        fn reading_never_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4)) {
            let mut bytes = file(&["a", "b"], "group x 2 a b\n#! operator o a log\n#! max-age 9\nquorum x\n").into_bytes();
            for (at, byte, change) in edits {
                let at = at.index(bytes.len());
                match change {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            if let Ok(policy) = Policy::parse(&bytes) {
                let _ = policy.evaluate(&cosigned(&[("a", 0)]), NOW);
            }
        }

        #[test]
        fn any_lines_can_be_read(lines in "((log|witness|group|quorum|#!|#| |any|all|[0-9]|[a-c]|none|\n|\t){0,40}|\\PC{0,40})") {
            let _ = Policy::parse(lines.as_bytes());
        }
    }
}
