//! Where notices go besides standard output: a webhook, a command. What could
//! not be delivered waits, in order, and is tried again with the next round. Logs
//! take turns: much that there is to say of one keeps back nothing about another.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Error, Notice, Weight};
use crate::client::Hook;

/// Notices of one log that wait for one outlet, at most; then its oldest are dropped.
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
    waiting: Mutex<Waiting>,
    /// Held by whoever delivers.
    delivers: tokio::sync::Mutex<()>,
}

/// The logs by turns, each with its notices. None without.
#[derive(Debug, Default)]
struct Waiting(VecDeque<(String, VecDeque<String>)>);

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
        let outlet =
            |to| Outlet { to, waiting: Mutex::default(), delivers: tokio::sync::Mutex::default() };
        Ok(Outlets { outlets: hook.into_iter().chain(command).map(outlet).collect() })
    }

    /// Puts a notice in line.
    pub fn add(&self, notice: &Notice) {
        if notice.weight == Weight::News {
            return;
        }
        let text = notice.to_json().to_string();
        for outlet in &self.outlets {
            outlet.change(|waiting| waiting.add(&notice.log, text.clone()));
        }
    }

    /// Delivers what waits, up to the first failure of each outlet, and what is put in
    /// line meanwhile. Returns how many notices still wait.
    pub async fn deliver(&self) -> usize {
        join_all(self.outlets.iter().map(Outlet::deliver)).await.into_iter().sum()
    }
}

impl Outlet {
    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn deliver(&self) -> usize {
        let _delivers = self.delivers.lock().await;
        while let Some((log, text)) = self.change(Waiting::take) {
            if let Err(why) = self.to.send(&text).await {
                let source = std::error::Error::source(&why).map(ToString::to_string);
                tracing::warn!(error = %why, source, "a notice was not delivered");
                self.change(|waiting| waiting.put_back(log, text));
                break;
            }
        }
        self.change(|waiting| waiting.0.iter().map(|(_, texts)| texts.len()).sum())
    }
}

impl Waiting {
    fn add(&mut self, log: &str, text: String) {
        let Some((_, texts)) = self.0.iter_mut().find(|(of, _)| of == log) else {
            self.0.push_back((log.to_owned(), VecDeque::from([text])));
            return;
        };
        if texts.len() >= MAX_WAITING {
            tracing::warn!("an outlet has not taken a notice for long; the oldest is dropped");
            texts.pop_front();
        }
        texts.push_back(text);
    }

    fn take(&mut self) -> Option<(String, String)> {
        let (log, mut texts) = self.0.pop_front()?;
        let text = texts.pop_front()?;
        if !texts.is_empty() {
            self.0.push_back((log.clone(), texts));
        }
        Some((log, text))
    }

    fn put_back(&mut self, log: String, text: String) {
        match self.0.iter_mut().find(|(of, _)| *of == log) {
            Some((_, texts)) => texts.push_front(text),
            None => self.0.push_front((log, VecDeque::from([text]))),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_about_one_log_keeps_back_nothing_about_another() {
        let mut waiting = Waiting::default();
        for number in 0..=MAX_WAITING {
            waiting.add("loud", number.to_string());
        }
        waiting.add("quiet", "fork".to_owned());
        let mut take = || waiting.take().unwrap().1;
        assert_eq!([take(), take(), take(), take()], ["1", "fork", "2", "3"]);
        // What failed is the next of its log.
        waiting.put_back("loud".to_owned(), "3".to_owned());
        waiting.put_back("quiet".to_owned(), "fork".to_owned());
        let mut take = || waiting.take().unwrap().1;
        assert_eq!([take(), take(), take()], ["fork", "3", "4"]);
    }
}
