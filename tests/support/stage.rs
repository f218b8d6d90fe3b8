//! A log on the web that serves whatever it is told to: tiles, bundles, blobs
//! and histories of a [`MiniLog`], honest or not.
#![allow(dead_code)] // each test binary uses another part

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use syndicate::proof::Hash;
use syndicate::proof::note::SigningKey;
use syndicate::proof::tile::{BundleCoordinate, Edge, encode_bundle, new_bundles};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::mini_log::MiniLog;

/// What is shown to whoever asks.
pub struct Play {
    pub log: MiniLog,
    pub cosigners: Vec<SigningKey>,
    /// Blobs that are not served.
    pub withheld: BTreeSet<Hash>,
    /// Tiles and bundles that are not, by their paths.
    pub hidden: BTreeSet<String>,
    /// Blobs that the server fails at.
    pub failing: BTreeSet<Hash>,
    /// Paths whose answer does not come.
    pub hanging: BTreeSet<String>,
    /// Nothing is.
    pub down: bool,
    /// Files of earlier plays stay, where no new one has their name.
    pub keeps: bool,
    /// How often each kind of path was asked for.
    pub asked: BTreeMap<String, usize>,
    files: BTreeMap<String, Bytes>,
    hung: Arc<Notify>,
}

/// The server.
#[derive(Clone)]
pub struct Stage {
    pub url: String,
    play: Arc<Mutex<Play>>,
}

impl Stage {
    pub async fn new(log: MiniLog) -> Stage {
        let play = Play {
            log,
            cosigners: Vec::new(),
            withheld: BTreeSet::new(),
            hidden: BTreeSet::new(),
            failing: BTreeSet::new(),
            hanging: BTreeSet::new(),
            down: false,
            keeps: false,
            asked: BTreeMap::new(),
            files: BTreeMap::new(),
            hung: Arc::default(),
        };
        let play = Arc::new(Mutex::new(play));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(play.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let stage = Stage { url, play };
        stage.change(|_| ());
        stage
    }

    /// Another play from now on.
    pub fn change(&self, change: impl FnOnce(&mut Play)) {
        let mut play = self.play.lock().unwrap();
        change(&mut play);
        let files = files(&play.log);
        if !play.keeps {
            play.files.clear();
        }
        play.files.extend(files);
    }

    pub fn show(&self, log: MiniLog) {
        self.change(|play| play.log = log);
    }

    /// Waits until somebody waits for what does not come.
    pub async fn hung(&self) {
        let hung = self.play.lock().unwrap().hung.clone();
        hung.notified().await;
    }

    pub fn asked(&self, kind: &str) -> usize {
        self.play.lock().unwrap().asked.get(kind).copied().unwrap_or(0)
    }
}

fn files(log: &MiniLog) -> BTreeMap<String, Bytes> {
    let (_, tiles) = Edge::new().integrate(&log.leaves());
    let mut files: BTreeMap<String, Bytes> =
        tiles.into_iter().map(|tile| (tile.at.path(), tile.bytes.into())).collect();
    for at in new_bundles(0, log.entries.len() as u64) {
        let BundleCoordinate { index, width } = at;
        let first = index as usize * 256;
        let entries = &log.entries[first..first + usize::from(width)];
        files.insert(at.path(), encode_bundle(entries).unwrap().into());
    }
    files
}

async fn answer(
    State(play): State<Arc<Mutex<Play>>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let path = uri.path().trim_start_matches('/');
    let hung = {
        let play = play.lock().unwrap();
        play.hanging.contains(path).then(|| play.hung.clone())
    };
    if let Some(hung) = hung {
        hung.notify_one();
        return std::future::pending().await;
    }
    let mut play = play.lock().unwrap();
    let kind = path.rsplit_once('/').map_or(path, |(kind, _)| kind).to_owned();
    *play.asked.entry(kind).or_default() += 1;
    if play.down {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let cosigners: Vec<_> = play.cosigners.iter().map(|key| (key, play.log.time)).collect();
    let checkpoint = play.log.checkpoint(&cosigners);
    if path == "checkpoint" {
        return checkpoint.into_response();
    }
    if let Some(hash) = path.strip_prefix("v1/blob/") {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(hash, &mut sha256).unwrap();
        if play.failing.contains(&sha256) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let blob = play.log.blobs.get(&sha256).filter(|_| !play.withheld.contains(&sha256));
        return match blob {
            Some(blob) => blob.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        };
    }
    if method == Method::POST {
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let name = body["name"].as_str().unwrap();
        let from = match path {
            "v1/history" => body["from"].as_u64().unwrap_or(0).max(1),
            _ => 0,
        };
        let receipt = play.log.receipt(name, from, checkpoint, Some(play.log.time));
        return receipt.encode().into_response();
    }
    match play.files.get(path).filter(|_| !play.hidden.contains(path)) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
