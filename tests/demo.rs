//! `syndicate demo`, the first thing a newcomer runs.

use std::process::{Command, Output};

use serde_json::Value;

fn demo(more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_syndicate"))
        .args(["demo", "--once"])
        .args(more)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn for_programs_every_line_is_json_and_the_last_is_the_summary() {
    let output = demo(&["--json"]);
    let (said, errors) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{errors}");
    let lines: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().all(|line| line["event"].is_string()), "{said}");
    let summary = lines.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["verified"], true);
    assert!(summary["entries"].as_u64().unwrap() > 12, "{summary}");
    let attacks = summary["attacks"].as_array().unwrap();
    assert!(!attacks.is_empty());
    for attack in attacks {
        assert_eq!(attack["detected"], true, "{attack}");
        assert!(attack["name"].is_string() && attack["ms"].is_u64(), "{attack}");
    }
}

#[test]
fn for_people_it_shows_the_commands_it_ran() {
    let output = demo(&[]);
    let (said, errors) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{errors}");
    for shown in ["$ syndicate lookup ", "$ syndicate verify ", " --log ", " --via http://"] {
        assert!(said.contains(shown), "no {shown:?} in:\n{said}");
    }
    assert!(said.contains("VALID"), "{said}");
    assert_eq!(errors, "", "nothing to worry about is printed");
}
