//! DMTP command lines: one tolerant reading of both grammars, and writing in
//! either (reference §6.4).
//!
//! Grammar A is what the reference client sends: `SGNT <name> [fingerprint]`.
//! Grammar B is what the reference library reads: `SGNT USER=<name>
//! FINGERPRINT=[fingerprint]`. A server hears both, verbs and keys in any case;
//! each line also says which grammar it was and whether it kept to its letter.
//! Left out: what the commands do (`serve`), and the message bytes after `DATA`.

use std::fmt;

use super::signet::Fingerprint;
use super::{Address, Domain, Name, Rejection};

/// Longest line a server reads, bytes, line end included (§6.4).
pub const MAX_LINE: usize = 1024;
/// Longest line grammar B allows, bytes, line end included.
pub const MAX_LINE_B: usize = 512;

/// Rule of a line whose first word is no command: reply 500, all others 501.
pub const UNKNOWN_VERB: &str = "verb";

/// One command. Hosts and what belongs to mail delivery stay text, since a
/// syndicate does nothing with them; names and fingerprints are typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Change to TLS, on a port that begins in the clear.
    StartTls {
        host: String,
        mode: Option<String>,
    },
    Helo {
        host: String,
    },
    Ehlo {
        host: String,
    },
    Mode,
    Reset,
    /// With the words it carries for nobody; grammar B only.
    Noop(Vec<String>),
    /// With the command it asks about.
    Help(Option<String>),
    Quit,
    Mail {
        from: String,
        fingerprint: Option<String>,
        size: Option<String>,
        returning: Option<String>,
        data: Option<String>,
    },
    Recipient {
        to: String,
        fingerprint: Option<String>,
    },
    Data {
        fingerprint: Option<String>,
    },
    /// `SGNT`: the signet of a name, or the one of its signets with this fingerprint.
    Signet {
        name: Name,
        fingerprint: Option<Fingerprint>,
    },
    /// `VRFY`: is this still the current signet?
    Verify {
        name: Name,
        fingerprint: Fingerprint,
    },
    /// `HIST`: the chain from `start` to `stop`, both included (§7.1).
    History {
        address: Address,
        start: Option<Fingerprint>,
        stop: Option<Fingerprint>,
    },
    Stats {
        nonce: Option<String>,
    },
    Verbose,
}

/// Which grammar a line was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grammar {
    /// Arguments by position.
    A,
    /// Arguments by name.
    B,
    /// A bare verb: the same in both.
    Both,
    /// Positions and names in one line: neither.
    Mixed,
}

/// What a line said, and how it said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub command: Command,
    pub grammar: Grammar,
    /// Whether the line keeps to the letter of its grammar: case, line end,
    /// blanks, brackets and length. What was overlooked is in `overlooked`.
    pub strict: bool,
    /// What a strict reader of that grammar would have refused, in the order met.
    pub overlooked: Vec<Overlooked>,
}

/// A departure from the letter that a tolerant reader lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overlooked {
    /// A verb that is not in capitals.
    VerbCase,
    /// A key that is not in capitals.
    KeyCase,
    /// A value without its brackets.
    Brackets,
    /// More than one blank, a TAB, or blanks before the line end, in grammar A.
    Blanks,
    /// LF alone, in grammar A.
    LineEnd,
    /// More than 512 bytes, in grammar B.
    Length,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Angle,
    Square,
    Word,
}

/// One argument of a command, in its fixed place.
struct Slot {
    key: &'static str,
    shape: Shape,
    required: bool,
    /// Whether grammar A writes it by position; else `KEY=value` in both.
    position: bool,
}

const fn slot(key: &'static str, shape: Shape, required: bool, position: bool) -> Slot {
    Slot { key, shape, required, position }
}

