//! The command line of the making side, used as its users would: keys, an
//! organization, a user, a rotation, in every dialect, checked by `verify`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// `syndicate signet` in a folder of its own.
struct Shell(TempDir);

impl Shell {
    fn new() -> Shell {
        Shell(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Exit code and standard output of a command line, split at spaces.
    fn run(&self, line: &str) -> (i32, String) {
        let run = Command::new(env!("CARGO_BIN_EXE_syndicate"))
            .arg("signet")
            .args(line.split_whitespace())
            .current_dir(self.path())
            .output()
            .unwrap();
        (run.status.code().unwrap(), String::from_utf8(run.stdout).unwrap())
    }

    fn ok(&self, line: &str) -> String {
        let (code, out) = self.run(line);
        assert_eq!(code, 0, "{line}");
        out
    }

    fn json(&self, line: &str) -> (i32, Value) {
        let (code, out) = self.run(&format!("{line} --json"));
        (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{line}: {error}: {out}")))
    }

    /// Makes a key file and gives what it prints behind `what`.
    fn keygen(&self, owner: &str, name: &str) -> String {
        let out = self.ok(&format!("keygen {owner} --out {name}"));
        let line = out.lines().find(|line| line.starts_with("signing key")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    }
}

/// An organization with a secondary key and a user with one rotation.
fn organization(dialect: &str) -> (Shell, String) {
    let shell = Shell::new();
    let pok = shell.keygen("org", "org.key");
    shell.keygen("org", "sok.key");
    shell.keygen("user", "alice1.key");
    shell.keygen("user", "alice2.key");
    let (org, user) = match dialect {
        "P" => ("", ""),
        _ => (
            "--sok sok.key=signets,messages --field Name=Example --domain example.com",
            "--address alice@example.com --field Title=Queen --undefined colour=red",
        ),
    };
    shell.ok(&format!("org --key org.key --dialect {dialect} {org} --out org.signet"));
    shell.ok(&format!("request --key alice1.key --dialect {dialect} --out alice1.ssr"));
    shell.ok(&format!("sign alice1.ssr --org org.signet --key org.key {user} --out alice1.signet"));
    shell.ok(&format!(
        "rotate --key alice2.key --previous alice1.key --dialect {dialect} --out alice2.ssr"
    ));
    let signer = if dialect == "P" { "org.key" } else { "sok.key" };
    shell.ok(&format!(
        "sign alice2.ssr --org org.signet --key {signer} --previous alice1.signet {user} \
         --binary --out alice2.signet"
    ));
    (shell, pok)
}

#[test]
fn what_is_made_verifies_in_every_dialect() {
    for dialect in ["L", "M", "P"] {
        let (shell, pok) = organization(dialect);
        let level = if dialect == "P" { "crypto" } else { "id" };

        let (code, org) = shell.json(&format!("verify org.signet --pok {pok} --name example.com"));
        assert_eq!((code, &org["verdict"], &org["level"]), (0, &"valid".into(), &level.into()));

        let context = format!("--org org.signet --pok {pok} --name alice@example.com");
        let (code, first) = shell.json(&format!("verify alice1.signet {context}"));
        assert_eq!((code, &first["custody"]), (0, &"absent".into()));
        assert_eq!(first["signers"]["6"], "pok");

        let line = format!("verify alice2.signet {context} --previous alice1.signet");
        let (code, second) = shell.json(&line);
        assert_eq!(
            (code, &second["custody"], &second["rule"]),
            (0, &"verified".into(), &Value::Null)
        );
        let signer = if dialect == "P" { "pok" } else { "sok:0" };
        assert_eq!(second["signers"]["6"], signer);
        assert_eq!(
            second["signers"].as_object().unwrap().len(),
            if dialect == "P" { 1 } else { 3 }
        );

        let (code, shown) = shell.json("inspect alice2.signet");
        assert_eq!(code, 0);
        assert_eq!(shown["type"], "user");
        assert_eq!(shown["dialect"], dialect);
        assert_eq!(shown["level"], level);
        assert_eq!(shown["fields"][0]["name"], "Signing-Key");
        assert_eq!(shown["fingerprints"]["full"].is_null(), dialect == "P");
        let (code, request) = shell.json("verify alice2.ssr --previous alice1.signet");
        assert_eq!((code, &request["rule"]), (0, &"G9".into()));
    }
}

#[test]
fn verify_says_what_is_wrong() {
    let (shell, pok) = organization("L");
    let rule = |line: &str| {
        let (code, answer) = shell.json(line);
        assert_eq!(code, if answer["verdict"] == "valid" { 0 } else { 1 }, "{line}");
        answer["rule"].as_str().unwrap_or("none").to_owned()
    };
    let stranger = "00".repeat(32);
    assert_eq!(rule("verify org.signet"), "no-pok");
    assert_eq!(rule(&format!("verify org.signet --pok {stranger}")), "pok-mismatch");
    assert_eq!(rule(&format!("verify org.signet --pok {pok} --name example.org")), "G2");
    assert_eq!(rule("verify alice1.signet"), "signer");
    assert_eq!(rule("verify alice1.signet --org org.signet"), "none");
    assert_eq!(rule("verify alice1.signet --org org.signet --name bob@example.com"), "G2");
    assert_eq!(rule("verify alice1.signet --org alice2.signet"), "G3");
    assert_eq!(rule("verify alice2.signet --org org.signet"), "G16");
    assert_eq!(rule("verify alice1.signet --org org.signet --previous alice2.signet"), "custody");
    assert_eq!(rule("verify alice2.signet --org org.signet --previous alice2.signet"), "custody");
    assert_eq!(shell.run("verify absent --org org.signet").0, 2);
    assert_eq!(shell.run("verify org.signet --pok short").0, 2);
    assert_eq!(shell.run("verify").0, 2);
}

#[test]
fn a_rollover_names_the_previous_org_signet() {
    let (shell, pok) = organization("L");
    let other = shell.keygen("org", "other.key");
    shell.ok("org --key other.key --domain example.com --out other.signet");
    shell.ok(
        "sign alice2.ssr --org other.signet --key other.key --address alice@example.com --out new",
    );
    let line = format!("verify new --org other.signet --pok {other} --previous alice1.signet");
    assert_eq!(shell.json(&line).1["rule"], "G3");
    assert_eq!(shell.json(&format!("{line} --previous-org org.signet")).0, 0);
    assert_ne!(pok, other);
}

#[test]
fn inspect_refuses_with_the_rule() {
    let (shell, _) = organization("L");
    let mut bytes = std::fs::read(shell.path().join("alice2.signet")).unwrap();
    bytes.push(0);
    let length = (bytes.len() - 5) as u16;
    bytes[3..5].copy_from_slice(&length.to_be_bytes());
    std::fs::write(shell.path().join("longer"), &bytes).unwrap();
    let (code, answer) = shell.json("inspect longer");
    assert_eq!((code, &answer["error"]["rule"]), (1, &"S-1".into()));
    assert_eq!(shell.run("inspect longer").0, 1);
    assert_eq!(shell.run("inspect absent").0, 2);
    assert_eq!(shell.run("inspect alice1.key").0, 1);
}

#[test]
fn the_making_side_guards_keys_and_names() {
    let (shell, _) = organization("L");
    let mode =
        |name: &str| std::fs::metadata(shell.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("org.key") & 0o777, 0o600);
    shell.ok("keygen org --out o.key --pok-file o.pem");
    assert_eq!(mode("o.pem") & 0o777, 0o600);

    assert_eq!(shell.run("keygen user --out org.key").0, 2, "it would overwrite a key");
    shell.ok("keygen user --out o.key --force");
    let base = "sign alice1.ssr --org org.signet --address alice@example.com --out x";
    assert_eq!(shell.run(&format!("{base} --key alice1.key")).0, 1, "not the organization");
    assert_eq!(
        shell.run(&format!("{base} --key org.key --previous alice1.signet")).0,
        1,
        "no custody"
    );
    assert_eq!(shell.run("org --key org.key --out x").0, 2, "level id needs a name");
    assert_eq!(shell.run("org --key org.key --field Nonsense=1 --domain a.b --out x").0, 2);
    assert!(!shell.path().join("x").exists());

    shell.ok("org --key org.key --sok sok.key=software --domain example.com --out soft.signet");
    let line = "sign alice1.ssr --org soft.signet --level crypto --key sok.key --out y";
    assert_eq!(shell.run(line).0, 1, "that secondary key may not sign signets");
}

#[test]
fn split_and_armor_keep_the_signet() {
    let (shell, pok) = organization("L");
    shell.ok("split alice2.signet --level full --out full.signet");
    shell.ok("armor alice2.signet --out alice2.pem");
    shell.ok("armor alice2.pem --binary --out alice2.bin");
    let read = |name: &str| std::fs::read(shell.path().join(name)).unwrap();
    assert_eq!(read("alice2.signet"), read("alice2.bin"));
    let (code, full) = shell.json(&format!("verify full.signet --org org.signet --pok {pok}"));
    assert_eq!((code, &full["level"]), (0, &"full".into()));
}
