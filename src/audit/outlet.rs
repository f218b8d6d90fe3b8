//! Where notices go besides standard output: a webhook, a command. What could
//! not be delivered waits, in order, and is tried again with the next round.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Error, Notice, Weight};
use crate::client::Hook;

/// Notices that wait for one outlet, at most; then the oldest are dropped.
const MAX_WAITING: usize = 1000;
/// A command that takes longer is killed.
const COMMAND: Duration = Duration::from_secs(60);

/// Webhook and command. Both get one JSON object a notice; news is not sent.
#[derive(Debug, Default)]
pub struct Outlets {
    outlets: Vec<Outlet>,
}

#[derive(Debug)]
struct Outlet {
    to: To,
    waiting: VecDeque<String>,
}

#[derive(Debug)]
enum To {
    Hook(Hook),
    /// Run by `sh -c`, the object on its standard input.
    Command(String),
}

/// Why a notice was not delivered. Holds no address and no name.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error("post to the webhook")]
    Hook(#[source] crate::client::HttpError),
    #[error("the webhook answered {0}")]
    Status(u16),
    #[error("run the command")]
    Run(#[source] std::io::Error),
    #[error("the command failed: {0}")]
    Exit(std::process::ExitStatus),
    #[error("the command took longer than a minute")]
    Slow,
}

impl Outlets {
    /// To a webhook (`http://…` or `https://…`, POSTed to) and a command.
    pub fn new(hook: Option<&str>, command: Option<&str>) -> Result<Outlets, Error> {
        let hook = hook.map(Hook::new).transpose().map_err(Error::Hook)?.map(To::Hook);
        let command = command.map(|command| To::Command(command.to_owned()));
        let outlet = |to| Outlet { to, waiting: VecDeque::new() };
        Ok(Outlets { outlets: hook.into_iter().chain(command).map(outlet).collect() })
    }

    /// Puts a notice in line.
    pub fn add(&mut self, notice: &Notice) {
        if notice.weight == Weight::News {
            return;
        }
        let text = notice.to_json().to_string();
        for outlet in &mut self.outlets {
            if outlet.waiting.len() == MAX_WAITING {
                tracing::warn!("an outlet has not taken a notice for long; the oldest is dropped");
                outlet.waiting.pop_front();
            }
            outlet.waiting.push_back(text.clone());
        }
    }

    /// Delivers what waits, in order, up to the first failure of each outlet.
    /// Returns how many notices still wait.
    pub async fn deliver(&mut self) -> usize {
        let mut left = 0;
        for outlet in &mut self.outlets {
            while let Some(text) = outlet.waiting.front() {
                if let Err(why) = outlet.to.send(text).await {
                    let source = std::error::Error::source(&why).map(ToString::to_string);
                    tracing::warn!(error = %why, source, "a notice was not delivered");
                    break;
                }
                outlet.waiting.pop_front();
            }
            left += outlet.waiting.len();
        }
        left
    }
}

impl To {
    async fn send(&self, text: &str) -> Result<(), Undelivered> {
        match self {
            To::Hook(hook) => match hook.post(text.to_owned()).await {
                Ok(status) if (200..300).contains(&status) => Ok(()),
                Ok(status) => Err(Undelivered::Status(status)),
                Err(error) => Err(Undelivered::Hook(error)),
            },
            To::Command(command) => run(command, text).await,
        }
    }
}

async fn run(command: &str, text: &str) -> Result<(), Undelivered> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(Undelivered::Run)?;
    let stdin = child.stdin.take();
    let work = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it is told.
            let _ = stdin.write_all(text.as_bytes()).await;
            let _ = stdin.write_all(b"\n").await;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(COMMAND, work).await.map_err(|_| Undelivered::Slow)?;
    match status.map_err(Undelivered::Run)? {
        status if status.success() => Ok(()),
        status => Err(Undelivered::Exit(status)),
    }
}
