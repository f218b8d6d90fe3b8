//! DMTP: command lines that a server hears, replies that a client hears.

use syndicate::dime::command::{self, Grammar, MAX_LINE};
use syndicate::dime::reply::{Assembler, Currency, Fault, Limits, MAX_BEGINNING, Reply, make};

pub fn command(bytes: &[u8]) {
    let Ok(line) = command::parse(bytes) else { return };
    assert!(bytes.len() <= MAX_LINE);
    assert_eq!(command::parse(bytes).as_ref(), Ok(&line));
    assert_eq!(line.strict, line.overlooked.is_empty() && line.grammar != Grammar::Mixed);
    let _ = (line.command.arguments(), line.command.multi_line());
    for grammar in [Grammar::A, Grammar::B] {
        let written = line.command.format(grammar);
        if written.len() > MAX_LINE {
            continue;
        }
        let again = command::parse(written.as_bytes()).expect("our own line");
        assert_eq!(again.command, line.command, "{written:?}");
    }
}

const LIMITS: Limits = Limits { line: 200, lines: 6, total: 600 };

/// The first byte: whether the replies have several lines, and in which pieces
/// they arrive.
pub fn reply(bytes: &[u8]) {
    let Some((&first, stream)) = bytes.split_first() else { return };
    let multi = first & 1 == 1;
    let piece = usize::from(first >> 1).max(1);
    let whole = assemble(stream, stream.len().max(1), multi);
    assert_eq!(assemble(stream, piece, multi), whole);
    for reply in whole.0 {
        assert!((200..600).contains(&reply.code));
        assert!((1..=LIMITS.lines).contains(&reply.lines.len()));
        assert!(multi || reply.lines.len() == 1);
        assert!(reply.lines.iter().map(|line| line.len() + 6).sum::<usize>() <= LIMITS.total);
        meaning(&reply);
    }
}

fn assemble(stream: &[u8], piece: usize, multi: bool) -> (Vec<Reply>, Option<Fault>) {
    let mut assembler = Assembler::new(LIMITS);
    let mut replies = Vec::new();
    assembler.begin();
    for piece in stream.chunks(piece) {
        assembler.push(piece);
        loop {
            match assembler.next(multi) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(fault) => return (replies, Some(fault)),
            }
        }
        assert!(assembler.beginning().len() <= MAX_BEGINNING);
    }
    (replies, None)
}

/// What a server writes of what was understood is understood as the same.
fn meaning(reply: &Reply) {
    let _ = (reply.banner(), reply.mode());
    if let Ok(object) = reply.signet() {
        assert_eq!(heard(&make::signet(&object)).signet(), Ok(object));
    }
    if let Ok(objects) = reply.history()
        && !objects.is_empty()
    {
        let lines = make::history(objects.iter().map(Vec::as_slice));
        assert_eq!(heard(&lines).history(), Ok(objects));
    }
    if let Ok(currency) = reply.currency() {
        let lines = match &currency {
            Currency::Current => make::current(),
            Currency::Update(fingerprint) => make::update(fingerprint),
        };
        assert_eq!(heard(&lines).currency(), Ok(currency));
    }
}

fn heard(lines: &[String]) -> Reply {
    let mut assembler = Assembler::new(Limits::default());
    assembler.push(lines.concat().as_bytes());
    assembler.next(true).expect("our own reply").expect("all of it")
}
