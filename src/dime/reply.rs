//! DMTP replies: reading them within bounds, and making the exact forms that
//! the reference client needs (reference §6.5, §6.7, §6.8).
//!
//! A line ends with CRLF and is `CCC text`, or `CCC-text` where more follow.
//! Left out: sockets and deadlines (`dmtp`), and who answers what (`serve`).

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::Rejection;
use super::signet::Fingerprint;

/// The one mode a DX must offer (§6.5).
pub const MODE: &str = "DMTPv1";

/// Largest object fetched unless told otherwise, bytes (A32).
pub const MAX_OBJECT: usize = 1 << 20;

/// Standard alphabet, padding as the sender likes, no stray bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longest beginning of a reply that is kept beside what is made of it, bytes.
pub const MAX_BEGINNING: usize = 32 * 1024;

/// Longest room beyond what is in it that a buffer keeps, bytes.
const SPARE: usize = 64 * 1024;

/// What a reply may measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one line, CRLF included.
    pub line: usize,
    /// Lines in one reply.
    pub lines: usize,
    /// Bytes in one reply, line ends included.
    pub total: usize,
}

impl Limits {
    /// Lines that hold one object of that many bytes in base64; at most 1,024
    /// of them and 16 such objects in all.
    pub const fn for_object(bytes: usize) -> Limits {
        let line = bytes.div_ceil(3).saturating_mul(4).saturating_add(64);
        Limits { line, lines: 1024, total: line.saturating_mul(16) }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::for_object(MAX_OBJECT)
    }
}

/// A whole reply: one code, one or more lines of text without code and CRLF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits, 200 to 599.
    pub code: u16,
    /// At least one.
    pub lines: Vec<String>,
}

/// What stops a reply from being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// More bytes or lines than the limits allow.
    Oversized(&'static str),
    /// Not a reply.
    Malformed(Rejection),
}

/// Puts a reply together from whatever pieces the network delivers.
#[derive(Debug)]
pub struct Assembler {
    limits: Limits,
    buffer: Vec<u8>,
    /// How much of `buffer` is known to hold no line end.
    searched: usize,
    total: usize,
    code: Option<u16>,
    lines: Vec<String>,
    /// As received, since [`Assembler::begin`].
    beginning: Vec<u8>,
    broken: bool,
}

impl Assembler {
    pub fn new(limits: Limits) -> Assembler {
        Assembler {
            limits,
            buffer: Vec::new(),
            searched: 0,
            total: 0,
            code: None,
            lines: Vec::new(),
            beginning: Vec::new(),
            broken: false,
        }
    }

    /// A command goes out: what comes from now on answers it.
    pub fn begin(&mut self) {
        self.beginning = Vec::new();
    }

    /// How the answer begins, as received: up to what makes it no reply, if
    /// something does; at most [`MAX_BEGINNING`] bytes.
    pub fn beginning(&self) -> Vec<u8> {
        let rest = if self.broken { &[][..] } else { &self.buffer };
        let bytes = self.beginning.iter().chain(rest);
        bytes.copied().take(MAX_BEGINNING).collect()
    }

    fn keep(&mut self, length: usize) {
        let room = MAX_BEGINNING.saturating_sub(self.beginning.len());
        let bytes = self.buffer.get(..length.min(room)).unwrap_or(&self.buffer);
        self.beginning.extend_from_slice(bytes);
    }

    /// Bytes of the reply that is not whole yet, and what follows it.
    pub fn size(&self) -> usize {
        self.total.saturating_add(self.buffer.len())
    }