const HOST: Slot = slot("HOST", Shape::Angle, true, true);
const FINGERPRINT: Slot = slot("FINGERPRINT", Shape::Square, false, true);
const FINGERPRINT_REQUIRED: Slot = slot("FINGERPRINT", Shape::Square, true, true);
/// Not required by itself: exactly one of the two is, which the name check sees to.
const USER: Slot = slot("USER", Shape::Angle, false, true);
const DOMAIN: Slot = slot("DOMAIN", Shape::Angle, false, true);

const NOTHING: &[Slot] = &[];
const GREETING: &[Slot] = &[HOST];
const STARTTLS: &[Slot] = &[HOST, slot("MODE", Shape::Word, false, false)];
const SGNT: &[Slot] = &[USER, DOMAIN, FINGERPRINT];
const VRFY: &[Slot] = &[USER, DOMAIN, FINGERPRINT_REQUIRED];
const HIST: &[Slot] = &[
    slot("USER", Shape::Angle, true, true),
    slot("START", Shape::Square, false, true),
    slot("STOP", Shape::Square, false, true),
];
const MAIL: &[Slot] = &[
    slot("FROM", Shape::Angle, true, false),
    FINGERPRINT_REQUIRED,
    slot("SIZE", Shape::Word, false, false),
    slot("RETURN", Shape::Word, false, false),
    slot("DATA", Shape::Word, false, false),
];
const RCPT: &[Slot] = &[slot("TO", Shape::Angle, true, false), FINGERPRINT_REQUIRED];
const DATA: &[Slot] = &[FINGERPRINT];
const STATS: &[Slot] = &[slot("NONCE", Shape::Square, false, true)];
/// Its three words have no name: ` =word`.
const NOOP: &[Slot] = &[
    slot("", Shape::Word, false, false),
    slot("", Shape::Word, false, false),
    slot("", Shape::Word, false, false),
];
const HELP: &[Slot] = &[slot("COMMAND", Shape::Word, false, true)];

/// Verb and the arguments it may have.
const TABLE: &[(&str, &[Slot])] = &[
    ("STARTTLS", STARTTLS),
    ("HELO", GREETING),
    ("EHLO", GREETING),
    ("MODE", NOTHING),
    ("RSET", NOTHING),
    ("NOOP", NOOP),
    ("HELP", HELP),
    ("QUIT", NOTHING),
    ("MAIL", MAIL),
    ("RCPT", RCPT),
    ("DATA", DATA),
    ("SGNT", SGNT),
    ("VRFY", VRFY),
    ("HIST", HIST),
    ("STATS", STATS),
    ("VERB", NOTHING),
];

/// Commands that only grammar A has, whatever their arguments.
const ONLY_A: &[&str] = &["STATS", "VERB"];

/// Reads one line with its line end, CRLF or LF.
///
/// # Errors
/// `verb` for an unknown command; `line` for a missing line end, a line break
/// or a control character inside, or more than [`MAX_LINE`] bytes; `argument`
/// for arguments that are missing, unknown, repeated, out of order or badly
/// written; `name` and `fingerprint` for values that are none.
pub fn parse(line: &[u8]) -> Result<Line, Rejection> {
    let mut reading = Reading::default();
    let text = reading.text(line)?;
    let end = text.find(blank).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let Some((verb, slots)) = TABLE.iter().find(|(verb, _)| verb.eq_ignore_ascii_case(word)) else {
        return Err(Rejection::new(UNKNOWN_VERB, "not a DMTP command"));
    };
    if *verb != word {
        reading.overlook(Overlooked::VerbCase);
    }
    let values = reading.arguments(verb, slots, rest)?;
    let command = command(verb, values)?;
    let grammar = reading.grammar(verb, &command);
    Ok(reading.line(line, command, grammar))
}

/// What is learned of the style of a line while its words are read.
#[derive(Default)]
struct Reading {
    positions: usize,
    keys: usize,
    overlooked: Vec<Overlooked>,
}

