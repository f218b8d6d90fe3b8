//! `syndicate demo`, the first thing a newcomer runs.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
fn for_programs_every_line_is_json_and_the_files_prove_what_it_says() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("demo");
    let output = demo(&["--json", "--data", data.to_str().unwrap()]);
    let (said, errors) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{errors}");
    let lines: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().all(|line| line["event"].is_string()), "{said}");
    let summary = lines.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["verified"], true);
    assert_eq!(summary["logs"], 3);
    let root = |line: &Value| line["entries"].as_u64().unwrap();
    let of_one = lines.iter().find(|line| line["event"] == "log").map(root).unwrap();
    assert!(of_one > 12 && root(summary) >= 3 * of_one, "{summary}");
    let attacks = summary["attacks"].as_array().unwrap();
    let names: Vec<_> = attacks.iter().map(|attack| attack["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["key-swap", "split-view", "forged-key"]);
    for attack in attacks {
        assert_eq!(attack["detected"], true, "{attack}");
        assert!(attack["name"].is_string() && attack["ms"].is_u64(), "{attack}");
    }
    // The demo's processes were told whom to believe; these files tell it anew.
    let key = lines.iter().find_map(|line| line["key"].as_str()).expect("a log's key");
    a_receipt_says_secure_only_with_a_chain_that_proves_it(&data, key);
    two_incidents_stand_alone(&data);
}

#[test]
fn for_people_it_shows_the_commands_it_ran() {
    let output = demo(&[]);
    let (said, errors) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{errors}");
    let commands = ["lookup", "check", "verify"].map(|command| format!("$ syndicate {command} "));
    let more = [
        " --policy ",
        " --via http://",
        "cosigned by 2 others",
        "split view after",
        "  AGREED: ",
        "  SPLIT: ",
        "--dx-port ",
        "3 of 3 attacks detected, ",
        " entries in 3 logs.",
    ];
    for shown in commands.iter().map(String::as_str).chain(more) {
        assert!(said.contains(shown), "no {shown:?} in:\n{said}");
    }
    assert!(said.contains("VALID"), "{said}");
    assert_eq!(errors, "", "nothing to worry about is printed");
}

/// Ctrl-C ends it well.
#[test]
fn without_once_the_mirrors_stay_until_they_are_told() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_syndicate"))
        .args(["demo", "--json"])
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line).expect(&line));
    let staying = lines.find(|line| line["event"] == "staying").expect("it stays");
    let folder = Path::new(staying["folder"].as_str().unwrap()).to_owned();
    assert!(folder.join("policy").exists());
    let pid = demo.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(lines.last().expect("more lines")["event"], "summary");
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    assert!(!folder.exists(), "nothing is left behind");
}

fn verify(file: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_syndicate"))
        .args(["verify", file.to_str().unwrap(), "--json"])
        .args(more)
        .output()
        .unwrap();
    let said = text(output.stdout);
    (output.status.code(), serde_json::from_str(&said).expect(&said))
}

fn a_receipt_says_secure_only_with_a_chain_that_proves_it(data: &Path, key: &str) {
    let receipt = data.join("receipt.json");
    let verify = |more: &[&str]| verify(&receipt, &[&["--log", key], more].concat());
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
    let other = data.join("other.key");
    let iana = ". IN DS 20326 8 2 \
                E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n";
    std::fs::write(&other, iana).unwrap();
    let (code, answer) = verify(&["--trust-anchor", other.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!(answer["error"]["rule"], "dnssec-chain", "{answer}");
}

/// Without the mirrors, which are gone.
fn two_incidents_stand_alone(data: &Path) {
    let file = |name: &str| data.join(name).to_str().unwrap().to_owned();
    let (policy, anchor) = (file("policy"), file("root.key"));
    let mut kinds = Vec::new();
    for entry in std::fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("incident") {
            continue;
        }
        let (code, answer) = verify(&path, &["--policy", &policy, "--trust-anchor", &anchor]);
        assert_eq!((code, &answer["proved"]), (Some(0), &Value::Bool(true)), "{answer}");
        kinds.push(answer["kind"].as_str().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(kinds, ["forged-key", "split-view"]);
}