    /// Takes received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        // A long line does not get twice the room that it needs.
        let room = self.buffer.capacity() - self.buffer.len();
        if self.buffer.len() >= SPARE && room < bytes.len() {
            self.buffer.reserve_exact(bytes.len().max(SPARE));
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes wait that no reply has used.
    pub fn has_leftover(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Whether a reply has begun and not ended.
    pub fn is_partial(&self) -> bool {
        self.code.is_some() || !self.buffer.is_empty()
    }

    /// The next whole reply, or `None` if more bytes are needed. With `multi`,
    /// `CCC-text` announces another line; without, a line is a reply (§6.7).
    pub fn next(&mut self, multi: bool) -> Result<Option<Reply>, Fault> {
        let next = self.assemble(multi);
        self.broken |= next.is_err();
        next
    }

    fn assemble(&mut self, multi: bool) -> Result<Option<Reply>, Fault> {
        while let Some(line) = self.line()? {
            let (code, more, text) = parse_line(&line, multi).map_err(Fault::Malformed)?;
            if self.code.is_some_and(|first| first != code) {
                return Err(malformed("the code changes within a reply"));
            }
            if self.lines.len() >= self.limits.lines {
                return Err(Fault::Oversized("too many lines"));
            }
            self.code = Some(code);
            self.lines.push(text);
            if !more {
                self.code = None;
                self.total = 0;
                return Ok(Some(Reply { code, lines: std::mem::take(&mut self.lines) }));
            }
        }
        Ok(None)
    }

    /// One line without its CRLF, once it is there.
    fn line(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(found) = unsearched.iter().position(|byte| *byte == b'\n') else {
            let length = self.buffer.len();
            self.searched = length;
            let what = match () {
                () if length >= self.limits.line => "line too long",
                () if self.total.saturating_add(length) >= self.limits.total => "reply too long",
                () => return Ok(None),
            };
            self.keep(length);
            return Err(Fault::Oversized(what));
        };
        let length = self.searched + found + 1;
        self.keep(length);
        let mut line: Vec<u8> = self.buffer.drain(..length).collect();
        // A session may be kept for long after a long line.
        self.buffer.shrink_to(SPARE);
        self.searched = 0;
        self.total = self.total.saturating_add(length);
        if length > self.limits.line {
            return Err(Fault::Oversized("line too long"));
        }
        if self.total > self.limits.total {
            return Err(Fault::Oversized("reply too long"));
        }
        line.pop();
        if line.pop() != Some(b'\r') {
            return Err(malformed("a line ends with LF alone"));
        }
        Ok(Some(line))
    }
}

fn malformed(message: &str) -> Fault {
    Fault::Malformed(Rejection::new("reply", message))
}

/// Code, whether more lines follow, and text of one line without its CRLF.
fn parse_line(line: &[u8], multi: bool) -> Result<(u16, bool, String), Rejection> {
    let refuse = |why: &str| Err(Rejection::new("reply", why));
    let Some((digits, rest)) = line.split_at_checked(3) else {
        return refuse("shorter than a code");
    };
    let code = digits.iter().try_fold(0u16, |code, digit| match digit {
        b'0'..=b'9' => Some(code * 10 + u16::from(digit - b'0')),
        _ => None,
    });
    let Some(code @ 200..=599) = code else {
        return refuse("no code from 200 to 599");
    };
    let (more, text) = match rest.split_first() {
        Some((b' ' | b'\t', text)) => (false, text),
        Some((b'-', text)) if multi => (true, text),
        Some((b'-', _)) => return refuse("several lines where one is due"),
        _ => return refuse("no blank after the code"),
    };
    if text.iter().any(|byte| !(b' '..=b'~').contains(byte) && *byte != b'\t') {
        return refuse("text with other than printable ASCII");
    }
    // Printable ASCII is UTF-8.
    Ok((code, more, String::from_utf8_lossy(text).into_owned()))
}

/// What `VRFY` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Currency {
    Current,
    /// Another signet is current, with this fingerprint.
    Update(Fingerprint),
}

impl Reply {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// The last line, the only one of most replies.
    pub fn text(&self) -> &str {
        self.lines.last().map_or("", String::as_str)
    }

    /// Checks a banner: exactly 220, and after the host some word is the mode (§6.5).
    pub fn banner(&self) -> Result<(), Rejection> {
        if self.code != 220 {
            return Err(Rejection::new("banner", format!("code {} instead of 220", self.code)));
        }
        match self.text().split_ascii_whitespace().skip(1).any(|word| word == MODE) {
            true => Ok(()),
            false => Err(Rejection::new("banner", "the banner does not offer DMTPv1")),
        }
    }

    /// Checks the answer to `MODE`, and what follows STARTTLS unprompted (§6.6).
    pub fn mode(&self) -> Result<(), Rejection> {
        let mut words = self.text().split_ascii_whitespace();
        match (self.is_success(), words.next(), words.next()) {
            (true, Some("OK"), Some(MODE)) => Ok(()),
            _ => Err(Rejection::new("mode", "the mode is not DMTPv1")),
        }
    }

    /// The object in a successful answer to `SGNT`: `OK [base64]`.
    pub fn signet(&self) -> Result<Vec<u8>, Rejection> {
        let refuse = || Rejection::new("reply", "not of the form OK [base64]");
        let rest = self.text().strip_prefix("OK").ok_or_else(refuse)?;
        decode(rest.trim_start_matches([' ', '\t'])).ok_or_else(refuse)
    }

    /// The objects in a successful answer to `HIST`, as sent: oldest first.
    /// The last line is `OK`, or one more object.
    pub fn history(&self) -> Result<Vec<Vec<u8>>, Rejection> {
        let refuse = || Rejection::new("reply", "not of the form [base64] … OK");
        let lines = match self.lines.split_last() {
            Some((last, before)) if last == "OK" => before,
            _ => &self.lines,
        };
        if lines.is_empty() {
            return Err(Rejection::new("reply", "an empty history"));
        }
        lines.iter().map(|line| decode(line).ok_or_else(refuse)).collect()
    }

