//! The main job on input that nobody here wrote: a DX host that serves signets
//! made by the C reference, under its certificate, found by its record; crawled
//! by a mirror, logged, and a lookup verified by another process.

#[path = "support/dx.rs"]
mod dx;
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use process::{Faces, Mirror, PATIENCE, syndicate};
use serde_json::Value;
use syndicate::demo::dns::PrivateDns;
use tokio::time::{Instant, sleep};

const DOMAIN: &str = "public.example";

fn json(name: &str) -> Value {
    serde_json::from_slice(&dx::bytes(name)).unwrap()
}

/// A text of the reference's tests for records.
fn record(what: &str) -> String {
    let rows = json("records/records.json");
    let row = rows["records"].as_array().unwrap().iter().find(|row| row["what"] == what).unwrap();
    row["record"].as_str().unwrap().to_owned()
}

/// What the reference's own tool printed, its chunks joined.
fn generated(what: &str) -> String {
    let rows = json("records/records.json");
    let row = rows["genrec"].as_array().unwrap().iter().find(|row| row["what"] == what).unwrap();
    row["joined"].as_str().unwrap().to_owned()
}

/// The fingerprints that the reference printed for a signet.
fn fingerprints(row: &str) -> Value {
    let manifest = json("manifest.json");
    let rows = manifest["rows"].as_array().unwrap();
    rows.iter().find(|known| known["id"] == row).unwrap()["fingerprints"].clone()
}

/// An org with secondary keys, alice with a chain, bob signed by a secondary key.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("users/alice")).unwrap();
    fs::write(folder.path().join("org.signet"), dx::bytes("signets/org_multi_sok.bin")).unwrap();
    for link in 0..5 {
        serve_link(folder.path(), link);
    }
    let bob = dx::bytes("signets/user_by_sok_signet.bin");
    fs::write(folder.path().join("users/bob.signet"), bob).unwrap();
    folder
}

fn serve_link(folder: &Path, link: usize) {
    let bytes = dx::bytes(&format!("signets/chain_{link}.bin"));
    fs::write(folder.join(format!("users/alice/{link}-key.signet")), bytes).unwrap();
}

/// `syndicate dx` with the reference's certificate.
struct Host {
    child: Child,
    addr: SocketAddr,
}

impl Host {
    fn start(folder: &Path) -> Host {
        let records = dx::vectors().join("records");
        let mut child = syndicate()
            .args(["dx", "--json", "--domain", DOMAIN, "--listen", "127.0.0.1:0", "--dir"])
            .arg(folder)
            .arg("--cert")
            .arg(records.join("dx_cert.pem"))
            .arg("--key")
            .arg(records.join("dx_key.pem"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        Host { child, addr: said["addr"].as_str().unwrap().parse().unwrap() }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `syndicate lookup --json` (or `history`) prints, and whether it says yes.
fn ask(command: &str, name: &str, faces: &Faces, save: &Path) -> (bool, Value) {
    let output = syndicate()
        .args([command, name, "--via", &faces.http, "--log", &faces.key.to_string(), "--json"])
        .arg("--save")
        .arg(save)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answer = serde_json::from_str(text.trim_end()).unwrap_or(Value::Null);
    (output.status.code() == Some(0), answer)
}

/// Asks until that version is in force.
async fn expect(name: &str, version: u64, faces: &Faces, save: &Path, mirror: &Mirror) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (verified, answer) = ask("lookup", name, faces, save);
        if answer["current"] == version {
            assert!(verified, "{answer}");
            assert_eq!(answer["verified"], true);
            assert_eq!(answer["verdict"], "VALID", "{answer}");
            assert_eq!(answer["version"], version, "{answer}");
            return answer;
        }
        assert!(Instant::now() < deadline, "{name}: {answer}\n{}", mirror.words());
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_reference_made_is_crawled_logged_and_proved() {
    let signets = folder();
    let host = Host::start(signets.path());
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let dns = PrivateDns::builder().signed(DOMAIN).start().await.unwrap();
    let typical = record("typical");
    assert!(typical.contains(" dx=dx.public.example "));
    dns.set_txt("_dime.public.example", &[&typical]).unwrap();
    dns.set_addresses("dx.public.example", &[here]).unwrap();

    let place = tempfile::tempdir().unwrap();
    let mut file = process::configuration(place.path(), &dns, host.addr.port());
    file.crawl.names = vec!["alice@public.example".into(), "bob@public.example".into()];
    let config = process::write(place.path(), &file);
    let mut mirror = Mirror::start(&config, "info");
    let faces = mirror.faces().await;
    let save = place.path().join("receipt.json");

    // The whole chain came with HIST, each link a version; the last is in force.
    let alice = expect("alice@public.example", 5, &faces, &save, &mirror).await;
    assert_eq!(alice["fingerprints"], said_of(&alice, "chain_4"));
    let verify = syndicate()
        .arg("verify")
        .arg(&save)
        .args(["--log", &faces.key.to_string(), "--json"])
        .output()
        .unwrap();
    assert_eq!(verify.status.code(), Some(0), "{verify:?}");
    let (verified, history) = ask("history", "alice@public.example", &faces, &save);
    assert!(verified, "{history}");
    let versions = history["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 5, "{history}");
    for (link, version) in versions.iter().enumerate() {
        let event = if link == 0 { "FIRST_SEEN" } else { "ROTATED" };
        assert_eq!(version["events"], serde_json::json!([event]), "{history}");
        assert_eq!(version["fingerprints"], said_of(version, &format!("chain_{link}")));
    }
    let bob = expect("bob@public.example", 1, &faces, &save, &mirror).await;
    assert_eq!(bob["fingerprints"], said_of(&bob, "user_by_sok_signet"));
    let domain = expect(DOMAIN, 1, &faces, &save, &mirror).await;
    let pok = "dabdebf05f29ee53989949d6a1fd5705a4734a59e3bc44763afa1232d5bf02e2";
    assert_eq!(domain["poks"], serde_json::json!([pok]));
    assert_eq!(domain["fingerprints"], said_of(&domain, "org_multi_sok"));
    let (code, words) = mirror.stop().await;
    assert_eq!(code, Some(0), "{words}");

    // The owner rotates, and puts up a record of the reference's tool that names
    // no DX: the domain itself is the host (reference §6.2).
    serve_link(signets.path(), 5);
    let plain = generated("POK and certificate");
    assert!(!plain.contains("dx="));
    dns.set_txt("_dime.public.example", &[&plain]).unwrap();
    dns.remove("dx.public.example").unwrap();
    dns.set_addresses(DOMAIN, &[here]).unwrap();
    // Nothing is due yet, but for a mirror that lost its index everything is.
    fs::remove_dir_all(place.path().join("data/state")).unwrap();
    let mut mirror = Mirror::start(&config, "info");
    let faces = mirror.faces().await;
    let alice = expect("alice@public.example", 6, &faces, &save, &mirror).await;
    assert_eq!(alice["fingerprints"], said_of(&alice, "chain_5"));
    assert_eq!(alice["events"], serde_json::json!(["ROTATED"]));
    expect(DOMAIN, 2, &faces, &save, &mirror).await;
    let (code, words) = mirror.stop().await;
    assert_eq!(code, Some(0), "{words}");
}

/// The reference's fingerprints of the levels that the answer names.
fn said_of(answer: &Value, row: &str) -> Value {
    let ours = answer["fingerprints"].as_object().expect("fingerprints");
    let theirs = fingerprints(row);
    ours.keys().map(|level| (level.clone(), theirs[level].clone())).collect()
}
