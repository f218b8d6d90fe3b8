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
    let names: Vec<_> = attacks.iter().map(|attack| attack["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["key-swap", "split-view"]);
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
    let commands = ["lookup", "check", "verify"].map(|command| format!("$ syndicate {command} "));
    let more = [" --policy ", " --via http://", "cosigned by 2 others", "split view after"];
    for shown in commands.iter().map(String::as_str).chain(more) {
        assert!(said.contains(shown), "no {shown:?} in:\n{said}");
    }
    assert!(said.contains("VALID"), "{said}");
    assert_eq!(errors, "", "nothing to worry about is printed");
}

#[test]
fn a_receipt_says_secure_only_with_a_chain_that_proves_it() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("demo");
    let output = demo(&["--json", "--data", data.to_str().unwrap()]);
    let said = text(output.stdout);
    let key = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find_map(|line| line["key"].as_str().map(str::to_owned))
        .expect("the log's key");
    let verify = |more: &[&str]| -> (Option<i32>, Value) {
        let receipt = data.join("receipt.json");
        let output = Command::new(env!("CARGO_BIN_EXE_syndicate"))
            .args(["verify", receipt.to_str().unwrap(), "--log", &key, "--json"])
            .args(more)
            .output()
            .unwrap();
        let said = text(output.stdout);
        (output.status.code(), serde_json::from_str(&said).expect(&said))
    };
    let unchecked = |answer: &Value| answer.to_string().contains("DNSSEC UNCHECKED");

    // Under the private root that signed it.
    let right = data.join("root.key");
    let (code, answer) = verify(&["--trust-anchor", right.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{answer}");
    assert!(!unchecked(&answer), "{answer}");
    // The public root knows nothing of this chain: the mirror's word.
    let (code, answer) = verify(&[]);
    assert_eq!(code, Some(0), "{answer}");
    assert!(unchecked(&answer), "{answer}");
    // Asked for by name, another root is a fault.
    let other = place.path().join("other.key");
    let iana = ". IN DS 20326 8 2 \
                E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n";
    std::fs::write(&other, iana).unwrap();
    let (code, answer) = verify(&["--trust-anchor", other.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!(answer["error"]["rule"], "dnssec-chain", "{answer}");
}