    /// The successful answer to `VRFY`: `CURRENT`, or `UPDATE` and a fingerprint.
    pub fn currency(&self) -> Result<Currency, Rejection> {
        let mut words = self.text().split_ascii_whitespace();
        let word = words.next().unwrap_or_default();
        if word.eq_ignore_ascii_case("CURRENT") {
            return Ok(Currency::Current);
        }
        match words.next() {
            Some(print) if word.eq_ignore_ascii_case("UPDATE") => {
                let bare = print.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                Fingerprint::parse(bare.unwrap_or(print)).map(Currency::Update)
            }
            _ => Err(Rejection::new("reply", "neither CURRENT nor UPDATE [fingerprint]")),
        }
    }
}

/// The bytes of `[base64]`.
fn decode(text: &str) -> Option<Vec<u8>> {
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    BASE64.decode(inside).ok()
}

/// The replies a server makes. Each is its lines, CRLF included, since each
/// line goes into a TLS record of its own (§6.7).
pub mod make {
    use super::{Engine, Fingerprint, MODE, STANDARD};

    /// Lines to send one by one.
    pub type Lines = Vec<String>;

    /// `220 <host> DMTPv1 <software>`.
    pub fn banner(host: &str, software: &str) -> Lines {
        line(220, &format!("<{host}> {MODE} {software}"))
    }

    /// `250 OK [base64]`, one line however long.
    pub fn signet(bytes: &[u8]) -> Lines {
        line(250, &format!("OK [{}]", STANDARD.encode(bytes)))
    }

    /// `250-[base64]` for each signet, then `250 OK`. The signets are not none:
    /// the reference client takes an empty history for an error.
    pub fn history<'a>(signets: impl IntoIterator<Item = &'a [u8]>) -> Lines {
        let mut lines: Lines = signets
            .into_iter()
            .map(|bytes| format!("250-[{}]\r\n", STANDARD.encode(bytes)))
            .collect();
        lines.extend(line(250, "OK"));
        lines
    }

    pub fn current() -> Lines {
        line(250, "CURRENT")
    }

    /// `250 UPDATE [fingerprint]` (A16).
    pub fn update(fingerprint: &Fingerprint) -> Lines {
        line(250, &format!("UPDATE [{fingerprint}]"))
    }

    pub fn not_found() -> Lines {
        line(450, "SIGNET NOT FOUND.")
    }

    /// The name is held: DMTP carries no proof and no warning, the page does.
    pub fn held(url: &str) -> Lines {
        line(450, &format!("HELD, SEE {url}"))
    }

    pub fn mode() -> Lines {
        line(250, &format!("OK {MODE}"))
    }

    pub fn ok() -> Lines {
        line(250, "OK")
    }

    pub fn bye() -> Lines {
        line(221, "BYE")
    }

    /// `CCC-text` for each, then `CCC OK`.
    pub fn list(code: u16, texts: &[&str]) -> Lines {
        let mut lines: Lines = texts.iter().map(|text| format!("{code}-{text}\r\n")).collect();
        lines.extend(line(code, "OK"));
        lines
    }

