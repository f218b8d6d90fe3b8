//! All 113 command lines of the vectors. Where our verdict differs from the
//! reference's, a table names the rule: no difference without a rule, and no
//! rule without a difference.

use std::collections::BTreeSet;

use serde_json::Value;
use syndicate::dime::command::{self, Command, Grammar, Line, Overlooked};
use syndicate::dime::{Name, Rejection};

/// Rule, and the lines it accepts that the reference refuses (by description).
const WE_ACCEPT: &[(&str, &[&str])] = &[
    (
        // A server hears both grammars; the reference's parser knows only B and
        // refuses what its own client sends.
        "A17: grammar A",
        &[
            "STARTTLS as the reference client sends it",
            "HELO without argument name",
            "EHLO as the reference client sends it",
            "DATA as the reference client sends it",
            "MAIL as the reference client sends it",
            "RCPT as the reference client sends it",
            "SGNT as the reference client sends it",
            "SGNT with fingerprint as the reference client sends it",
            "HIST as the reference client sends it",
            "VRFY as the reference client sends it",
            "STATS as the reference client sends it",
        ],
    ),
    (
        "A17: verbs and keys in any case",
        &["EHLO in lower case", "EHLO argument name in lower case"],
    ),
    (
        "§6.4: 1,024 bytes, not 512",
        &[
            "line of 513 bytes including the line end",
            "line of 514 bytes including the line end",
            "line of 1000 bytes including the line end",
            "line of 513 bytes including a bare LF",
        ],
    ),
];

/// Rule of the rejection, and the lines we refuse that the reference accepts.
const WE_REFUSE: &[(&str, &[&str])] = &[
    // A28: names are normalized, so they must be names.
    ("name", &["SGNT with something that is not an address"]),
    // §6.4: no control characters; a log or a reply might repeat them.
    ("line", &["NUL inside an argument"]),
];

struct Row {
    line: Vec<u8>,
    what: String,
    accept: bool,
    value: Value,
}

fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/vectors/dmtp_commands.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let row = |value: &Value| Row {
        line: latin1(&value["line"]),
        what: value["what"].as_str().unwrap().to_owned(),
        accept: value["accept"].as_bool().unwrap(),
        value: value.clone(),
    };
    file["lines"].as_array().unwrap().iter().map(row).collect()
}

/// Texts of the vectors hold one character per byte.
fn latin1(text: &Value) -> Vec<u8> {
    text.as_str().unwrap().chars().map(|c| u8::try_from(c).unwrap()).collect()
}

fn rule_for(table: &'static [(&'static str, &[&str])], what: &str) -> Option<&'static str> {
    table.iter().find(|(_, lines)| lines.contains(&what)).map(|(rule, _)| *rule)
}

/// What the table must say about a row: nothing where the verdicts agree.
fn verdict(row: &Row, ours: &Result<Line, Rejection>) -> Result<(), String> {
    let (accept, refuse) = (rule_for(WE_ACCEPT, &row.what), rule_for(WE_REFUSE, &row.what));
    match (ours, row.accept, accept, refuse) {
        (Ok(_), true, None, None) | (Err(_), false, None, None) => Ok(()),
        (Ok(line), false, Some(rule), None) => explains(rule, line),
        (Err(why), true, None, Some(rule)) if why.rule == rule => Ok(()),
        _ => Err(format!("reference accepts: {}; the table: {accept:?} {refuse:?}", row.accept)),
    }
}

/// Whether the rule that lets a line pass is the reason why the reference does not.
fn explains(rule: &str, line: &Line) -> Result<(), String> {
    let right = match rule {
        "A17: grammar A" => line.grammar == Grammar::A && line.strict,
        "A17: verbs and keys in any case" => {
            line.overlooked.contains(&Overlooked::VerbCase)
                || line.overlooked.contains(&Overlooked::KeyCase)
        }
        "§6.4: 1,024 bytes, not 512" => line.overlooked == [Overlooked::Length],
        _ => false,
    };
    if right { Ok(()) } else { Err(format!("{rule} does not explain it")) }
}

#[test]
fn every_line_has_the_reference_s_verdict_or_a_rule() {
    let rows = rows();
    assert_eq!(rows.len(), 113);
    assert_eq!(rows.iter().filter(|row| row.accept).count(), 48);
    let mut faults = Vec::new();
    for row in &rows {
        let ours = command::parse(&row.line);
        if let Err(why) = verdict(row, &ours) {
            faults.push(format!("{}: {why}; ours: {ours:?}", row.what));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_has_no_stale_line() {
    let known: BTreeSet<String> = rows().into_iter().map(|row| row.what).collect();
    let mut listed = BTreeSet::new();
    for (rule, lines) in WE_ACCEPT.iter().chain(WE_REFUSE) {
        for line in *lines {
            assert!(known.contains(*line), "{rule}: no such line: {line}");
            assert!(listed.insert(*line), "{rule}: listed twice: {line}");
        }
    }
}

/// The reference's parser reads grammar B to the letter: what we call strict B
/// is what it accepts, but for what we refuse altogether.
#[test]
fn the_strict_reading_is_the_reference_s() {
    for row in rows() {
        let strict = command::parse(&row.line)
            .is_ok_and(|line| line.strict && matches!(line.grammar, Grammar::B | Grammar::Both));
        let refused = rule_for(WE_REFUSE, &row.what).is_some();
        assert_eq!(strict, row.accept && !refused, "{}", row.what);
    }
}

#[test]
fn arguments_and_formatting_are_the_reference_s() {
    let mut compared = 0;
    for row in rows() {
        let Ok(line) = command::parse(&row.line) else { continue };
        if !row.accept {
            continue;
        }
        assert_eq!(row.value["command"], line.command.verb(), "{}", row.what);
        let theirs: Vec<(String, Vec<u8>)> = row.value["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|arg| (arg["name"].as_str().unwrap_or("").to_owned(), latin1(&arg["value"])))
            .collect();
        let ours: Vec<(String, Vec<u8>)> = line
            .command
            .arguments()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.into_bytes()))
            .collect();
        assert_eq!(ours, theirs, "{}", row.what);
        let formatted = line.command.format(Grammar::B).into_bytes();
        assert_eq!(formatted, latin1(&row.value["formatted"]), "{}", row.what);
        compared += 1;
    }
    assert_eq!(compared, 46);
}

#[test]
fn both_grammars_read_back() {
    for row in rows() {
        let Ok(line) = command::parse(&row.line) else { continue };
        for grammar in [Grammar::A, Grammar::B] {
            let written = line.command.format(grammar);
            let again = command::parse(written.as_bytes()).unwrap();
            assert_eq!(again.command, line.command, "{}", row.what);
        }
    }
}

#[test]
fn the_at_sign_decides_in_grammar_a() {
    let name = |line: &str| match command::parse(line.as_bytes()).unwrap().command {
        Command::Signet { name, .. } => name,
        other => panic!("{other:?}"),
    };
    assert!(matches!(name("SGNT <public.example>\r\n"), Name::Domain(_)));
    assert!(matches!(name("sgnt <Alice@Public.Example>\n"), Name::Address(_)));
}
