//! The walls of the house: which room may import which. Modules of one package
//! may all import each other and the compiler stays silent, so this test is
//! the wall. A new door is one line here, with its reason in the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Room and what it may import. `demo`, `daemon` and the binary may use every room.
const DOORS: &[(&str, &[&str])] = &[
    ("dime", &[]),
    ("proof", &["dime"]),
    ("clock", &["dime"]), // for the one time type, `Timestamp`
    ("errors", &[]),
    ("store", &["dime"]), // typed rows name domains, addresses and times
    ("resolver", &["dime", "proof", "clock"]), // what makes a DNSSEC chain is `proof::dnssec`
    ("dmtp", &["dime", "resolver", "clock"]), // the way to a host is asked of DNS
    ("crawl", &["dime", "proof", "resolver", "dmtp", "store", "clock", "errors"]),
    ("directory", &["dime", "proof", "store", "clock"]),
    ("log", &["dime", "proof", "directory", "store", "clock", "errors"]),
    ("serve", &["dime", "proof", "log", "directory", "peers", "clock", "errors"]),
    ("client", &["dime", "proof", "resolver", "dmtp", "clock", "errors"]),
    // `client` fetches logs, the same way for peers and auditors
    ("peers", &["dime", "proof", "log", "directory", "client", "store", "clock", "errors"]),
    ("audit", &["dime", "proof", "client", "clock", "errors"]), // nothing of the prover
    (
        "config",
        // how fast names are compared is `peers::comparison::Pace`
        &[
            "dime",
            "proof",
            "resolver",
            "dmtp",
            "crawl",
            "directory",
            "log",
            "peers",
            "serve",
            "store",
        ],
    ),
];

/// Rooms that nobody imports but the binary, the tests and each other as said.
const ROOFS: &[&str] = &["config", "daemon", "demo"];

/// What pure rooms must not name: runtimes, sockets, files, clocks, randomness.
/// Of `hickory_proto` only the algorithms of DNSSEC are pure enough.
const IMPURE: &[&str] = &[
    "tokio",
    "reqwest",
    "axum",
    "object_store",
    "sled",
    "hickory_resolver",
    "hickory_server",
    "hickory_net",
    "hickory_proto::op",
    "hickory_proto::rr",
    "SerialNumber",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "SystemTime",
    "Instant",
    "getrandom",
    "tracing",
    "crate::clock",
];

#[test]
fn rooms_import_only_through_their_doors() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        DOORS.iter().map(|(room, doors)| (*room, doors.iter().copied().collect())).collect();
    let mut faults = Vec::new();
    for (room, file, code) in sources() {
        let Some(doors) = allowed.get(room.as_str()) else { continue };
        for import in imports(&code) {
            let known = allowed.contains_key(import.as_str()) || ROOFS.contains(&import.as_str());
            if known && import != room && !doors.contains(import.as_str()) {
                faults.push(format!("{} imports `{import}`", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "closed doors:\n{}", faults.join("\n"));
}

#[test]
fn every_room_is_in_the_table() {
    let mut named: BTreeSet<&str> = DOORS.iter().map(|(room, _)| *room).collect();
    named.extend(ROOFS);
    for (room, file, _) in sources() {
        if !["lib", "main", "cli"].contains(&room.as_str()) {
            assert!(named.contains(room.as_str()), "{}: no such room", file.display());
        }
    }
}

#[test]
fn the_table_has_no_loop() {
    let doors: BTreeMap<&str, &[&str]> = DOORS.iter().copied().collect();
    fn walk<'a>(room: &'a str, doors: &BTreeMap<&'a str, &'a [&'a str]>, path: &mut Vec<&'a str>) {
        assert!(!path.contains(&room), "loop: {path:?} -> {room}");
        path.push(room);
        for next in doors.get(room).copied().unwrap_or_default() {
            walk(next, doors, path);
        }
        path.pop();
    }
    for (room, _) in DOORS {
        walk(room, &doors, &mut Vec::new());
    }
}

#[test]
fn pure_rooms_name_no_world() {
    let mut faults = Vec::new();
    for (room, file, code) in sources() {
        if room != "dime" && room != "proof" {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            if let Some(word) = IMPURE.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: `{word}`", file.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "not pure:\n{}", faults.join("\n"));
}

/// (room, file, code without comments and unit tests) of every file below `src`.
fn sources() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the sources") {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let inside = path.strip_prefix(&src).expect("below src");
                let first = inside.components().next().expect("a first part");
                let room = Path::new(first.as_os_str()).file_stem().expect("a name");
                let text = fs::read_to_string(&path).expect("a readable source");
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                let code: String = code
                    .lines()
                    .map(|line| line.split("//").next().unwrap_or_default())
                    .collect::<Vec<_>>()
                    .join("\n");
                found.push((room.to_string_lossy().into_owned(), inside.to_owned(), code));
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// First path segment after every `crate::`, also inside `use crate::{a, b::c}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            let mut fresh = true;
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => fresh = true,
                    c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => word.push(c),
                    c if c.is_whitespace() => {}
                    _ => fresh = false,
                }
                if (!fresh || letter == ',') && !word.is_empty() {
                    names.insert(std::mem::take(&mut word));
                }
            }
            if !word.is_empty() {
                names.insert(word);
            }
        } else {
            names.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

#[test]
fn imports_are_read_right() {
    let code = "use crate::{clock::Clock, proof, store::{a, b}};\nlet x = crate::dime::X;";
    let names: Vec<String> = imports(code).into_iter().collect();
    assert_eq!(names, ["clock", "dime", "proof", "store"]);
}
