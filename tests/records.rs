//! Management records made and judged by the C reference: our strict reading
//! agrees with it, or a table names the rule that makes the difference.
//! A difference without a rule fails, and so does a line without a difference.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use syndicate::dime::Rejection;
use syndicate::dime::record::Record;

/// Where we differ from the reference in reading, by the vector's `what`.
/// Words beginning with `record-`, and `A20`, are rules of our own refusals;
/// the rest name the clause of the reference that we follow.
const READING: &[(&str, &str)] = &[
    // §1.3 "Empty value": rejected, where libdime ignores or misreads it.
    ("empty policy", "record-empty-value"),
    ("empty subdomain policy", "record-empty-value"),
    ("empty DX", "record-empty-value"),
    ("empty version", "record-empty-value"),
    ("empty TLS signature", "record-empty-value"),
    // §1.3 "Bare token": ignored, where libdime takes the value before it.
    ("DX name without a value", "bare-token"),
    // §1.3 "`ver` parsing": exactly `1`.
    ("version with trailing letter", "record-version"),
    ("version that wraps to 1 in 16 bits", "record-version"),
    // §1.3 "`=` inside a value": split at the first, a second is only padding.
    ("two POKs run together, as genrec writes them", "record-equals"),
    // §1.3 "b64 padding": accepted, stripped and flagged.
    ("POK with base64 padding", "padded"),
    ("TLS signature with padding", "padded"),
    // §1.3 "non-zero trailing bits": rejected.
    ("POK whose unused trailing bits are not zero", "record-base64"),
    // §1.3 "Repeated `pol`, `sub`": rejected if the values differ.
    ("policy twice", "record-conflict"),
    // A20: `exp` is parsed.
    ("typical", "A20"),
    ("expiry is not a number", "A20"),
    ("negative expiry", "A20"),
    // A35: `syn` is parsed (and A20 `exp`).
    ("long names", "A35"),
    ("syndicates list", "A35"),
];

/// Where `record create` differs from `genrec` with the same arguments.
const WRITING: &[(&str, &str)] = &[
    // Quirk 33: `syn` written with no space before it.
    ("syndicates", "§1.3 defective writer"),
    // Quirk 34: several keys written with no space between them.
    ("two POKs", "§1.3 defective writer"),
    // Only version 1 exists, so there is nothing to choose.
    ("version 2", "record-version"),
    // Quirk 35: the organization's key file holds the POK and will do.
    ("a keys file made by the signet tool given as the POK file", "§5 key files"),
];

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors")
}

