//! A mailbox is forgotten: by the command, in the folder of a mirror that
//! crawled it, and for good, whatever the crawl sees and a backup brings back.

#[path = "support/client.rs"]
mod client;
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use client::Client;
use process::{Faces, Mirror, PATIENCE, syndicate};
use syndicate::clock::Clock;
use syndicate::config::File;
use syndicate::daemon::{Filed, Filing};
use syndicate::demo::world::{Options, World};
use syndicate::dime::{Address, Name, Timestamp};
use syndicate::log::check::check;
use syndicate::proof::incident::{Incident, Kind, Received, Shown};
use syndicate::proof::receipt::Word;
use syndicate::store::Store;
use tokio::time::{Instant, sleep};

/// The local part; nothing else is called that.
const MARK: &str = "quetzalcoatl";

struct Scene {
    world: World,
    folder: tempfile::TempDir,
    file: File,
}

impl Scene {
    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn config(&self) -> PathBuf {
        process::write(self.folder.path(), &self.file)
    }

    fn watch(&mut self, address: &Address) {
        self.file.crawl.names.push(address.to_string());
    }

    fn forget(&self, args: &[&str]) -> Output {
        let config = self.config();
        syndicate()
            .arg("forget")
            .args(args)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

/// Waits until a lookup has this word.
async fn until(client: &mut Client, faces: &Faces, address: &Address, word: Word) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = client.look_up(&faces.http, address).await.map(|said| said.word);
        if found == Some(word) {
            return;
        }
        assert!(Instant::now() < deadline, "{address}: {found:?}, not {word:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// Files below a folder that hold these bytes.
fn holding(folder: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, needle));
        } else if fs::read(&path).unwrap().windows(needle.len()).any(|part| part == needle) {
            found.push(path);
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

async fn scene() -> Scene {
    let world = World::start(Options::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut file = process::configuration(folder.path(), world.dns(), world.dmtp_port());
    let roots = folder.path().join("ca.pem");
    fs::write(&roots, world.authority_pem()).unwrap();
    file.crawl.roots = Some(roots);
    Scene { world, folder, file }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_forgotten_mailbox_is_left_and_nothing_comes_back() {
    let mut scene = scene().await;
    let domain = scene.world.domains()[0].clone();
    let gone = scene.world.enroll(&domain, MARK).unwrap();
    let other = scene.world.enroll(&domain, "other").unwrap();
    scene.watch(&gone);
    scene.watch(&other);
    let key = scene.world.served(&gone).unwrap().last().unwrap().signing_key();

    let mut mirror = Mirror::start(&scene.config(), "info");
    let faces = mirror.faces().await;
    let mut client = Client::new(faces.key.clone());
    until(&mut client, &faces, &gone, Word::Valid).await;
    until(&mut client, &faces, &other, Word::Valid).await;
    let name = gone.as_str();
    let output = scene.forget(&[name, "--yes"]);
    assert_eq!(output.status.code(), Some(1), "it runs: {}", said(&output));
    assert!(said(&output).contains("stopped"), "{}", said(&output));
    let (code, words) = mirror.stop().await;
    assert_eq!(code, Some(0), "{words}");

    let (data, store) = (scene.data(), Store::folder(&scene.data()).unwrap());
    assert!(!holding(&data.join("private/seen"), MARK.as_bytes()).is_empty(), "kept at the stop");
    let filed = Filed::new(store.private.clone(), Clock::system());
    for address in [&gone, &other] {
        let received = Received {
            rule: "G1".into(),
            message: "a test".into(),
            bytes: Bytes::from_static(b"what came"),
            now: Shown::default(),
            before: None,
        };
        let (kind, name) = (Kind::SignetInvalid, Name::Address(address.clone()));
        let incident =
            Incident::received(kind, "log.example/1", Timestamp::from_secs(1), name, received);
        assert!(matches!(filed.file(&incident).await, Ok(Filing::New(_))));
    }
    let orphan = format!("payload/{:020}/{:020}-{}", 0, 0, "ab".repeat(32));
    store.private.put(&orphan, Bytes::from_static(MARK.as_bytes())).await.unwrap();
    fs::create_dir(data.join("state.damaged")).unwrap();
    fs::write(data.join("state.damaged/db"), MARK).unwrap();
    let backup = scene.folder.path().join("backup");
    copy(&data, &backup);

    // Without a yes, of a domain, of a stranger: nothing.
    let output = scene.forget(&[name]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let output = scene.forget(&[domain.as_str(), "--yes"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("only whole mailboxes"), "{}", said(&output));
    let output = scene.forget(&["nobody@alder.example", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(holding(&data, MARK.as_bytes()).len() > 4);

    let output = scene.forget(&[name, "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("crawl.names"), "{}", said(&output));
    assert_eq!(holding(&data, MARK.as_bytes()), [] as [PathBuf; 0]);
    assert_eq!(holding(&data, &key), [] as [PathBuf; 0]);
    assert!(!holding(&data.join("private/incident"), b"other").is_empty());
    let output = scene.forget(&[name, "--yes"]);
    assert!(said(&output).contains("before"), "{}", said(&output));

    // The log replays, and what anybody has been given stays true.
    let checked = check(&store, &faces.key).await.unwrap().unwrap();
    client.hold_to(&checked);

    // It is still configured, and its host still serves it.
    let more = scene.world.enroll(&domain, "more").unwrap();
    scene.watch(&more);
    // Nor does an index that is made again from nothing know better.
    fs::remove_dir_all(data.join("state")).unwrap();
    let mut mirror = Mirror::start(&scene.config(), "info");
    let faces = mirror.faces().await;
    until(&mut client, &faces, &more, Word::Valid).await;
    until(&mut client, &faces, &gone, Word::Forgotten).await;
    until(&mut client, &faces, &other, Word::Valid).await;
    let (code, words) = mirror.stop().await;
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("read back what was seen"), "{words}");
    assert!(!words.contains("rows=0"), "what was seen was kept and came back: {words}");
    assert_eq!(holding(&data, MARK.as_bytes()), [] as [PathBuf; 0]);

    a_backup_is_erased_again(&scene, &backup).await;

    // Its owner asks.
    let output = scene.forget(&[name, "--again"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let mut mirror = Mirror::start(&scene.config(), "info");
    let faces = mirror.faces().await;
    until(&mut client, &faces, &gone, Word::Valid).await;
    let (code, words) = mirror.stop().await;
    assert_eq!(code, Some(0), "{words}");
    let checked = check(&store, &faces.key).await.unwrap().unwrap();
    client.hold_to(&checked);
}

/// Everything but the guard and the list of what was erased is old.
async fn a_backup_is_erased_again(scene: &Scene, backup: &Path) {
    let restored = scene.folder.path().join("restored");
    copy(backup, &restored);
    for file in ["guard", "guard.erased"] {
        fs::copy(scene.data().join(file), restored.join(file)).unwrap();
    }
    assert!(!holding(&restored, MARK.as_bytes()).is_empty());
    let mut file = scene.file.clone();
    file.data = Some(restored.clone());
    file.crawl.names.clear();
    let config = scene.folder.path().join("restored.toml");
    fs::write(&config, file.print()).unwrap();
    let mut mirror = Mirror::start(&config, "info");
    drop(mirror.faces().await);
    let (code, words) = mirror.stop().await;
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("a backup brought back"), "{words}");
    assert_eq!(holding(&restored, MARK.as_bytes()), [] as [PathBuf; 0], "{words}");
}
