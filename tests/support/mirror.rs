//! A real log in a temporary folder with a little world in it, and its faces on
//! loopback. Used with `mini_log`, whose organizations and drafts these are.
#![allow(dead_code)] // each test binary uses another part

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use syndicate::clock::Clock;
use syndicate::dime::Timestamp;
use syndicate::log::answer::Answerer;
use syndicate::log::{self, Keys, Log, Placed};
use syndicate::proof::draft::Draft;
use syndicate::proof::entry::Event;
use syndicate::proof::vrf;
use syndicate::serve::budget::Budget;
use syndicate::serve::http::{Options, Server};
use syndicate::serve::metrics::Metrics;
use syndicate::store::rows::SeenRow;
use syndicate::store::sled::Sled;
use syndicate::store::{Applied, Batch, State, Store};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::mini_log::*;

/// Everything of one mirror; ends when dropped.
pub struct Mirror {
    pub log: Log,
    pub clock: Clock,
    pub store: Store,
    pub state: Arc<dyn State>,
    pub answers: Arc<Answerer>,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
    _folder: TempDir,
    _sequencer: JoinHandle<Result<(), log::Error>>,
}

impl Mirror {
    /// An empty log.
    pub async fn new() -> Mirror {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(at(0));
        let store = Store::folder(&folder.path().join("blobs")).unwrap();
        let state: Arc<dyn State> = Arc::new(Sled::open(&folder.path().join("state")).unwrap());
        let mut options = log::Options::new(folder.path().join("guard"));
        options.origin = Some(ORIGIN.into());
        options.interval = Duration::from_millis(1);
        options.urgent_interval = Duration::from_millis(1);
        let vrf = Arc::new(vrf::SecretKey::from_seed(&VRF_SEED));
        let keys = Keys { log: log_key(), vrf };
        let opened =
            log::open(options, store.clone(), state.clone(), keys, clock.clone()).await.unwrap();
        let shutdown = CancellationToken::new();
        let sequencer = tokio::spawn(opened.sequencer.run(shutdown.clone()));
        let log = opened.log;
        let answers = Arc::new(Answerer::new(log.reader()));
        let metrics = Metrics::new().unwrap();
        Mirror {
            log,
            clock,
            store,
            state,
            answers,
            metrics,
            shutdown,
            _folder: folder,
            _sequencer: sequencer,
        }
    }

    /// One domain with `alice` (rotated), `bob` (restarted, held), `carol`
    /// (forgotten), `dave` (withdrawn); one without DNSSEC.
    pub async fn world() -> Mirror {
        let mirror = Mirror::new().await;
        let [one, two, _] = orgs();
        let key = |byte| key(syndicate::dime::key::Owner::User, byte);
        let user = |name: &str, signet: &_, event, minute: u64| {
            one.user_draft(name, signet, event, at(minute * MINUTE - 700))
        };
        let alice_1 = one.user("alice@one.example", &key(1), None, None);
        let alice_2 = one.user("alice@one.example", &key(2), Some(&key(1)), None);
        let bob_1 = one.user("bob@one.example", &key(3), None, None);
        let bob_2 = one.user("bob@one.example", &key(4), None, None);
        let carol = one.user("carol@one.example", &key(5), None, None);
        let dave = one.user("dave@one.example", &key(6), None, None);
        let first = Event::FirstSeen;
        mirror.clock.set(at(MINUTE));
        mirror
            .put([
                one.draft(&[first], syndicate::dime::Dnssec::Secure),
                two.draft(&[first], syndicate::dime::Dnssec::Insecure),
            ])
            .await;
        mirror
            .put([
                user("alice@one.example", &alice_1, first, 1),
                user("bob@one.example", &bob_1, first, 1),
                user("carol@one.example", &carol, first, 1),
                user("dave@one.example", &dave, first, 1),
            ])
            .await;
        mirror.clock.set(at(2 * MINUTE));
        mirror
            .put([
                user("alice@one.example", &alice_2, Event::Rotated, 2),
                user("bob@one.example", &bob_2, Event::Restarted, 2),
                Draft::Forget { address: "carol@one.example".parse().unwrap() },
                one.absent_draft("dave@one.example", at(2 * MINUTE)),
            ])
            .await;
        for (name, version) in
            [("alice@one.example", 2), ("bob@one.example", 2), ("one.example", 1)]
        {
            mirror.saw(name, version, at(2 * MINUTE)).await;
        }
        mirror
    }

    /// Puts drafts into the log, one after the other.
    pub async fn put(&self, drafts: impl IntoIterator<Item = Draft>) -> Vec<Placed> {
        let mut placed = Vec::new();
        for draft in drafts {
            placed.push(self.log.submit_urgent(draft).await.unwrap());
        }
        placed
    }

    /// The crawler's note of when the DX served a name.
    pub async fn saw(&self, name: &str, version: u64, time: Timestamp) {
        let mut batch = Batch::new();
        batch.row(&SeenRow {
            name: name.parse().unwrap(),
            version,
            confirmed_at: time,
            attempted_at: time,
            validity: None,
            last_served: None,
            bogus: false,
            other: None,
            outcome: String::new(),
        });
        assert_eq!(self.state.apply(batch).await.unwrap(), Applied::Applied);
    }

    /// Serves over HTTP on loopback; gives the URL.
    pub async fn serve(&self, change: impl FnOnce(&mut Options)) -> String {
        let mut options = Options::new(&self.clock);
        change(&mut options);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let server =
            Server::new(self.answers.clone(), self.metrics.clone(), self.clock.clone(), options);
        tokio::spawn(server.run(listener, self.shutdown.clone()));
        format!("http://{address}")
    }

    /// A budget of so many unknown mailboxes an hour.
    pub fn budget(&self, per_hour: u32) -> Arc<Budget> {
        Arc::new(Budget::new(per_hour, self.clock.clone()))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
