//! The faces of a mirror over a real log: HTTP, DMTP's `syn=` answers, and the
//! client and commands that ask them.

#[path = "support/mini_log.rs"]
mod mini_log;
#[path = "support/mirror.rs"]
mod mirror;

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mini_log::*;
use mirror::Mirror;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use syndicate::client::{self, Ask, Judgement};
use syndicate::dime::signet::build::{self, SignTo};
use syndicate::dime::signet::{Dialect, Level, SecondaryKey, Signet};
use syndicate::dime::{Address, Dnssec, Domain, Name, Timestamp, ed25519};
use syndicate::proof::checkpoint::{SignedCheckpoint, TlogProof};
use syndicate::proof::draft::Draft;
use syndicate::proof::entry::{Blob, Event};
use syndicate::proof::merkle::leaf_hash;
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::{Receipt, Word};
use syndicate::proof::request::{Method, Request};
use syndicate::serve::dmtp::{Answer, Signets};
use syndicate::serve::http::{Owners, Unknown};
use syndicate::serve::syn;

const NOW: u64 = 2 * MINUTE + 30_000;

fn http() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

async fn get(url: &str) -> Response {
    http().get(url).send().await.unwrap()
}

async fn get_json(url: &str) -> (StatusCode, Value) {
    let response = get(url).await;
    let status = response.status();
    assert_eq!(header(&response, "content-type"), "application/json", "{url}");
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name);
    value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn policy() -> Policy {
    Policy::of_log(log_vkey()).unwrap()
}

fn judge(receipt: &Receipt) -> Judgement {
    client::judge(receipt, Some(&policy()), &client::DnsRoot::Public, at(NOW))
}