impl Reading {
    /// The line without its end, as text.
    fn text<'a>(&mut self, line: &'a [u8]) -> Result<&'a str, Rejection> {
        let refuse = |why: &str| Err(Rejection::new("line", why));
        if line.len() > MAX_LINE {
            return refuse("longer than 1024 bytes");
        }
        let Some(body) = line.strip_suffix(b"\n") else {
            return refuse("the line has no end");
        };
        let body = body.strip_suffix(b"\r").unwrap_or(body);
        if body.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return refuse("a control character or a second line");
        }
        match std::str::from_utf8(body) {
            Ok(text) => Ok(text),
            Err(_) => refuse("not UTF-8"),
        }
    }

    /// One value per slot, in the order of the table.
    fn arguments(
        &mut self,
        verb: &str,
        slots: &[Slot],
        mut rest: &str,
    ) -> Result<Vec<Option<String>>, Rejection> {
        let mut values = vec![None; slots.len()];
        let mut next = 0;
        loop {
            let trimmed = rest.trim_start_matches(blank);
            if trimmed.is_empty() {
                if !rest.is_empty() {
                    self.overlook(Overlooked::Blanks);
                }
                break;
            }
            if rest.strip_prefix(' ') != Some(trimmed) {
                self.overlook(Overlooked::Blanks);
            }
            let token = self.token(verb, trimmed)?;
            rest = token.rest;
            let found = slots.iter().enumerate().skip(next).find(|(_, slot)| token.fits(slot));
            let Some((index, slot)) = found else {
                return Err(Rejection::new("argument", "unknown, repeated or out of order"));
            };
            self.note(&token, slot);
            if let Some(value) = values.get_mut(index) {
                *value = Some(token.value.to_owned());
            }
            next = index + 1;
        }
        let missing =
            slots.iter().zip(&values).find(|(slot, value)| slot.required && value.is_none());
        match missing {
            Some((slot, _)) => Err(Rejection::new("argument", format!("{} is missing", slot.key))),
            None => Ok(values),
        }
    }

    /// What the way an argument is written says about the grammar.
    fn note(&mut self, token: &Token<'_>, slot: &Slot) {
        let Some(key) = token.key else {
            self.positions += 1;
            return;
        };
        if token.colon {
            self.positions += 1;
        } else if slot.shape != Shape::Word || slot.key.is_empty() {
            self.keys += 1;
        }
        if key != slot.key {
            self.overlook(Overlooked::KeyCase);
        }
        if token.shape != slot.shape {
            self.overlook(Overlooked::Brackets);
        }
    }

    /// The next argument: `[KEY=]<value>`, `[KEY=][value]`, `KEY=value`, or
    /// `FROM: <value>` and `TO: <value>` as grammar A has them.
    fn token<'a>(&mut self, verb: &str, text: &'a str) -> Result<Token<'a>, Rejection> {
        let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (word, after) = text.split_at(letters);
        let (key, value) = if let Some(value) = after.strip_prefix('=') {
            (Some(word), value)
        } else if let (Some(value), "MAIL" | "RCPT") = (after.strip_prefix(':'), verb) {
            (Some(word), value.trim_start_matches(blank))
        } else {
            (None, text)
        };
        let (shape, value, rest) = if let Some(inside) = value.strip_prefix('<') {
            bracketed(Shape::Angle, inside, '>')?
        } else if let Some(inside) = value.strip_prefix('[') {
            bracketed(Shape::Square, inside, ']')?
        } else {
            let (value, rest) = value.split_at(value.find(blank).unwrap_or(value.len()));
            (Shape::Word, value, rest)
        };
        if shape == Shape::Word && value.contains(['<', '>', '[', ']', '=']) {
            return Err(Rejection::new("argument", "a bracket or '=' where none belongs"));
        }
        if shape == Shape::Word && value.is_empty() && key != Some("") {
            return Err(Rejection::new("argument", "a key without a value"));
        }
        if !rest.is_empty() && !rest.starts_with(blank) {
            return Err(Rejection::new("argument", "text directly after a value"));
        }
        if shape == Shape::Word && key.is_none() && verb != "HELP" {
            return Err(Rejection::new("argument", "a word that is neither <value> nor KEY=value"));
        }
        Ok(Token { key, colon: key.is_some() && after.starts_with(':'), shape, value, rest })
    }

    fn grammar(&self, verb: &str, command: &Command) -> Grammar {
        let only_a = match command {
            Command::Mail { size, returning, data, .. } => {
                size.is_some() || returning.is_some() || data.is_some()
            }
            Command::Data { fingerprint } => fingerprint.is_some(),
            Command::Help(topic) => topic.is_some(),
            _ => ONLY_A.contains(&verb),
        };
        match (self.positions, self.keys) {
            (0, 0) if !only_a => Grammar::Both,
            (_, 0) => Grammar::A,
            (0, _) if !only_a => Grammar::B,
            _ => Grammar::Mixed,
        }
    }

    fn overlook(&mut self, what: Overlooked) {
        if !self.overlooked.contains(&what) {
            self.overlooked.push(what);
        }
    }

    /// Drops what the grammar of the line allows, and adds what depends on it.
    fn line(mut self, line: &[u8], command: Command, grammar: Grammar) -> Line {
        if grammar == Grammar::A {
            if !line.ends_with(b"\r\n") {
                self.overlook(Overlooked::LineEnd);
            }
        } else {
            self.overlooked.retain(|what| *what != Overlooked::Blanks);
            if line.len() > MAX_LINE_B {
                self.overlook(Overlooked::Length);
            }
        }
        let strict = self.overlooked.is_empty() && grammar != Grammar::Mixed;
        Line { command, grammar, strict, overlooked: self.overlooked }
    }
}

