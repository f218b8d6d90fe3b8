//! A mirror as its operator runs it: a process with a configuration file, and
//! every word that it writes.
#![allow(dead_code)] // each test binary uses another part

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use syndicate::config::File;
use syndicate::demo::dns::PrivateDns;
use syndicate::proof::note::VerifierKey;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Longest wait for a start: machines that test are busy ones.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub fn syndicate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_syndicate"))
}

/// A configuration for loopback: any free port, this DNS and no other. The
/// files it names lie in `folder`, and the data in `folder/data`. Its DMTP
/// certificate is that of the vectors, since making an RSA key takes seconds.
pub fn configuration(folder: &Path, dns: &PrivateDns, dx_port: u16) -> File {
    let anchor = folder.join("root.key");
    std::fs::write(&anchor, dns.trust_anchor_text()).unwrap();
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors/records");
    let mut file = File { data: Some(folder.join("data")), ..File::default() };
    file.http.listen = "127.0.0.1:0".into();
    file.dmtp.listen = "127.0.0.1:0".into();
    file.dmtp.certificate = Some(vectors.join("dx_cert.pem"));
    file.dmtp.key = Some(vectors.join("dx_key.pem"));
    file.dns.servers = vec![dns.address().to_string()];
    file.dns.trust_anchor = Some(anchor);
    file.crawl.allow_networks = vec!["127.0.0.0/8".into()];
    file.crawl.dx_port = dx_port;
    file
}

/// Writes the configuration and returns its path.
pub fn write(folder: &Path, file: &File) -> PathBuf {
    let path = folder.join("mirror.toml");
    std::fs::write(&path, file.print()).unwrap();
    path
}

/// A mirror's process. Killed when dropped.
pub struct Mirror {
    child: Child,
    lines: UnboundedReceiver<String>,
    words: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

/// Where a mirror listens, and who it is.
#[derive(Clone, Debug)]
pub struct Faces {
    /// `http://…`, no slash at the end.
    pub http: String,
    pub dmtp: String,
    pub key: VerifierKey,
}

impl Mirror {
    /// Starts one; `level` is its `RUST_LOG`.
    pub fn start(config: &Path, level: &str) -> Mirror {
        Mirror::start_with(syndicate(), config, level)
    }

    /// The same by another way to run the program.
    pub fn start_with(mut program: Command, config: &Path, level: &str) -> Mirror {
        let mut child = program
            .args(["mirror", "--json", "--config"])
            .arg(config)
            .env("RUST_LOG", level)
            .env("NO_COLOR", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = unbounded_channel();
        let words = Arc::new(Mutex::new(Vec::new()));
        let readers = vec![
            read(child.stdout.take().unwrap(), words.clone(), Some(sender)),
            read(child.stderr.take().unwrap(), words.clone(), None),
        ];
        Mirror { child, lines, words, readers }
    }

    /// Waits until it listens.
    pub async fn faces(&mut self) -> Faces {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await;
        let Ok(Some(line)) = line else { panic!("the mirror did not start:\n{}", self.words()) };
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said["event"], "listening", "{line}");
        let text = |key: &str| said[key].as_str().unwrap().to_owned();
        Faces {
            http: format!("http://{}", text("http")),
            dmtp: text("dmtp"),
            key: text("key").parse().unwrap(),
        }
    }

    /// Sends it a signal: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// What it wrote so far, to standard output and standard error.
    pub fn words(&self) -> String {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&words).into_owned()
    }

    /// SIGKILL, at whatever it is doing. Returns all that it wrote.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.last_words()
    }

    /// SIGTERM, as an operator ends it. Returns exit code and all that it wrote.
    pub async fn stop(self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.last_words());
            }
            assert!(tokio::time::Instant::now() < deadline, "it goes on:\n{}", self.words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn last_words(&mut self) -> String {
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        self.words()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As a backup does, and what brings it back.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&from, &to),
            false => match std::fs::copy(&from, &to) {
                // Staged by a write that was under way, and in its place by now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            },
        }
    }
}

/// Keeps what a stream says, and hands on its lines.
fn read(
    stream: impl Read + Send + 'static,
    words: Arc<Mutex<Vec<u8>>>,
    lines: Option<UnboundedSender<String>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                return;
            }
            words.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&line);
            if let Some(lines) = &lines {
                let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    })
}