fn word(judgement: &Judgement) -> Word {
    let Judgement::Verified(said, _) = judgement else { panic!("{judgement:?}") };
    said.word
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fate_is_answered_with_a_proof() {
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    for (who, expected) in [
        ("one.example", Word::Valid),
        ("alice@one.example", Word::Valid),
        ("bob@one.example", Word::Held),
        ("carol@one.example", Word::Forgotten),
        ("dave@one.example", Word::Withdrawn),
        ("nobody@one.example", Word::Absent),
        ("nowhere.example", Word::Absent),
        ("two.example", Word::Unconfirmed),
    ] {
        for ask in [Ask::Lookup, Ask::History { from: 0 }] {
            let receipt = client::fetch(&url, &name(who), ask).await.unwrap();
            assert_eq!(word(&judge(&receipt)), expected, "{who} {ask:?}");
        }
        // The same as JSON, which holds the mirror's own words beside it.
        let response = get(&format!("{url}/v1/lookup/{who}")).await;
        assert_eq!(response.status(), 200, "{who}");
        let cache = if who.contains('@') { "no-store" } else { "no-cache" };
        assert_eq!(header(&response, "cache-control"), cache);
        assert!(header(&response, "vary").contains("accept"));
        let text = response.bytes().await.unwrap();
        let json: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(word(&judge(&Receipt::read(&text).unwrap())), expected, "{who}");
        assert_eq!(json["summary"]["claim"], expected.to_string(), "{who}");
        assert_eq!(json["summary"]["kind"] == "absence", expected == Word::Absent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_gone_already_may_be_forgotten() {
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    let dave = name("dave@one.example");
    let withdrawn = client::fetch(&url, &dave, Ask::History { from: 0 }).await.unwrap();
    assert_eq!(word(&judge(&withdrawn)), Word::Withdrawn);
    let Name::Address(address) = dave.clone() else { unreachable!() };
    let forget = || syndicate::proof::draft::Draft::Forget { address: address.clone() };
    // Twice does no harm.
    for version in [3, 4] {
        assert_eq!(mirror.put([forget()]).await[0].version, version);
        for ask in [Ask::Lookup, Ask::History { from: 0 }] {
            let receipt = client::fetch(&url, &dave, ask).await.unwrap();
            assert_eq!(word(&judge(&receipt)), Word::Forgotten);
            let hidden = receipt.subject.items.iter().any(|item| item.hidden.is_some());
            assert!(!hidden, "a payload is still handed out");
        }
    }
    assert_eq!(word(&judge(&withdrawn)), Word::Withdrawn, "what was given away stays true");
}

/// What the crawl noted while its clock was ahead makes no receipt invalid, and
/// confirms nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_word_about_the_future_is_not_given() {
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    let alice = name("alice@one.example");
    mirror.saw("alice@one.example", 2, at(NOW).plus(86_400_000)).await;
    let receipt = client::fetch(&url, &alice, Ask::Lookup).await.unwrap();
    assert_eq!(receipt.subject.seen, None);
    assert_eq!(word(&judge(&receipt)), Word::Unconfirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_holds_while_the_log_goes_on() {
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    let asked = client::Mirror::new(&url).unwrap();
    let [one, ..] = orgs();
    let asking = async {
        for _ in 0..60 {
            let receipt = asked.ask(&name("alice@one.example"), Ask::Lookup).await.unwrap();
            assert_eq!(word(&judge(&receipt)), Word::Valid);
        }
    };
    let writing = async {
        for byte in 50..80 {
            let who = format!("user{byte}@one.example");
            let signet = one.user(&who, &key(syndicate::dime::key::Owner::User, byte), None, None);
            let first = syndicate::proof::entry::Event::FirstSeen;
            mirror.put([one.user_draft(&who, &signet, first, at(2 * MINUTE))]).await;
        }
    };
    tokio::join!(asking, writing);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_begins_where_it_was_asked_to() {
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    let alice = name("alice@one.example");
    let items = async |ask| {
        let receipt = client::fetch(&url, &alice, ask).await.unwrap();
        assert_eq!(word(&judge(&receipt)), Word::Valid);
        receipt.subject.items.len()
    };
    assert_eq!(items(Ask::Lookup).await, 1);
    assert_eq!(items(Ask::History { from: 0 }).await, 2);
    assert_eq!(items(Ask::History { from: 1 }).await, 2);
    // From version 2 on, with the chain value of version 1.
    assert_eq!(items(Ask::History { from: 2 }).await, 1);
    assert_eq!(items(Ask::History { from: 99 }).await, 1);
    let receipt = Receipt::read(
        &get(&format!("{url}/v1/history/one.example?from=1&genesis=false"))
            .await
            .bytes()
            .await
            .unwrap(),
    )
    .unwrap();
    assert_eq!(receipt.genesis, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_mailboxes_are_rationed() {
    let mirror = Mirror::world().await;
    let budget = mirror.budget(3);
    let url = mirror.serve(|options| options.budget = budget).await;
    for i in 0..3 {
        assert_eq!(get(&format!("{url}/v1/lookup/n{i}@one.example")).await.status(), 200);
    }
    // Now known and unknown look alike.
    for who in ["alice@one.example", "n9@one.example"] {
        let response = get(&format!("{url}/v1/lookup/{who}")).await;
        assert_eq!(response.status(), 429);
        assert_eq!(header(&response, "retry-after"), "3600");
        let error = client::fetch(&url, &name(who), Ask::Lookup).await.unwrap_err();
        assert_eq!(error.rule(), "unknown-names");
    }
    // Domains are public, and an hour later all is well.
    assert_eq!(get(&format!("{url}/v1/lookup/nowhere.example")).await.status(), 200);
    mirror.clock.advance(HOUR);
    assert_eq!(get(&format!("{url}/v1/lookup/alice@one.example")).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_known_proxy_says_who_asks() {
    let mirror = Mirror::world().await;
    let ask = async |url: &str, from: &str| {
        let url = format!("{url}/v1/lookup/nobody@one.example");
        let request = http().get(url).header("x-forwarded-for", from);
        request.send().await.unwrap().status().as_u16()
    };
    let budget = mirror.budget(1);
    let direct = mirror.serve(|options| options.budget = budget).await;
    assert_eq!(ask(&direct, "192.0.2.1").await, 200);
    assert_eq!(ask(&direct, "192.0.2.2").await, 429);
    let budget = mirror.budget(1);
    let behind = mirror
        .serve(|options| {
            options.budget = budget;
            options.proxies = vec!["127.0.0.1".parse().unwrap()];
        })
        .await;
    assert_eq!(ask(&behind, "192.0.2.1").await, 200);
    assert_eq!(ask(&behind, "192.0.2.2").await, 200);
    assert_eq!(ask(&behind, "192.0.2.9, 192.0.2.2").await, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_served_as_tlog_tiles() {
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    let response = get(&format!("{url}/checkpoint")).await;
    assert_eq!(header(&response, "content-type"), "text/plain; charset=utf-8");
    assert_eq!(header(&response, "cache-control"), "no-cache");
    assert_eq!(header(&response, "access-control-allow-origin"), "*");
    let signed = SignedCheckpoint::parse(&response.bytes().await.unwrap()).unwrap();
    signed.verify([&log_vkey()]).unwrap();
    let size = signed.checkpoint().size;

    let tile = format!("{url}/tile/0/000.p/{size}");
    let response = get(&tile).await;
    assert_eq!(header(&response, "content-type"), "application/octet-stream");
    assert!(header(&response, "cache-control").contains("immutable"));
    let tag = header(&response, "etag");
    let hashes = response.bytes().await.unwrap();
    assert_eq!(hashes.len() as u64, 32 * size);
    let again = http().get(&tile).header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    assert_eq!(header(&again, "etag"), tag);
    assert!(again.bytes().await.unwrap().is_empty());
    let head = http().head(&tile).send().await.unwrap();
    assert_eq!(header(&head, "content-length"), hashes.len().to_string());
    assert!(head.bytes().await.unwrap().is_empty());

    for index in 0..size {
        let response = get(&format!("{url}/v1/entry/{index}")).await;
        assert_eq!(response.status(), 200);
        assert!(!header(&response, "etag").is_empty());
        let proof = TlogProof::parse(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(proof.index, index);
        proof.checkpoint.verify([&log_vkey()]).unwrap();
        let entry = proof.extra.clone().unwrap();
        proof.verify(&leaf_hash(&entry)).unwrap();
        assert_eq!(hashes[32 * index as usize..][..32], leaf_hash(&entry));
    }
    for (path, status, code) in [
        (format!("/v1/entry/{size}"), 404, "no-such-entry"),
        ("/v1/entry/01".into(), 400, "index"),
        ("/tile/0/001".into(), 404, "no-such-tile"),
        (format!("/tile/0/000.p/{}", size + 1), 404, "no-such-tile"),
        ("/tile/0/0".into(), 400, "tile-path"),
        ("/tile/0/%3000".into(), 400, "tile-path"),
        ("/tile/entries/000.p/0".into(), 400, "tile-path"),
        ("/nowhere".into(), 404, "no-such-path"),
        (format!("/v1/blob/{}", "0".repeat(64)), 404, "no-such-blob"),
        (format!("/v1/blob/{}", "A".repeat(64)), 400, "sha256"),
        ("/v1/lookup/no%20name".into(), 400, "name"),
        ("/v1/lookup/%ff.example".into(), 400, "name"),
        ("/v1/lookup/one.example?from=1".into(), 400, "query"),
        ("/v1/history/one.example?fro=1".into(), 400, "query"),
    ] {
        let (found, json) = get_json(&format!("{url}{path}")).await;
        assert_eq!(found, status, "{path}");
        assert_eq!(json["error"]["code"], code, "{path}");
        assert!(json["error"]["message"].as_str().unwrap().len() > 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_small_and_plain() {
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    let post = async |body: String| {
        let response = http().post(format!("{url}/v1/lookup")).body(body).send().await.unwrap();
        let status = response.status().as_u16();
        let json: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        (status, json["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(post(json!({"name": "ALICE@one.example."}).to_string()).await.0, 200);
    assert_eq!(post("{}".into()).await, (400, "body".into()));
    assert_eq!(post(json!({"name": "a.b", "more": 1}).to_string()).await, (400, "body".into()));
    assert_eq!(post(json!({"name": "a.b", "from": 1}).to_string()).await, (400, "body".into()));
    assert_eq!(post(" ".repeat(5000)).await, (413, "body-too-large".into()));
    let put = http().put(format!("{url}/v1/lookup")).send().await.unwrap();
    assert_eq!(put.status(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn withdrawn_blobs_are_said_to_be() {
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    let [one, ..] = orgs();
    let hash = Blob::of(one.signet().bytes()).sha256;
    let path = format!("{url}/v1/blob/{}", hex::encode(hash));
    let response = get(&path).await;
    assert_eq!(header(&response, "x-content-type-options"), "nosniff");
    assert!(header(&response, "content-disposition").starts_with("attachment"));
    assert!(!header(&response, "etag").is_empty());
    assert_eq!(response.bytes().await.unwrap(), one.signet().bytes());

    let keys = (syndicate::store::keys::blob(&hash), syndicate::store::keys::withdrawn(&hash));
    mirror.store.public.put(&keys.1, "by order".into()).await.unwrap();
    mirror.store.public.delete(&keys.0).await.unwrap();
    let (status, json) = get_json(&path).await;
    assert_eq!(status, 451);
    assert_eq!(json["error"]["code"], "withdrawn");
    for who in ["one.example", "alice@one.example"] {
        let receipt = client::fetch(&url, &name(who), Ask::Lookup).await.unwrap();
        assert_eq!(receipt.withdrawn, [hash]);
        assert_eq!(word(&judge(&receipt)), Word::Unchecked);
    }
}

/// What owners asked for, as the crawler would hear it.
#[derive(Debug, Default)]
struct Heard {
    ids: Mutex<BTreeSet<[u8; 32]>>,
    names: Mutex<Vec<Name>>,
    unknown: Mutex<Vec<Name>>,
}

#[async_trait]
impl Owners for Heard {
    async fn remember(
        &self,
        id: &[u8; 32],
        _time: Timestamp,
        _names: &[Name],
    ) -> Result<bool, String> {
        Ok(self.ids.lock().unwrap().insert(*id))
    }

    async fn watch(&self, names: Vec<Name>) -> bool {
        self.names.lock().unwrap().extend(names);
        true
    }
}

impl Unknown for Heard {
    fn asked(&self, name: &Name) {
        self.unknown.lock().unwrap().push(name.clone());
    }
}

/// Threat 24: signed requests, for this mirror, once, by whoever is the owner now.
#[tokio::test]
async fn owners_ask_with_the_key_in_force() {
    let mirror = Mirror::world().await;
    mirror.clock.set(at(NOW));
    let heard = Arc::new(Heard::default());
    let url = mirror.serve(|options| options.owners = Some(heard.clone())).await;
    let ask = async |signer: u8, on: &str, body: &str, origin: &str, nonce: u8| {
        let request = Request {
            method: Method::Watch,
            name: name(on),
            body_sha256: Sha256::digest(body).into(),
            time: at(NOW).secs(),
            nonce: [nonce; 16],
        };
        let signature = request.sign(origin, &[signer; 32]);
        let json = json!({
            "name": on,
            "body": body,
            "time": request.time,
            "nonce": hex::encode(request.nonce),
            "key": hex::encode(ed25519::public_key(&[signer; 32])),
            "signature": hex::encode(signature),
        });
        let sent = http().post(format!("{url}/v1/watch")).body(json.to_string()).send().await;
        let sent = sent.unwrap();
        let status = sent.status().as_u16();
        let answer: Value = serde_json::from_slice(&sent.bytes().await.unwrap()).unwrap();
        (status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let said = |status: u16, code: &str| (status, code.to_owned());
    let (one, list) = ("one.example", "eve@one.example\n");
    assert_eq!(ask(101, one, list, ORIGIN, 1).await, said(202, ""));
    assert_eq!(*heard.names.lock().unwrap(), [name(one), name("eve@one.example")]);
    assert_eq!(ask(101, one, list, ORIGIN, 1).await, said(409, "replay"));
    assert_eq!(ask(101, one, list, "other.example/log", 2).await, said(403, "signature"));
    assert_eq!(ask(102, one, list, ORIGIN, 3).await, said(403, "request-signer"));
    assert_eq!(ask(101, one, "eve@two.example", ORIGIN, 4).await, said(400, "body"));

    // A mailbox's current key; nobody's while it is held; and no word on which
    // mailboxes there are.
    let alice = "alice@one.example";
    assert_eq!(ask(2, alice, "", ORIGIN, 5).await, said(202, ""));
    for (signer, mailbox) in
        [(1, alice), (101, alice), (4, "bob@one.example"), (9, "nobody@one.example")]
    {
        assert_eq!(ask(signer, mailbox, "", ORIGIN, 6).await, said(403, "request-signer"));
    }
    assert_eq!(heard.names.lock().unwrap().len(), 3);

    // Of a domain's secondary keys those for messages, whatever else they may do.
    let other = Org { domain: "other.example", soks: vec![], ..orgs().into_iter().next().unwrap() };
    let sok =
        |permissions, seed| SecondaryKey { permissions, key: ed25519::public_key(&[seed; 32]) };
    let soks = [sok(0x02, 112), sok(0x0f, 113), sok(0x0d, 114)];
    let to = SignTo::Id(other.domain);
    let signet = build::org(&other.pok, other.dialect, &soks, &[], to).unwrap();
    let Draft::Domain(mut draft) = other.draft(&[Event::FirstSeen], Dnssec::Secure) else {
        panic!()
    };
    draft.org_signet = Some(Bytes::copy_from_slice(signet.bytes()));
    mirror.put([Draft::Domain(draft)]).await;
    let list = "x@other.example\n";
    for signer in [112, 113] {
        assert_eq!(ask(signer, other.domain, list, ORIGIN, 7).await, said(202, ""), "{signer}");
    }
    assert_eq!(heard.names.lock().unwrap()[3..].len(), 4);
    for (signer, on) in [(114, other.domain), (111, one), (112, one), (112, "x@other.example")] {
        assert_eq!(ask(signer, on, "", ORIGIN, 8).await, said(403, "request-signer"), "{signer}");
    }
    assert_eq!(heard.names.lock().unwrap().len(), 7);

    let closed = mirror.serve(|_| {}).await;
    let none = http().post(format!("{closed}/v1/watch")).body("{}").send().await.unwrap();
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_command_signs_what_owners_post() {
    let mirror = Mirror::world().await;
    mirror.clock.set(syndicate::clock::Clock::system().now());
    let heard = Arc::new(Heard::default());
    let url = mirror.serve(|options| options.owners = Some(heard.clone())).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("org.key");
    let pok = key(syndicate::dime::key::Owner::Org, 101);
    std::fs::write(&file, pok.to_armor(Dialect::L).as_bytes()).unwrap();
    let file = file.to_str().unwrap();
    let call = ["watch-request", "--origin", ORIGIN, "--key", file, "one.example"];
    let made = syndicate(&[&call[..], &["eve@one.example"]].concat()).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let sent = http().post(format!("{url}/v1/watch")).body(made.stdout).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::ACCEPTED, "{}", sent.text().await.unwrap());
    assert_eq!(*heard.names.lock().unwrap(), [name("one.example"), name("eve@one.example")]);

    let other = syndicate(&[&call[..], &["eve@two.example"]].concat()).await;
    assert_eq!(other.status.code(), Some(2));
}

#[tokio::test]
async fn names_looked_up_in_vain_are_told_within_the_budget() {
    let mirror = Mirror::world().await;
    mirror.clock.set(at(NOW));
    let heard = Arc::new(Heard::default());
    let url = mirror
        .serve(|options| {
            options.unknown = Some(heard.clone());
            options.budget = mirror.budget(2);
        })
        .await;
    for looked_up in ["alice@one.example", "one.example", "new.example", "x@one.example"] {
        assert_eq!(get(&format!("{url}/v1/lookup/{looked_up}")).await.status(), StatusCode::OK);
    }
    // The account is used up: domains are answered and told to nobody.
    assert_eq!(get(&format!("{url}/v1/lookup/more.example")).await.status(), StatusCode::OK);
    assert_eq!(*heard.unknown.lock().unwrap(), [name("new.example"), name("x@one.example")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_told() {
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    assert_eq!(get(&format!("{url}/healthz")).await.status(), 200);
    let (status, ready) = get_json(&format!("{url}/readyz")).await;
    assert_eq!((status.as_u16(), &ready["sequencing"]), (200, &json!(true)));
    let secret = "someone.secret@one.example";
    get(&format!("{url}/v1/lookup/{secret}")).await;
    get(&format!("{url}/some/{secret}")).await;
    let text = get(&format!("{url}/metrics")).await.text().await.unwrap();
    for line in [
        "syndicate_http_requests_total{route=\"/v1/lookup/{name}\",status=\"200\"} 1",
        "syndicate_http_requests_total{route=\"other\",status=\"404\"} 1",
        "syndicate_http_request_seconds_count{route=\"/healthz\"} 1",
        "syndicate_lookups_total{outcome=\"absent\"} 1",
        "syndicate_log_sequencing 1",
        "syndicate_directory_labels 6",
        "syndicate_dmtp_sessions_total 0",
        "process_open_fds",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("secret"));
    let size = mirror.log.heads().published.unwrap().size;
    assert!(text.contains(&format!("syndicate_log_size {size}")));

    // A clock gone wrong: it serves on, and says why it does not sequence.
    mirror.clock.advance(5 * HOUR);
    let mut ready = Value::Null;
    for _ in 0..2000 {
        ready = get_json(&format!("{url}/readyz")).await.1;
        if ready["sequencing"] == false {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ready["ready"], true);
    assert!(ready["blocked"].as_str().unwrap().contains("clock"), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    let mirror = Mirror::world().await;
    let url = mirror
        .serve(|options| {
            options.connections_per_client = 2;
            options.idle = Duration::from_secs(5);
        })
        .await;
    let address = url.strip_prefix("http://").unwrap();
    // Half a request is no request, and does not hold its place for ever.
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    second.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let mut third = TcpStream::connect(address).await.unwrap();
    // Closed at once: end of file, or a reset.
    assert!(
        third.read(&mut answer).await.is_ok_and(|read| read == 0)
            || third.read(&mut answer).await.is_err()
    );
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(60), first.read_to_end(&mut rest))
        .await
        .expect("a connection on which nothing moves is closed");
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dmtp_serves_what_is_held_by_the_log_and_not_what_is_on_hold() {
    let mirror = Mirror::world().await;
    let face = syn::Mirror::new(mirror.answers.clone(), "https://mirror.example/");
    let alice: Address = "alice@one.example".parse().unwrap();
    let Answer::Found(current) = face.user(&alice, None).await else { panic!("alice is there") };
    let Answer::Found(chain) = face.history(&alice, None, None).await else { panic!("HIST") };
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], current);
    let print = |signet: &Signet| signet.fingerprint(Level::Crypto).unwrap();
    let (old, new) = (print(&chain[0]), print(&chain[1]));
    let Answer::Found(found) = face.user(&alice, Some(&old)).await else { panic!("by print") };
    assert_eq!(found, chain[0]);
    let Answer::Found(last) = face.history(&alice, Some(&new), None).await else { panic!() };
    assert_eq!(last, [current]);
    assert!(matches!(face.history(&alice, Some(&new), Some(&old)).await, Answer::NotFound));

    let one: Domain = "one.example".parse().unwrap();
    let Answer::Found(org) = face.org(&one, None).await else { panic!("the org signet") };
    assert!(matches!(face.org(&one, Some(&print(&org))).await, Answer::Found(_)));
    assert!(matches!(face.org(&one, Some(&old)).await, Answer::NotFound));

    let bob: Address = "bob@one.example".parse().unwrap();
    let Answer::Held { url } = face.user(&bob, None).await else { panic!("bob is on hold") };
    assert_eq!(url, "https://mirror.example/v1/lookup/bob@one.example");
    assert!(matches!(face.history(&bob, None, None).await, Answer::Held { .. }));
    // 72 hours later the new key stands.
    mirror.clock.advance(73 * HOUR);
    assert!(matches!(face.user(&bob, None).await, Answer::Found(_)));

    for gone in ["carol@one.example", "nobody@one.example", "a@nowhere.example"] {
        let gone: Address = gone.parse().unwrap();
        assert!(matches!(face.user(&gone, None).await, Answer::NotFound));
    }
    // Its key stays where it was until something else comes.
    let dave: Address = "dave@one.example".parse().unwrap();
    assert!(matches!(face.user(&dave, None).await, Answer::Found(_)));
}

/// A server that is no mirror.
async fn impostor(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_not_led_astray() {
    use axum::response::Redirect;
    use axum::routing::post;
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    let alice = name("alice@one.example");
    let receipt = client::fetch(&url, &alice, Ask::Lookup).await.unwrap().encode();
    let ask = async |url: &str| {
        client::fetch(url, &name("bob@one.example"), Ask::Lookup).await.unwrap_err()
    };

    let other = receipt.clone();
    let swapped = axum::Router::new().route("/v1/lookup", post(async || other));
    assert_eq!(ask(&impostor(swapped).await).await.rule(), "other-name");
    let there = format!("{}/v1/lookup", url.replace("127.0.0.1", "localhost"));
    let away =
        axum::Router::new().route("/v1/lookup", post(async move || Redirect::temporary(&there)));
    let error = ask(&impostor(away).await).await;
    assert!(matches!(error, client::Error::Status { status: 307, .. }), "{error}");
    assert_eq!(error.fault(), client::Fault::Mirror);
    let long = axum::Router::new().route("/v1/lookup", post(async || vec![b' '; 40 * 1024 * 1024]));
    assert_eq!(ask(&impostor(long).await).await.rule(), "too-large");
    let junk = axum::Router::new().route("/v1/lookup", post(async || "{\"name\":1}"));
    assert_eq!(ask(&impostor(junk).await).await.rule(), "json");
    for bad in ["mirror.example", "ftp://mirror.example", "http://user:x@mirror.example", "http://"]
    {
        assert_eq!(ask(bad).await.rule(), "url", "{bad}");
    }
    // At an address where nobody else gets a port meanwhile.
    let closed = std::net::TcpListener::bind(("127.1.14.2", 0)).unwrap().local_addr().unwrap();
    let error = ask(&format!("http://{closed}")).await;
    assert_eq!(error.fault(), client::Fault::Network);
    // Nor does an error repeat whom it was about.
    assert!(!format!("{error:?} {error}").contains("bob"));
}

/// Runs the binary beside the mirror.
async fn syndicate(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|word| word.to_string()).collect();
    let run = move || Command::new(env!("CARGO_BIN_EXE_syndicate")).args(arguments).output();
    tokio::task::spawn_blocking(run).await.unwrap().unwrap()
}

fn line(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_say_what_is_proved() {
    let mirror = Mirror::world().await;
    let url = mirror.serve(|_| ()).await;
    let (vkey, now) = (log_vkey().to_string(), at(NOW).to_string());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (text, binary) = (file("alice.json"), file("alice.receipt"));
    let alice = "alice@one.example";

    for saved in [&text, &binary] {
        let lookup = ["lookup", alice, "--via", &url, "--log", &vkey, "--now", &now];
        let output = syndicate(&[&lookup[..], &["--json", "--save", saved]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = line(&output);
        assert_eq!(said["verified"], true);
        assert_eq!(said["verdict"], "VALID");
        assert_eq!(said["name"], alice);
        assert_eq!((&said["version"], &said["current"]), (&json!(2), &json!(2)));
        assert_eq!(said["events"], json!(["ROTATED"]));
        assert_eq!(said["fingerprints"]["crypto"].as_str().unwrap().len(), 86);
        assert_eq!(said["log"]["origin"], ORIGIN);
        assert_eq!(said["as_of"], at(2 * MINUTE).to_string());
        assert!(said.get("error").is_none());

        // The mirror is not needed any more.
        let verify = ["verify", saved, "--now", &now];
        let output = syndicate(&[&verify[..], &["--log", &vkey]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let page = String::from_utf8(output.stdout).unwrap();
        for words in ["VERIFIED", "Latest as of", "VALID", "Fingerprint", "Not proved", ORIGIN] {
            assert!(page.contains(words), "{words} is not in\n{page}");
        }
        let output = syndicate(&verify).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stdout).contains("consistent, signer unknown"));
        let other = syndicate::proof::note::SigningKey::ed25519(ORIGIN, &[99; 32]).unwrap();
        let other = other.verifier().to_string();
        let output = syndicate(&[&verify[..], &["--log", &other, "--json"]].concat()).await;
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(line(&output)["error"]["rule"], "unknown-log");

        let late = at(3 * HOUR).to_string();
        let verify = ["verify", saved, "--log", &vkey, "--now", &late, "--json"];
        let output = syndicate(&verify).await;
        assert_eq!(output.status.code(), Some(1));
        let said = line(&output);
        assert_eq!((&said["verified"], &said["verdict"]), (&json!(false), &json!("STALE")));
        assert_eq!(said["as_of"], at(2 * MINUTE).to_string());
        assert_eq!(said["error"]["rule"], "stale");
        assert_eq!(said["word"], "VALID");
        let output = syndicate(&[&verify[..], &["--max-age", "1d"]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    let policy = file("policy");
    std::fs::write(&policy, policy_text(2)).unwrap();
    let with_policy = ["--policy", &policy, "--now", &now];
    let output = syndicate(&[&["verify", &text, "--json"], &with_policy[..]].concat()).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(line(&output)["error"]["rule"], "quorum");

    let ask = ["--via", &url, "--log", &vkey, "--now", &now];
    let output = syndicate(&[&["history", alice, "--json"], &ask[..]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = line(&output);
    assert_eq!(said["versions"][0]["events"], json!(["FIRST_SEEN"]));
    assert_eq!(said["versions"][1]["fingerprints"], said["fingerprints"]);
    let output = syndicate(&[&["history", "bob@one.example"], &ask[..]].concat()).await;
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("HELD") && page.contains("RESTARTED"), "{page}");
    let output = syndicate(&[&["lookup", "nobody@one.example", "--json"], &ask[..]].concat()).await;
    assert_eq!(line(&output)["verdict"], "ABSENT");

    let output = syndicate(&["lookup", alice, "--via", "http://127.0.0.1:1", "--json"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(line(&output)["error"]["rule"], "unreachable");
    assert_eq!(syndicate(&["lookup", alice, "--via", "nowhere"]).await.status.code(), Some(2));
    assert_eq!(syndicate(&["verify", &file("missing")]).await.status.code(), Some(2));
    std::fs::write(file("junk"), b"junk").unwrap();
    assert_eq!(syndicate(&["verify", &file("junk")]).await.status.code(), Some(1));
}