struct Token<'a> {
    key: Option<&'a str>,
    /// `FROM:` and `TO:` of grammar A.
    colon: bool,
    shape: Shape,
    value: &'a str,
    rest: &'a str,
}

impl Token<'_> {
    /// Whether this argument may stand in that slot. A name by position fits
    /// USER if it has an `@` and DOMAIN if not.
    fn fits(&self, slot: &Slot) -> bool {
        let shape = self.shape == slot.shape || (self.key.is_some() && self.shape == Shape::Word);
        let place = match self.key {
            Some(key) => slot.key.eq_ignore_ascii_case(key),
            None if slot.key == DOMAIN.key => !self.value.contains('@'),
            None if slot.key == USER.key && !slot.required => self.value.contains('@'),
            None => slot.position,
        };
        shape && place
    }
}

fn blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn bracketed(shape: Shape, inside: &str, close: char) -> Result<(Shape, &str, &str), Rejection> {
    match inside.split_once(close) {
        Some((value, rest)) => Ok((shape, value, rest)),
        None => Err(Rejection::new("argument", format!("no closing '{close}'"))),
    }
}

/// Builds the command from the values of its slots, in table order.
fn command(verb: &str, values: Vec<Option<String>>) -> Result<Command, Rejection> {
    let mut values = values.into_iter();
    let mut next = || values.next().flatten();
    Ok(match verb {
        "STARTTLS" => Command::StartTls { host: next().unwrap_or_default(), mode: next() },
        "HELO" => Command::Helo { host: next().unwrap_or_default() },
        "EHLO" => Command::Ehlo { host: next().unwrap_or_default() },
        "MODE" => Command::Mode,
        "RSET" => Command::Reset,
        "NOOP" => Command::Noop([next(), next(), next()].into_iter().flatten().collect()),
        "HELP" => Command::Help(next()),
        "QUIT" => Command::Quit,
        "MAIL" => Command::Mail {
            from: next().unwrap_or_default(),
            fingerprint: next(),
            size: next(),
            returning: next(),
            data: next(),
        },
        "RCPT" => Command::Recipient { to: next().unwrap_or_default(), fingerprint: next() },
        "DATA" => Command::Data { fingerprint: next() },
        "SGNT" => Command::Signet {
            name: name(next(), next())?,
            fingerprint: next().map(fingerprint).transpose()?,
        },
        "VRFY" => Command::Verify {
            name: name(next(), next())?,
            fingerprint: fingerprint(next().unwrap_or_default())?,
        },
        "HIST" => Command::History {
            address: next().unwrap_or_default().parse()?,
            start: next().map(fingerprint).transpose()?,
            stop: next().map(fingerprint).transpose()?,
        },
        "STATS" => Command::Stats { nonce: next() },
        "VERB" => Command::Verbose,
        _ => return Err(Rejection::new(UNKNOWN_VERB, "not a DMTP command")),
    })
}