    /// One line.
    pub fn line(code: u16, text: &str) -> Lines {
        vec![format!("{code} {text}\r\n")]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], multi: bool) -> Result<Option<Reply>, Fault> {
        let mut assembler = Assembler::new(Limits { line: 64, lines: 8, total: 256 });
        assembler.push(bytes);
        assembler.next(multi)
    }

    #[test]
    fn what_is_made_reads_back() {
        let print = Fingerprint::of(b"x");
        let reply = |lines: Vec<String>| {
            let mut assembler = Assembler::new(Limits::default());
            assembler.push(lines.concat().as_bytes());
            assembler.next(true).unwrap().unwrap()
        };
        reply(make::banner("dx.example.com", "syndicate")).banner().unwrap();
        reply(make::mode()).mode().unwrap();
        assert_eq!(reply(make::signet(b"bytes")).signet().unwrap(), b"bytes");
        let chain = [&b"one"[..], b"two"];
        assert_eq!(reply(make::history(chain)).history().unwrap(), chain);
        assert_eq!(reply(make::current()).currency().unwrap(), Currency::Current);
        assert_eq!(reply(make::update(&print)).currency().unwrap(), Currency::Update(print));
        assert_eq!(reply(make::not_found()).code, 450);
        assert_eq!(reply(make::held("https://a.example/")).text(), "HELD, SEE https://a.example/");
        assert_eq!(reply(make::list(214, &["A", "B"])).lines, ["A", "B", "OK"]);
        assert_eq!(reply(make::bye()).code, 221);
    }

    #[test]
    fn several_lines_only_where_they_are_due() {
        let two = b"250-one\r\n250 two\r\n";
        assert_eq!(read(two, true).unwrap().unwrap().lines, ["one", "two"]);
        assert!(matches!(read(two, false), Err(Fault::Malformed(_))));
        assert!(matches!(read(b"250-one\r\n251 two\r\n", true), Err(Fault::Malformed(_))));
        assert_eq!(read(b"250-one\r\n", true), Ok(None));
    }

    #[test]
    fn limits_hold_before_the_end_of_a_line() {
        assert!(matches!(read(&[b'2'; 64], false), Err(Fault::Oversized(_))));
        assert!(matches!(read(&b"250-x\r\n".repeat(9), true), Err(Fault::Oversized(_))));
        let long = format!("250-{}\r\n", "x".repeat(50)).repeat(5);
        assert!(matches!(read(long.as_bytes(), true), Err(Fault::Oversized(_))));
        assert!(read(&b"250-x\r\n".repeat(8), true).unwrap().is_none());
    }

    #[test]
    fn the_beginning_is_kept_as_it_came() {
        let mut assembler = Assembler::new(Limits { line: 64, lines: 2, total: 256 });
        assembler.push(b"250 OK\r\n");
        assembler.next(true).unwrap().unwrap();
        assembler.begin();
        assert_eq!(assembler.beginning(), b"");
        // Of what is not there yet too, and nothing of what comes after the fault.
        assembler.push(b"250-[AA");
        assert_eq!((assembler.next(true), &*assembler.beginning()), (Ok(None), &b"250-[AA"[..]));
        assembler.push(b"AA]\r\n250-\r\n250-\r\n250 OK\r\n");
        assembler.next(true).unwrap_err();
        assert_eq!(assembler.beginning(), b"250-[AAAA]\r\n250-\r\n250-\r\n");
        let mut assembler = Assembler::new(Limits::default());
        assembler.push(&[b'A'; 2 * MAX_BEGINNING]);
        assert_eq!(assembler.beginning().len(), MAX_BEGINNING);
    }

    #[test]
    fn a_long_line_leaves_no_large_buffer() {
        let mut assembler = Assembler::new(Limits::default());
        let line = format!("250-{}\r\n", "A".repeat(MAX_OBJECT));
        for piece in line.as_bytes().chunks(16 * 1024) {
            assembler.push(piece);
            let size = assembler.size();
            assert_eq!(assembler.next(true), Ok(None));
            assert_eq!(assembler.size(), size);
            assert!(assembler.buffer.capacity() <= assembler.buffer.len() + 2 * SPARE);
        }
        assert_eq!(assembler.size(), line.len());
        assembler.push(b"250 OK\r\n");
        assembler.next(true).unwrap().unwrap();
        assert!(assembler.size() == 0 && assembler.buffer.capacity() <= SPARE);
    }

    #[test]
    fn what_follows_a_reply_stays() {
        let mut assembler = Assembler::new(Limits::default());
        assembler.push(b"250 OK\r\n221 BYE\r\n");
        assert_eq!(assembler.next(false).unwrap().unwrap().code, 250);
        assert!(assembler.has_leftover());
        assert_eq!(assembler.next(false).unwrap().unwrap().code, 221);
        assert!(!assembler.has_leftover());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in "(250[- ](OK|\\[AAAA\\]|CURRENT|x)?\r?\n){0,6}",
            cuts in proptest::collection::vec(0usize..64, 0..6),
        ) {
            let bytes = text.as_bytes();
            let whole = read(bytes, true);
            let mut assembler = Assembler::new(Limits { line: 64, lines: 8, total: 256 });
            let mut outcome = Ok(None);
            let mut at = 0;
            let ends = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([bytes.len()]);
            for end in ends {
                if end > at {
                    assembler.push(&bytes[at..end]);
                    at = end;
                }
                outcome = assembler.next(true);
                if outcome != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(outcome, whole);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some(reply)) = read(&bytes, true) {
                let _ = (reply.banner(), reply.mode(), reply.signet());
                let _ = (reply.history(), reply.currency());
            }
        }

        #[test]
        fn never_panics_on_what_looks_right(text in "2[0-9]{2} [A-Z]{0,7} ?\\[?[A-Za-z0-9+/=]{0,20}\\]?") {
            let reply = Reply { code: 250, lines: vec![text] };
            let _ = (reply.signet(), reply.history(), reply.currency());
        }
    }
}
