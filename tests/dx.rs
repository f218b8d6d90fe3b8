//! The binary: `syndicate dx` as an operator starts it, `syndicate dmtp parse`.

#[path = "support/dx.rs"]
mod dx;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use dx::{NOW, bytes, options, signet};
use serde_json::Value;
use syndicate::dime::certificate::{Accepted, By, How};
use syndicate::dime::record::Record;
use syndicate::dime::{Dnssec, Name};
use syndicate::dmtp::{Entrance, Session, Target, open};

const POK: &str = "2r3r8F8p7lOYmUnWof1XBaRzSlnjvER2OvoSMtW/AuI";

fn syndicate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_syndicate"))
}

/// A running `syndicate dx`, and what its first line said.
struct Host {
    child: Child,
    addr: SocketAddr,
    said: Value,
}

impl Host {
    fn start(folder: &Path, more: &[&str]) -> Host {
        let mut child = syndicate()
            .args(["dx", "--json", "--domain", "public.example", "--listen", "127.0.0.1:0"])
            .arg("--dir")
            .arg(folder)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said["event"], "listening");
        let addr = said["addr"].as_str().unwrap().parse().unwrap();
        Host { child, addr, said }
    }

    /// Opens a session by a record with the `tls` field that was printed.
    async fn open(&self) -> (Session, Accepted) {
        self.open_at(self.addr, Entrance::Tls).await
    }

    async fn open_at(&self, addr: SocketAddr, entrance: Entrance) -> (Session, Accepted) {
        let text = format!("pok={POK} tls={}", self.said["tls"].as_str().unwrap());
        let record = Record::parse(text.as_bytes()).unwrap();
        let target = Target { host: "public.example", addr, entrance };
        open(target, &options(), NOW, Some((&record, Dnssec::Secure))).await.unwrap()
    }

    fn stop(mut self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_made_certificate_lasts_and_is_pinned_by_what_is_printed() {
    let folder = dx::folder();
    let first = Host::start(folder.path(), &[]);
    assert_eq!(first.said["tls_form"], "fingerprint");
    assert_eq!(first.said["org_signets"], 1);
    let tls = first.said["tls"].clone();
    let (mut session, accepted) = first.open().await;
    assert!(matches!(accepted.how, How::Pin(pin) if pin.by == By::Certificate));
    let alice: Name = "alice@public.example".parse().unwrap();
    let served = session.signet(&alice, None).await.unwrap();
    assert_eq!(served, *signet("chain_5").full_split());
    // The operator rotates; nobody restarts anything.
    let next = folder.path().join("users/alice/14-key.signet");
    fs::write(next, bytes("signets/user_rich_id.bin")).unwrap();
    let served = session.signet(&alice, None).await.unwrap();
    assert_eq!(served, *signet("user_rich_id").full_split());
    session.quit().await;
    first.stop("-TERM");

    let second = Host::start(folder.path(), &[]);
    assert_eq!(second.said["tls"], tls, "the same certificate as before");
    second.stop("-INT");
}

#[tokio::test]
async fn own_certificate_and_a_signature_by_the_pok() {
    let folder = dx::folder();
    let records = dx::vectors().join("records");
    let path = |name: &str| records.join(name).to_str().unwrap().to_owned();
    let (cert, key, pok) = (path("dx_cert.pem"), path("dx_key.pem"), path("org_pok.pem"));
    let host = Host::start(folder.path(), &["--cert", &cert, "--key", &key, "--pok", &pok]);
    assert_eq!(host.said["tls_form"], "signature");
    let theirs = String::from_utf8(bytes("records/records.json")).unwrap();
    assert!(theirs.contains(host.said["tls"].as_str().unwrap()), "the reference signs alike");
    let (_, accepted) = host.open().await;
    assert!(matches!(accepted.how, How::Pin(pin) if pin.by == By::Signature { pok: 0 }));
    assert!(!folder.path().join("dx-key.pem").exists());
}

#[tokio::test]
async fn a_second_port_speaks_starttls() {
    let folder = dx::folder();
    let host = Host::start(folder.path(), &["--starttls-listen", "127.0.0.1:0"]);
    let dual: SocketAddr = host.said["starttls_addr"].as_str().unwrap().parse().unwrap();
    let alice: Name = "alice@public.example".parse().unwrap();
    for (addr, entrance) in [(dual, Entrance::StartTls), (host.addr, Entrance::Tls)] {
        let (mut session, _) = host.open_at(addr, entrance).await;
        let served = session.signet(&alice, None).await.unwrap();
        assert_eq!(served, *signet("chain_5").full_split());
        session.quit().await;
    }
    host.stop("-TERM");
}

#[test]
fn what_cannot_be_served_is_said() {
    let folder = dx::folder();
    let dir = folder.path().to_str().unwrap();
    for arguments in [
        &["dx", "--domain", "public.example", "--dir", "no/such/folder"][..],
        &["dx", "--domain", "nodots", "--dir", dir],
        &["dx", "--domain", "public.example", "--dir", dir, "--cert", "x.pem"],
        &["dx", "--domain", "a.example", "--dir", dir, "--cert", "x.pem", "--key", "y.pem"],
    ] {
        let output = syndicate().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

fn parse(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = syndicate()
        .args(["dmtp", "parse"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn dmtp_parse_answers_by_exit_code() {
    let yes = parse(&["SGNT <alice@public.example>", "--json"], b"");
    assert_eq!(yes.status.code(), Some(0));
    let said: Value = serde_json::from_slice(&yes.stdout).unwrap();
    assert_eq!(said["command"], "SGNT");
    assert_eq!(said["grammar"], "A");
    assert_eq!(said["strict"], true);
    assert_eq!(said["arguments"][0]["value"], "alice@public.example");

    let no = parse(&["SGNT <nobody>", "--json"], b"");
    assert_eq!(no.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&no.stdout).unwrap();
    assert_eq!(said["error"]["rule"], "name");

    assert_eq!(parse(&["QUIT\r\n"], b"").status.code(), Some(0));
    assert_eq!(parse(&["-"], b"QUIT\r\n").status.code(), Some(0));
    assert_eq!(parse(&["-"], b"QUIT").status.code(), Some(1));
    assert_eq!(parse(&["-"], b"EHLO <a\0b>\r\n").status.code(), Some(1));
    assert_eq!(parse(&[], b"").status.code(), Some(2));
}

#[test]
fn bench_crawl_prints_every_figure() {
    let output = syndicate()
        .args(["bench", "crawl", "--json", "--domains", "6", "--hosts", "2", "--slow", "2"])
        .args(["--sessions", "50", "--names", "20", "--seconds", "1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (figure, value) in [
        ("domains", 6),
        ("hosts", 2),
        ("slow_domains", 2),
        ("sessions", 50),
        ("frontier_names", 20),
    ] {
        assert_eq!(said[figure], value, "{figure}");
    }
    for figure in [
        "bare_signatures_per_s",
        "validation_ratio",
        "sessions_mib",
        "handshake_us",
        "resumed_us",
        "frontier_pick_us",
        "frontier_pick_median_us",
        "frontier_restart_ms",
        "first_visits_per_s",
        "first_visit_questions",
        "visits_per_s",
        "visit_questions",
        "fast_alone_s",
        "fast_among_slow_s",
        "slow_ratio",
        "peak_mib",
    ] {
        assert!(said[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {said}");
    }
    assert!(said["visit_cpu_us"].is_number() && said["visit_hosts_cpu_us"].is_number());

    let output = syndicate()
        .args(["bench", "crawl", "--json", "--only", "frontier", "--names", "2"])
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(said["frontier_names"] == 2 && said.get("visits_per_s").is_none());
}