/// Exactly one of the two is given.
fn name(user: Option<String>, domain: Option<String>) -> Result<Name, Rejection> {
    match (user, domain) {
        (Some(user), None) => Ok(Name::Address(user.parse::<Address>()?)),
        (None, Some(domain)) => Ok(Name::Domain(domain.parse::<Domain>()?)),
        (None, None) => Err(Rejection::new("argument", "a name is missing")),
        (Some(_), Some(_)) => Err(Rejection::new("argument", "USER and DOMAIN in one command")),
    }
}

fn fingerprint(text: String) -> Result<Fingerprint, Rejection> {
    Fingerprint::parse(&text)
}

impl Command {
    /// The word the line begins with.
    pub fn verb(&self) -> &'static str {
        match self {
            Command::StartTls { .. } => "STARTTLS",
            Command::Helo { .. } => "HELO",
            Command::Ehlo { .. } => "EHLO",
            Command::Mode => "MODE",
            Command::Reset => "RSET",
            Command::Noop(_) => "NOOP",
            Command::Help(_) => "HELP",
            Command::Quit => "QUIT",
            Command::Mail { .. } => "MAIL",
            Command::Recipient { .. } => "RCPT",
            Command::Data { .. } => "DATA",
            Command::Signet { .. } => "SGNT",
            Command::Verify { .. } => "VRFY",
            Command::History { .. } => "HIST",
            Command::Stats { .. } => "STATS",
            Command::Verbose => "VERB",
        }
    }

    /// Whether a successful reply may have several lines (§6.7).
    pub fn multi_line(&self) -> bool {
        matches!(
            self,
            Command::StartTls { .. }
                | Command::Ehlo { .. }
                | Command::Help(_)
                | Command::History { .. }
                | Command::Stats { .. }
        )
    }

    /// The line to send in grammar A (CRLF) or B (LF). Commands that one of the
    /// two does not have are written as the other has them.
    pub fn format(&self, grammar: Grammar) -> String {
        let end = if grammar == Grammar::B { "\n" } else { "\r\n" };
        // A stop without a start cannot be told from a start by its position.
        let stop_alone = matches!(self, Command::History { start: None, stop: Some(_), .. });
        let by_name = grammar == Grammar::B || stop_alone;
        let mut line = String::from(self.verb());
        for (key, shape, value) in self.written() {
            let key = match (by_name, key) {
                (false, "FROM" | "TO") => format!("{key}: "),
                (false, "SIZE" | "RETURN" | "DATA" | "MODE" | "") => format!("{key}="),
                (true, "COMMAND") => String::new(),
                (true, _) => format!("{key}="),
                (false, _) => String::new(),
            };
            let value = match shape {
                Shape::Angle => format!("<{value}>"),
                Shape::Square => format!("[{value}]"),
                Shape::Word => value,
            };
            line.push(' ');
            line.push_str(&key);
            line.push_str(&value);
        }
        line.push_str(end);
        line
    }

    /// The arguments that are there, in table order.
    fn written(&self) -> Vec<(&'static str, Shape, String)> {
        use Shape::{Angle, Square, Word};
        let optional = |key, shape, value: &Option<String>| value.clone().map(|v| (key, shape, v));
        let print = |key, print: &Option<Fingerprint>| {
            print.as_ref().map(|print| (key, Square, print.to_string()))
        };
        let named = |name: &Name| match name {
            Name::Address(address) => Some(("USER", Angle, address.to_string())),
            Name::Domain(domain) => Some(("DOMAIN", Angle, domain.to_string())),
        };
        let arguments: Vec<Option<(&'static str, Shape, String)>> = match self {
            Command::StartTls { host, mode } => {
                vec![Some(("HOST", Angle, host.clone())), optional("MODE", Word, mode)]
            }
            Command::Helo { host } | Command::Ehlo { host } => {
                vec![Some(("HOST", Angle, host.clone()))]
            }
            Command::Noop(words) => {
                words.iter().map(|word| Some(("", Word, word.clone()))).collect()
            }
            Command::Help(topic) => vec![optional("COMMAND", Word, topic)],
            Command::Mail { from, fingerprint, size, returning, data } => vec![
                Some(("FROM", Angle, from.clone())),
                optional("FINGERPRINT", Square, fingerprint),
                optional("SIZE", Word, size),
                optional("RETURN", Word, returning),
                optional("DATA", Word, data),
            ],
            Command::Recipient { to, fingerprint } => {
                vec![Some(("TO", Angle, to.clone())), optional("FINGERPRINT", Square, fingerprint)]
            }
            Command::Data { fingerprint } => vec![optional("FINGERPRINT", Square, fingerprint)],
            Command::Signet { name, fingerprint } => {
                vec![named(name), print("FINGERPRINT", fingerprint)]
            }
            Command::Verify { name, fingerprint } => {
                vec![named(name), Some(("FINGERPRINT", Square, fingerprint.to_string()))]
            }
            Command::History { address, start, stop } => vec![
                Some(("USER", Angle, address.to_string())),
                print("START", start),
                print("STOP", stop),
            ],
            Command::Stats { nonce } => vec![optional("NONCE", Square, nonce)],
            Command::Mode | Command::Reset | Command::Quit | Command::Verbose => Vec::new(),
        };
        arguments.into_iter().flatten().collect()
    }

    /// The arguments as key and value, for people and machines to read.
    pub fn arguments(&self) -> Vec<(&'static str, String)> {
        self.written().into_iter().map(|(key, _, value)| (key, value)).collect()
    }
}

