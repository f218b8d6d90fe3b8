//! The doubter of the demo: another process of this program.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use syndicate::daemon::Mirror;
use syndicate::demo::world::World;
use syndicate::dime::Address;
use tokio::process::Command;

use super::{Scene, Teller};

/// A process that knows a policy file, a mirror's address and its own DNS.
pub struct Asked {
    pub policy: String,
    pub via: String,
    /// The key of this private DNS root, for the evidence in receipts.
    pub anchor: String,
    /// How it looks at the private internet itself.
    sight: Vec<String>,
}

/// What that process said.
pub struct Answer(pub Value);

impl Answer {
    pub fn is(&self, verdict: &str) -> bool {
        self.0["verified"] == true && self.0["verdict"] == verdict
    }
}

impl Asked {
    pub fn of(mirror: &Mirror, world: &World, policy: &Path, folder: &Scene) -> Asked {
        let file = |name: &str| folder.path().join(name).display().to_string();
        let dns = world.dns().address().to_string();
        let (port, roots) = (world.dmtp_port().to_string(), file("ca.pem"));
        let sight = ["--dns", &dns, "--dx-port", &port, "--roots", &roots];
        let mut sight: Vec<String> = sight.map(str::to_owned).to_vec();
        sight.extend(["--allow-network".into(), "127.0.0.0/8".into()]);
        sight.extend(["--state".into(), file("client"), "--evidence".into(), file("")]);
        Asked {
            policy: policy.display().to_string(),
            sight,
            via: format!("http://{}", mirror.http),
            anchor: folder.path().join("root.key").display().to_string(),
        }
    }

    pub async fn lookup(
        &self,
        address: &Address,
        receipt: &Path,
        teller: Teller,
    ) -> anyhow::Result<Answer> {
        let save = receipt.display().to_string();
        let words = ["lookup", address.as_str(), "--via", &self.via, "--policy", &self.policy];
        self.run(&words, &["--save", &save], teller).await
    }

    pub async fn verify(&self, receipt: &Path, teller: Teller) -> anyhow::Result<Answer> {
        let file = receipt.display().to_string();
        self.run(&["verify", &file, "--policy", &self.policy], &[], teller).await
    }

    /// What everybody sees, and what that process sees itself.
    pub async fn check(&self, name: &str, teller: Teller) -> anyhow::Result<bool> {
        let words = ["check", name, "--policy", &self.policy];
        let sight: Vec<&str> = self.sight.iter().map(String::as_str).collect();
        let answer = self.ask(&words, &sight, teller).await?;
        let verdict = answer["verdict"].as_str().unwrap_or("NOTHING").to_owned();
        teller.tell(
            "checked",
            &format!("{verdict}: the key seen here is the one that the logs prove"),
            json!({ "command": "check", "answer": answer }),
        );
        Ok(verdict == "AGREED")
    }

    /// What a file of evidence proves by itself.
    pub async fn incident(&self, file: &Path, teller: Teller) -> anyhow::Result<bool> {
        let file = file.display().to_string();
        let answer = self.ask(&["verify", &file, "--policy", &self.policy], &[], teller).await?;
        let proved = answer["proved"] == true;
        for (what, key) in [("proved", "proof"), ("on somebody's word", "testimony")] {
            for line in answer[key].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !teller.json {
                    println!("  {what}: {line}");
                }
            }
        }
        if teller.json {
            teller.tell("incident", "", json!({ "command": "verify", "answer": answer }));
        }
        Ok(proved)
    }

    async fn run(&self, words: &[&str], more: &[&str], teller: Teller) -> anyhow::Result<Answer> {
        let answer = self.ask(words, more, teller).await?;
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

    /// Runs a command, told as it stands; gives the last line that it printed.
    async fn ask(&self, words: &[&str], more: &[&str], teller: Teller) -> anyhow::Result<Value> {
        let program = std::env::current_exe().context("where this program is")?;
        if !teller.json {
            println!("  $ syndicate {} --trust-anchor {}", words.join(" "), self.anchor);
        }
        let output = Command::new(program)
            .args(words)
            .args(more)
            .args(["--trust-anchor", &self.anchor])
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
