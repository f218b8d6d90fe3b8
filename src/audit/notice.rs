//! What an auditor or a monitor has to say, for people and for programs.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::dime::{Name, Timestamp};

/// How much a notice weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// Good to know: watched from now on, caught up, served again.
    News,
    /// Ends by itself and accuses nobody.
    Condition,
    /// A name has a new version, as names do.
    Change,
    /// Somebody should look.
    Alarm,
}

impl Weight {
    /// The word that programs read; stable.
    pub fn word(self) -> &'static str {
        match self {
            Weight::News => "news",
            Weight::Condition => "condition",
            Weight::Change => "change",
            Weight::Alarm => "alarm",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub at: Timestamp,
    pub weight: Weight,
    /// For programs; stable, such as `FORK`.
    pub kind: &'static str,
    /// Origin of the log, or where it was looked for.
    pub log: String,
    /// The name it is about, for its owner.
    pub name: Option<Name>,
    /// For people; says what it proves and what it does not.
    pub message: String,
    /// More for programs.
    pub facts: Map<String, Value>,
    /// A file that convinces others.
    pub evidence: Option<PathBuf>,
}

impl Notice {
    pub fn new(
        at: Timestamp,
        weight: Weight,
        kind: &'static str,
        log: &str,
        message: impl Into<String>,
    ) -> Notice {
        let (log, message) = (log.to_owned(), message.into());
        let (name, facts, evidence) = (None, Map::new(), None);
        Notice { at, weight, kind, log, name, message, facts, evidence }
    }

    pub fn about(mut self, name: &Name) -> Notice {
        self.name = Some(name.clone());
        self
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Notice {
        self.facts.insert(key.to_owned(), value.into());
        self
    }

    pub fn is_alarm(&self) -> bool {
        self.weight == Weight::Alarm
    }

    /// One object: `at`, `weight`, `kind`, `log`, `message`, perhaps `name` and
    /// `evidence`, and the facts.
    pub fn to_json(&self) -> Value {
        let mut object = self.facts.clone();
        let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
        set("at", json!(self.at.to_string()));
        set("weight", json!(self.weight.word()));
        set("kind", json!(self.kind));
        set("log", json!(self.log));
        set("message", json!(self.message));
        if let Some(name) = &self.name {
            set("name", json!(name.as_str()));
        }
        if let Some(path) = &self.evidence {
            set("evidence", json!(path.display().to_string()));
        }
        Value::Object(object)
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.weight {
            Weight::Alarm => "ALARM ",
            Weight::Change => "change ",
            Weight::Condition | Weight::News => "",
        };
        write!(f, "{} {word}{}", self.at, self.kind)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        write!(f, " [{}]: {}", self.log, self.message)?;
        match &self.evidence {
            Some(path) => write!(f, " Evidence: {}", path.display()),
            None => Ok(()),
        }
    }
}