impl fmt::Display for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Grammar::A => "A",
            Grammar::B => "B",
            Grammar::Both => "A and B",
            Grammar::Mixed => "neither",
        })
    }
}

impl fmt::Display for Overlooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Overlooked::VerbCase => "verb-case",
            Overlooked::KeyCase => "key-case",
            Overlooked::Brackets => "brackets",
            Overlooked::Blanks => "blanks",
            Overlooked::LineEnd => "line-end",
            Overlooked::Length => "length",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRINT: &str =
        "phfcdourXJS9VsjL1BIM7m/yqSU6witLCEkcMNW1lvdWINrRCdNURt6wM1mqk3E5gKaOQ5kACD2hzxIqqx/WkQ";

    fn read(line: &str) -> Line {
        parse(line.as_bytes()).unwrap_or_else(|why| panic!("{line}: {why}"))
    }

    fn rule(line: &[u8]) -> &'static str {
        parse(line).unwrap_err().rule
    }

    #[test]
    fn one_command_in_every_way_to_write_it() {
        let expected = Command::Signet {
            name: "alice@example.com".parse().unwrap(),
            fingerprint: Some(Fingerprint::parse(PRINT).unwrap()),
        };
        for (line, grammar, strict) in [
            (format!("SGNT <alice@example.com> [{PRINT}]\r\n"), Grammar::A, true),
            (format!("SGNT <alice@example.com> [{PRINT}]\n"), Grammar::A, false),
            (format!("SGNT\t<Alice@Example.com>  [{PRINT}] \r\n"), Grammar::A, false),
            (format!("SGNT USER=<alice@example.com> FINGERPRINT=[{PRINT}]\n"), Grammar::B, true),
            (
                format!("SGNT USER=<alice@example.com>\tFINGERPRINT=[{PRINT}] \r\n"),
                Grammar::B,
                true,
            ),
            (format!("sgnt user=alice@example.com fingerprint={PRINT}\r\n"), Grammar::B, false),
            (format!("SGNT USER=<alice@example.com> [{PRINT}]\r\n"), Grammar::Mixed, false),
        ] {
            let read = read(&line);
            assert_eq!(read.command, expected, "{line}");
            assert_eq!((read.grammar, read.strict), (grammar, strict), "{line}");
        }
    }

    #[test]
    fn what_the_reference_client_sends() {
        for line in [
            "STARTTLS <dx.example.com> MODE=DMTPv1\r\n",
            "EHLO <example.com>\r\n",
            "MAIL FROM: <example.com> [fingerprint] SIZE=1024\r\n",
            "MAIL FROM: <example.com> [fingerprint] SIZE=1 RETURN=FULL DATA=8BIT\r\n",
            "RCPT TO: <example.com> [fingerprint]\r\n",
            "DATA [fingerprint]\r\n",
            "STATS [nonce]\r\n",
            "HIST <alice@example.com>\r\n",
        ] {
            let read = read(line);
            assert_eq!((read.grammar, read.strict), (Grammar::A, true), "{line}");
            assert_eq!(read.command.format(Grammar::A), line);
        }
    }

    #[test]
    fn refusals_name_the_rule() {
        assert_eq!(rule(b"QUIT"), "line");
        assert_eq!(rule(b"QUIT\r"), "line");
        assert_eq!(rule(b"QUIT\r\nNOOP\r\n"), "line");
        assert_eq!(rule(b"EHLO <\xff>\r\n"), "line");
        assert_eq!(rule(&[b'A'; MAX_LINE + 1]), "line");
        assert_eq!(rule(b" QUIT\r\n"), "verb");
        assert_eq!(rule(b"\r\n"), "verb");
        assert_eq!(rule(b"SGNT\r\n"), "argument");
        assert_eq!(rule(b"SGNT example.com\r\n"), "argument");
        assert_eq!(rule(b"SGNT <a@example.com> <example.com>\r\n"), "argument");
        assert_eq!(rule(b"SGNT USER: <a@example.com>\r\n"), "argument");
        assert_eq!(rule(b"SGNT USER=<example.com>\r\n"), "name");
        assert_eq!(rule(b"SGNT DOMAIN=<a@example.com>\r\n"), "name");
        assert_eq!(rule(b"HIST <example.com>\r\n"), "name");
        assert_eq!(rule(b"VRFY <example.com> [short]\r\n"), "A15");
        assert_eq!(rule(b"NOOP foo\r\n"), "argument");
        assert_eq!(rule(b"MODE x\r\n"), "argument");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn accepted_lines_read_back_in_both_grammars(
            verb in "SGNT|HIST|VRFY|NOOP|MAIL|RCPT|EHLO|HELP|STARTTLS|STATS|DATA",
            words in proptest::collection::vec(
                "(USER=|DOMAIN=|HOST=|FROM=|FROM: |TO: |SIZE=|MODE=|=|START=|STOP=|)(<a@b.c>|<b.c>|<>|\\[x\\]|x)",
                0..4,
            ),
        ) {
            let line = format!("{verb} {}\r\n", words.join(" "));
            if let Ok(read) = parse(line.as_bytes()) {
                for grammar in [Grammar::A, Grammar::B] {
                    let again = parse(read.command.format(grammar).as_bytes());
                    prop_assert_eq!(again.map(|line| line.command), Ok(read.command.clone()));
                }
            }
        }
    }
}