fn table() -> Value {
    let text = std::fs::read(vectors().join("records/records.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The vectors hold one character per byte.
fn bytes(text: &Value) -> Vec<u8> {
    text.as_str().unwrap().chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// Why our reading is not the reference's, if it is not.
fn difference(reference: &Value, ours: &Result<Record, Rejection>) -> Option<String> {
    match (reference["accept"].as_bool().unwrap(), ours) {
        (false, Err(_)) => None,
        (true, Err(why)) => Some(why.rule.to_owned()),
        (false, Ok(record)) => Some(flag(record)),
        (true, Ok(record)) => {
            let poks: Vec<String> = record.poks.iter().map(hex::encode).collect();
            let tls: Vec<String> = record.tls.iter().map(|pin| hex::encode(pin.bytes())).collect();
            let dx: Vec<Vec<u8>> = record.dx.iter().map(|host| host.clone().into_bytes()).collect();
            let their_dx: Vec<Vec<u8>> =
                reference["dx"].as_array().unwrap().iter().map(bytes).collect();
            let same = poks == strings(&reference["pok"])
                && tls == strings(&reference["tls"])
                && dx == their_dx
                && record.policy.to_string() == reference["policy"].as_str().unwrap()
                && record.subdomain.to_string() == reference["subdomain"].as_str().unwrap();
            match () {
                () if !same => Some(flag(record)),
                () if !record.syndicates.is_empty() => Some("A35".to_owned()),
                () if record.expiry_days != 0 => Some("A20".to_owned()),
                () => None,
            }
        }
    }
}

fn flag(record: &Record) -> String {
    record.flags.first().map_or("no flag", |flag| flag.as_str()).to_owned()
}

/// Compares what was found with what the table expects, both ways.
fn settle(found: Vec<(String, String)>, expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        expected.iter().map(|(what, rule)| (what.to_string(), rule.to_string())).collect();
    for difference in &found {
        assert!(expected.contains(difference), "a difference without a rule: {difference:?}");
    }
    for line in &expected {
        assert!(found.contains(line), "a stale line: {line:?}");
    }
    assert_eq!(found.len(), expected.len(), "a name stands for two rows");
}

#[test]
fn records_are_read_as_by_the_reference_or_by_a_rule() {
    let table = table();
    let rows = table["records"].as_array().unwrap();
    assert_eq!(rows.len(), 61);
    let found = rows.iter().filter_map(|row| {
        let ours = Record::parse(&bytes(&row["record"]));
        Some((row["what"].as_str().unwrap().to_owned(), difference(row, &ours)?))
    });
    settle(found.collect(), READING);
}

#[test]
fn what_genrec_wrote_is_read_as_by_the_reference_or_by_a_rule() {
    let table = table();
    let runs = table["genrec"].as_array().unwrap();
    assert_eq!(runs.len(), 12);
    let found = runs.iter().filter(|run| !run["joined"].is_null()).filter_map(|run| {
        let ours = Record::parse(&bytes(&run["joined"]));
        Some((run["what"].as_str().unwrap().to_owned(), difference(&run["parsed"], &ours)?))
    });
    settle(found.collect(), &[("everything but syndicates", "A20"), ("two POKs", "record-equals")]);
    // The quoted form is a zone file's, not a record's.
    for run in runs.iter().filter(|run| run.get("parsed_without_joining").is_some()) {
        assert!(Record::parse(&bytes(&run["output"])).is_err());
    }
}

/// `genrec`'s arguments as ours, or `None` where we have no such option.
fn translated(arguments: &Value) -> Option<Vec<String>> {
    strings(arguments)
        .chunks(2)
        .map(|pair| {
            let option = match pair[0].as_str() {
                "-k" => "--key",
                "-c" => "--cert",
                "-p" => "--policy",
                "-s" => "--sub",
                "-e" => "--expiry",
                "-d" => "--dx",
                "-y" => "--syn",
                "-v" if pair[1] == "1" => return Some(vec![]),
                _ => return None,
            };
            Some(vec![option.to_owned(), pair[1].clone()])
        })
        .collect::<Option<Vec<_>>>()
        .map(|arguments| arguments.concat())
}

fn syndicate(arguments: &[String], folder: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_syndicate"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn records_are_made_as_by_genrec_or_by_a_rule() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["records", "keys"] {
        std::os::unix::fs::symlink(vectors().join(part), folder.path().join(part)).unwrap();
    }
    let pem = std::fs::read_to_string(vectors().join("records/org_pok.pem")).unwrap();
    let bare: String =
        pem.lines().filter(|line| !line.starts_with('=')).collect::<Vec<_>>().join("\n");
    std::fs::write(folder.path().join("pok_without_checksum.pem"), bare).unwrap();

    let table = table();
    let found = table["genrec"].as_array().unwrap().iter().filter_map(|run| {
        let what = run["what"].as_str().unwrap().to_owned();
        let Some(arguments) = translated(&run["arguments"]) else {
            return Some((what, "record-version".to_owned()));
        };
        let arguments = [vec!["record".to_owned(), "create".to_owned()], arguments].concat();
        let (code, made) = syndicate(&arguments, folder.path());
        match (run["joined"].as_str(), code) {
            (Some(theirs), Some(0)) if made.trim_end_matches('\n') == theirs => None,
            (Some(_), Some(0)) => Some((what, "§1.3 defective writer".to_owned())),
            (None, Some(0)) => Some((what, "§5 key files".to_owned())),
            (None, Some(2)) => None,
            other => panic!("{what}: {other:?}"),
        }
    });
    settle(found.collect(), WRITING);
}

#[test]
fn every_record_made_is_accepted_again() {
    let arguments = [
        "record",
        "create",
        "--key",
        "records/org_pok.pem",
        "--key",
        "records/org2_pok.pem",
        "--cert",
        "records/dx_cert.pem",
        "--policy",
        "strict",
        "--syn",
        "a.example",
        "--syn",
        "b.example:443",
        "--dx",
        "dx.public.example",
        "--expiry",
        "30",
    ];
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let (code, made) = syndicate(&arguments, &vectors());
    assert_eq!(code, Some(0));
    let parse = ["record", "parse", made.trim_end(), "--json"].map(str::to_owned);
    let (code, parsed) = syndicate(&parse, &vectors());
    assert_eq!(code, Some(0));
    let parsed: Value = serde_json::from_str(&parsed).unwrap();
    assert_eq!(parsed["version"], 1);
    assert_eq!(parsed["poks"].as_array().unwrap().len(), 2);
    assert_eq!(parsed["tls"][0]["form"], "signature");
    assert_eq!(parsed["policy"], "strict");
    assert_eq!(parsed["subdomain"], "strict");
    assert_eq!(parsed["syndicates"], serde_json::json!(["a.example", "b.example:443"]));
    assert_eq!(parsed["dx"], serde_json::json!(["dx.public.example"]));
    assert_eq!(parsed["expiry_days"], 30);
    assert_eq!(parsed["ttl"], Value::Null);
    assert_eq!(parsed["unknown"], serde_json::json!([]));
    assert_eq!(parsed["flags"], serde_json::json!([]));
}

#[test]
fn the_command_line_tells_the_rule() {
    let refused = ["record", "parse", "ver=2", "--json"].map(str::to_owned);
    let (code, text) = syndicate(&refused, &vectors());
    assert_eq!(code, Some(1));
    let text: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(text["error"]["rule"], "record-version");
    assert!(!text["error"]["message"].as_str().unwrap().is_empty());
    let (code, _) = syndicate(&["record", "parse"].map(str::to_owned), &vectors());
    assert_eq!(code, Some(2));
    let dime = ["record", "create", "--key", "records/org_pok.pem", "--zone", "Example.org"];
    let (code, zone) = syndicate(&dime.map(str::to_owned), &vectors());
    assert_eq!(code, Some(0));
    assert!(zone.lines().any(|line| line.starts_with("_dime.example.org. 3600 IN TXT ( \"ver=1 ")));
    assert!(zone.lines().any(|line| line.starts_with("_dx.example.org. 3600 IN TXT ( \"ver=1 ")));
}
