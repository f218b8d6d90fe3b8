//! The doubter of the demo: another process of this program.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use syndicate::daemon::Mirror;
use syndicate::demo::world::World;
use syndicate::dime::Address;
use tokio::process::Command;

use super::{Scene, Teller};

/// A process in the demo's folder, where its policy and the private root's key are.
pub struct Asked {
    pub via: String,
    folder: PathBuf,
    /// How it looks at the private internet itself, but for the name server.
    sight: Vec<String>,
}

/// What that process said of a receipt.
pub struct Answer(pub Value);

impl Answer {
    pub fn is(&self, verdict: &str) -> bool {
        self.0["verified"] == true && self.0["verdict"] == verdict
    }
}

impl Asked {
    pub fn of(mirror: &Mirror, world: &World, folder: &Scene) -> Asked {
        let port = world.dmtp_port().to_string();
        let sight = ["--dx-port", &port, "--roots", "ca.pem", "--allow-network", "127.0.0.0/8"];
        Asked {
            via: format!("http://{}", mirror.http),
            folder: folder.path().to_owned(),
            sight: sight.into_iter().chain(["--state", "client"]).map(str::to_owned).collect(),
        }
    }

    pub async fn lookup(&self, address: &Address, teller: Teller) -> anyhow::Result<Answer> {
        let words = ["lookup", address.as_str(), "--via", &self.via, "--save", "receipt.json"];
        self.receipt(&words, teller).await
    }

    pub async fn verify(&self, teller: Teller) -> anyhow::Result<Answer> {
        self.receipt(&["verify", "receipt.json"], teller).await
    }

    /// What everybody sees, and what that process sees itself through this name
    /// server.
    pub async fn check(
        &self,
        name: &str,
        dns: SocketAddr,
        teller: Teller,
    ) -> anyhow::Result<Value> {
        let dns = dns.to_string();
        let sight = ["--dns", &dns].into_iter().chain(self.sight.iter().map(String::as_str));
        let sight: Vec<&str> = sight.collect();
        let answer = self.ask(&["check", name], &sight, teller).await?;
        let verdict = answer["verdict"].as_str().unwrap_or("NOT CHECKED");
        let reason = answer["reasons"][0].as_str().unwrap_or("no reason was given");
        let reason = reason.split_inclusive(". ").next().unwrap_or(reason).trim_end();
        teller.tell(
            "checked",
            &format!("{verdict}: {reason}"),
            json!({ "command": "check", "answer": answer.clone() }),
        );
        Ok(answer)
    }

    /// Whether a file of evidence proves something by itself, and what.
    pub async fn incident(&self, file: &str, teller: Teller) -> anyhow::Result<bool> {
        let answer = self.ask(&["verify", file], &[], teller).await?;
        let sentences = |key: &str| -> Vec<String> {
            let list = answer[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(shortened).collect()
        };
        if !teller.json {
            let kind = answer["kind"].as_str().unwrap_or("no incident");
            let (proved, said) = (sentences("proof"), sentences("testimony"));
            println!("  {kind}, proved by the signatures in the file:");
            proved.iter().for_each(|sentence| println!("    {sentence}"));
            println!("  and {} statements that rest on somebody's word, such as:", said.len());
            said.iter().take(1).for_each(|sentence| println!("    {sentence}"));
        }
        let proved = answer["proved"] == true;
        teller.note("incident", json!({ "command": "verify", "answer": answer }));
        Ok(proved)
    }

    async fn receipt(&self, words: &[&str], teller: Teller) -> anyhow::Result<Answer> {
        let answer = self.ask(words, &[], teller).await?;
        let (verdict, message) = (&answer["verdict"], &answer["error"]["message"]);
        let verdict = verdict.as_str().unwrap_or("NOT VERIFIED");
        let cosigners = answer["cosigners"].as_array().map_or(0, Vec::len);
        teller.tell(
            "verified",
            &format!(
                "{verdict}{}, latest as of {}{}{}",
                match answer["version"].as_u64() {
                    Some(version) => format!(": version {version}"),
                    None => String::new(),
                },
                answer["as_of"].as_str().unwrap_or("?"),
                match cosigners {
                    0 => String::new(),
                    n => format!(", cosigned by {n} others"),
                },
                message.as_str().map(|why| format!(" ({why})")).unwrap_or_default()
            ),
            json!({ "command": words.first(), "answer": answer.clone() }),
        );
        Ok(Answer(answer))
    }

    /// Runs a command, told as it can be given again; gives the last line that it
    /// printed.
    async fn ask(&self, words: &[&str], more: &[&str], teller: Teller) -> anyhow::Result<Value> {
        let program = std::env::current_exe().context("where this program is")?;
        let trust = ["--policy", "policy", "--trust-anchor", "root.key"];
        if !teller.json {
            println!("  $ syndicate {} {}", words.join(" "), trust.join(" "));
            if !more.is_empty() {
                println!("      {}", more.join(" "));
            }
        }
        let output = Command::new(program)
            .current_dir(&self.folder)
            .args(words)
            .args(trust)
            .args(more)
            .arg("--json")
            .output()
            .await
            .context("cannot start a second process")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(last) = text.lines().last() else {
            bail!("the second process said nothing: {}", String::from_utf8_lossy(&output.stderr));
        };
        serde_json::from_str(last).context("reading the second process")
    }
}

/// Keys and fingerprints by how they begin.
fn shortened(sentence: &str) -> String {
    let is_key = |word: &str| word.len() >= 40 && word.is_ascii();
    let words = sentence.split(' ').map(|word| match is_key(word) {
        true => format!("{}…{}", &word[..12], if word.ends_with('.') { "." } else { "" }),
        false => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}
