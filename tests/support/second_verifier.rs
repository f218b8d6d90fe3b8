//! Runs the second verifier (Python) over many cases in one process.

#![allow(dead_code)]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// One answer for each case, or `None` without Python: then the test says so.
pub fn answers(cases: &[Value]) -> Option<Vec<Value>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/second_verifier/verify.py");
    let child = Command::new("python3")
        .args([script, "batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            println!("SKIPPED: the second verifier needs python3: {error}");
            return None;
        }
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
    // From a thread of its own: the answers would fill their pipe meanwhile.
    let feeder = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("the second verifier ends");
    feeder.join().expect("no panic").expect("it reads all cases");
    assert!(output.status.success(), "the second verifier failed");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let answers: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), cases.len());
    Some(answers)
}
