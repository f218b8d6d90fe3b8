//! Test support: stores that break on command, and the contracts that every
//! engine keeps. Public because integration tests and other rooms need it;
//! nothing here is used by a running mirror.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tokio::sync::Semaphore;

use super::state::{Applied, Batch, MAX_SCAN, Range, Row, State, Table, check_batch};
use super::{Blobs, Claim, Created, Error, Store};

/// What an operation does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Create or overwrite.
    Write,
    /// Read whole or in part, or look at.
    Read,
    Delete,
}

/// How a store answers without doing what it was asked, or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 503, or any other failure that says nothing.
    Unavailable,
    /// 412: the object exists.
    Precondition,
    /// 409: a concurrent writer; the object may not exist.
    Conflict,
    /// The answer never came.
    Timeout,
}

impl Answer {
    pub const ALL: [Answer; 4] =
        [Answer::Unavailable, Answer::Precondition, Answer::Conflict, Answer::Timeout];

    fn error(self, path: &str) -> object_store::Error {
        let (path, source) = (path.to_owned(), format!("injected: {self:?}").into());
        match self {
            Answer::Unavailable | Answer::Timeout => {
                object_store::Error::Generic { store: "injected", source }
            }
            Answer::Precondition => object_store::Error::Precondition { path, source },
            // As object_store's S3 client reports it.
            Answer::Conflict => object_store::Error::AlreadyExists { path, source },
        }
    }
}

/// What happens to an operation.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is done, and this is the answer.
    Refuse(Answer),
    /// It is done, and this is the answer all the same.
    Lie(Answer),
    /// It is done, and then the process is as good as dead: this and every
    /// later operation of any kind fails, until [`Faults::clear`].
    DieAfter,
    /// Nothing is done, and every later operation fails, until [`Faults::clear`].
    DieBefore,
    /// It waits at the gate before anything is done.
    Wait(Gate),
}

/// Holds an operation up until it is let through.
#[derive(Clone, Debug)]
pub struct Gate {
    reached: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { reached: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }
}

impl Gate {
    /// Waits until an operation stands at the gate.
    pub async fn reached(&self) {
        if let Ok(permit) = self.reached.acquire().await {
            permit.forget();
        }
    }

    /// Lets one operation through.
    pub fn open(&self) {
        self.open.add_permits(1);
    }

    async fn pass(&self) {
        self.reached.add_permits(1);
        if let Ok(permit) = self.open.acquire().await {
            permit.forget();
        }
    }
}

#[derive(Debug)]
struct Rule {
    operation: Operation,
    /// `public/…` or `private/…`: how the full name begins.
    prefix: String,
    /// Matching operations that still pass before this rule strikes.
    skip: u64,
    fault: Fault,
    /// Strikes once, or at every matching operation from then on.
    once: bool,
}

#[derive(Debug, Default)]
struct Plan {
    rules: Vec<Rule>,
    trail: Vec<(Operation, String)>,
    dead: bool,
}

/// A plan of what goes wrong in a [`Store`]. Cheap to clone; all clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

impl Faults {
    pub fn new() -> Faults {
        Faults::default()
    }

    /// The same objects, their operations subject to this plan. Names in the
    /// plan begin with `public/` or `private/`.
    pub fn wrap(&self, store: &Store) -> Store {
        Store {
            public: self.wrap_blobs(&store.public, "public"),
            private: self.wrap_blobs(&store.private, "private"),
        }
    }

    /// One place; names in the plan begin with `name` and a slash.
    pub fn wrap_blobs(&self, blobs: &Blobs, name: &'static str) -> Blobs {
        blobs.wrapped(|inner| Arc::new(Faulty { inner, name, faults: self.clone() }))
    }

    /// The `nth` matching operation from now (0: the next) meets the fault, once.
    pub fn on(&self, operation: Operation, prefix: &str, nth: u64, fault: Fault) {
        self.add(operation, prefix, nth, fault, true);
    }

    /// Every matching operation from now on meets the fault.
    pub fn always(&self, operation: Operation, prefix: &str, fault: Fault) {
        self.add(operation, prefix, 0, fault, false);
    }

    /// A gate before the `nth` matching operation.
    pub fn gate(&self, operation: Operation, prefix: &str, nth: u64) -> Gate {
        let gate = Gate::default();
        self.on(operation, prefix, nth, Fault::Wait(gate.clone()));
        gate
    }

    /// Forgets all faults; what is dead lives again. Says whether there was any.
    pub fn clear(&self) -> bool {
        let mut plan = self.plan();
        let any = plan.dead || !plan.rules.is_empty();
        plan.rules.clear();
        plan.dead = false;
        any
    }

    /// Every write and deletion asked for so far, refused ones included, in order.
    pub fn trail(&self) -> Vec<(Operation, String)> {
        self.plan().trail.clone()
    }

    /// Forgets the trail.
    pub fn forget_trail(&self) {
        self.plan().trail.clear();
    }

    fn add(&self, operation: Operation, prefix: &str, skip: u64, fault: Fault, once: bool) {
        self.plan().rules.push(Rule { operation, prefix: prefix.into(), skip, fault, once });
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this operation meets, if anything.
    fn meet(&self, operation: Operation, name: &str) -> Option<Fault> {
        let mut plan = self.plan();
        if operation != Operation::Read {
            plan.trail.push((operation, name.to_owned()));
        }
        if plan.dead {
            return Some(Fault::Refuse(Answer::Unavailable));
        }
        let mut struck = None;
        for (at, rule) in plan.rules.iter_mut().enumerate() {
            if rule.operation != operation || !name.starts_with(&rule.prefix) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if struck.is_none() {
                struck = Some(at);
            }
        }
        let at = struck?;
        let rule = plan.rules.get(at)?;
        let (fault, once) = (rule.fault.clone(), rule.once);
        if once {
            plan.rules.remove(at);
        }
        plan.dead |= matches!(fault, Fault::DieAfter | Fault::DieBefore);
        Some(fault)
    }
}

/// An object store under a plan.
#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn ObjectStore>,
    name: &'static str,
    faults: Faults,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

impl Faulty {
    /// Stops the operation here, or says how to answer once it is done.
    async fn before(
        &self,
        operation: Operation,
        location: &Path,
    ) -> object_store::Result<Option<object_store::Error>> {
        let path = location.as_ref();
        match self.faults.meet(operation, &format!("{}/{path}", self.name)) {
            None => Ok(None),
            Some(Fault::Refuse(answer)) => Err(answer.error(path)),
            Some(Fault::DieBefore) => Err(Answer::Unavailable.error(path)),
            Some(Fault::Lie(answer)) => Ok(Some(answer.error(path))),
            Some(Fault::DieAfter) => Ok(Some(Answer::Unavailable.error(path))),
            Some(Fault::Wait(gate)) => {
                gate.pass().await;
                Ok(None)
            }
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let lie = self.before(Operation::Write, location).await?;
        let done = self.inner.put_opts(location, payload, options).await?;
        lie.map_or(Ok(done), Err)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.before(Operation::Write, location).await?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        let lie = self.before(Operation::Read, location).await?;
        let done = self.inner.get_opts(location, options).await?;
        lie.map_or(Ok(done), Err)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let faulty =
            Faulty { inner: self.inner.clone(), name: self.name, faults: self.faults.clone() };
        let faulty = Arc::new(faulty);
        locations
            .then(move |location| {
                let faulty = faulty.clone();
                async move {
                    use object_store::ObjectStoreExt;
                    let location = location?;
                    let lie = faulty.before(Operation::Delete, &location).await?;
                    faulty.inner.delete(&location).await?;
                    lie.map_or(Ok(location), Err)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        let lie = self.before(Operation::Write, to).await?;
        self.inner.copy_opts(from, to, options).await?;
        lie.map_or(Ok(()), Err)
    }
}

/// A [`State`] in memory, for tests of what is built on one.
#[derive(Debug, Default)]
pub struct MemoryState {
    rows: Mutex<Rows>,
    reads: Mutex<BTreeMap<Table, usize>>,
}

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

impl MemoryState {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows of a table that were asked for one by one since this was last asked.
    pub fn take_reads(&self, table: Table) -> usize {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.remove(&table).unwrap_or_default()
    }
}

#[async_trait]
impl State for MemoryState {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        *reads.entry(table).or_default() += 1;
        Ok(self.rows().get(&(table, key.to_vec())).cloned())
    }

    async fn scan(&self, table: Table, range: Range, limit: usize) -> Result<Vec<Row>, Error> {
        let rows = self.rows();
        let fits = |key: &Vec<u8>| range.end.as_ref().is_none_or(|end| key < end);
        Ok(rows
            .range((table, range.start.clone())..)
            .take_while(|((of, key), _)| *of == table && fits(key))
            .take(limit.min(MAX_SCAN))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, Error> {
        check_batch(&batch)?;
        let mut rows = self.rows();
        for (table, key, expected) in &batch.expectations {
            if rows.get(&(*table, key.clone())) != expected.as_ref() {
                return Ok(Applied::Conflict);
            }
        }
        for (table, key, value) in batch.writes {
            match value {
                Some(value) => drop(rows.insert((table, key), value)),
                None => drop(rows.remove(&(table, key))),
            }
        }
        Ok(Applied::Applied)
    }

    async fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// What every engine behind [`Blobs`] keeps that the log may be fenced with.
/// Panics where one does not. Leaves objects under `contract/`.
pub async fn blobs_contract(blobs: &Blobs) {
    let bytes = Bytes::from_static;

    // Nothing is there before it is written.
    assert_eq!(blobs.get("contract/a/1", 10).await.unwrap(), None);
    assert_eq!(blobs.head("contract/a/1").await.unwrap(), None);
    blobs.delete("contract/a/1").await.unwrap();

    // Written once, read whole, in part, and refused where too large.
    blobs.put("contract/a/1", bytes(b"one")).await.unwrap();
    blobs.put("contract/a/1", bytes(b"one")).await.unwrap();
    assert_eq!(blobs.get("contract/a/1", 3).await.unwrap(), Some(bytes(b"one")));
    assert_eq!(blobs.get_range("contract/a/1", 1, 3).await.unwrap(), Some(bytes(b"ne")));
    assert_eq!(blobs.get_range("contract/a/1", 1, 99).await.unwrap(), Some(bytes(b"ne")));
    assert!(matches!(blobs.get("contract/a/1", 2).await, Err(Error::TooLarge { .. })));
    assert_eq!(blobs.head("contract/a/1").await.unwrap().unwrap().size, 3);

    // What never changes never changes.
    let differs = blobs.put("contract/a/1", bytes(b"two")).await.unwrap_err();
    assert!(differs.is_fatal(), "{differs}");
    assert!(blobs.put("contract/a/1", bytes(b"longer")).await.unwrap_err().is_fatal());
    blobs.overwrite("contract/b", bytes(b"old")).await.unwrap();
    blobs.overwrite("contract/b", bytes(b"new")).await.unwrap();
    assert_eq!(blobs.get("contract/b", 3).await.unwrap(), Some(bytes(b"new")));

    // One winner, whoever asks how often.
    let put = |value| blobs.put_if_absent("contract/a/2", value);
    assert_eq!(put(bytes(b"mine")).await.unwrap(), Created::Created);
    assert_eq!(put(bytes(b"mine")).await.unwrap(), Created::Exists);
    let claim = |value| blobs.claim("contract/a/2", value, 100);
    assert_eq!(claim(bytes(b"mine")).await.unwrap(), Claim::Won);
    assert_eq!(claim(bytes(b"yours")).await.unwrap(), Claim::Lost(bytes(b"mine")));
    race(blobs).await;
    assert_eq!(blobs.probe("contract").await.unwrap(), super::blobs::Probe::Fences);

    // Listings: all, none, too many, one level.
    let listed = blobs.list_all("contract", 100).await.unwrap();
    let keys: Vec<&str> = listed.iter().map(|found| found.key.as_str()).collect();
    assert_eq!(keys, ["contract/a/1", "contract/a/2", "contract/b", "contract/race"]);
    assert!(matches!(blobs.list_all("contract", 3).await, Err(Error::TooMany { .. })));
    assert_eq!(blobs.list_all("nothing", 3).await.unwrap(), []);
    assert_eq!(blobs.names("contract").await.unwrap(), ["a", "b", "race"]);

    // Deletion, and a folder that comes back after it was empty.
    blobs.delete("contract/a/1").await.unwrap();
    blobs.delete("contract/a/2").await.unwrap();
    assert_eq!(blobs.get("contract/a/1", 3).await.unwrap(), None);
    blobs.put("contract/a/3", bytes(b"three")).await.unwrap();
    blobs.settle("contract/a/3").await.unwrap();

    // Keys that are no keys.
    for bad in ["a//b", "../a", "a/./b", "/a", "a/"] {
        assert!(matches!(blobs.get(bad, 1).await, Err(Error::Key { .. })), "{bad}");
    }
}

/// Sixteen claim one name at once: one wins, and all others read its bytes.
async fn race(blobs: &Blobs) {
    let claims = (0..16u8).map(|who| async move {
        (who, blobs.claim("contract/race", Bytes::from(vec![who]), 1).await.unwrap())
    });
    let outcomes = futures::future::join_all(claims).await;
    let winners: Vec<u8> =
        outcomes.iter().filter_map(|(who, claim)| (*claim == Claim::Won).then_some(*who)).collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    for (_, claim) in outcomes {
        assert!(claim == Claim::Won || claim == Claim::Lost(Bytes::from(winners.clone())));
    }
}

/// What every engine behind [`State`] keeps. Wants an empty one; panics where
/// it does not.
pub async fn state_contract(state: &dyn State) {
    // Nothing is there before it is written; tables are apart.
    assert_eq!(state.get(Table::Meta, b"a").await.unwrap(), None);
    let mut batch = Batch::new();
    batch.put(Table::Meta, "a", "1");
    batch.put(Table::Users, "a", "2");
    batch.put(Table::Users, "b", "3");
    batch.put(Table::Users, "ba", "4");
    batch.put(Table::Users, "c", "");
    assert_eq!(state.apply(batch).await.unwrap(), Applied::Applied);
    assert_eq!(state.get(Table::Meta, b"a").await.unwrap(), Some(b"1".to_vec()));
    assert_eq!(state.get(Table::Users, b"a").await.unwrap(), Some(b"2".to_vec()));
    assert_eq!(state.get(Table::Users, b"c").await.unwrap(), Some(vec![]));
    assert_eq!(state.get(Table::Domains, b"a").await.unwrap(), None);

    // Scans: in order, bounded, by prefix, page by page.
    let keys = |rows: Vec<Row>| -> Vec<String> {
        rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
    };
    let scan = |range, limit| state.scan(Table::Users, range, limit);
    assert_eq!(keys(scan(Range::all(), 9).await.unwrap()), ["a", "b", "ba", "c"]);
    assert_eq!(keys(scan(Range::all(), 2).await.unwrap()), ["a", "b"]);
    assert_eq!(keys(scan(Range::all().after(b"b"), 9).await.unwrap()), ["ba", "c"]);
    assert_eq!(keys(scan(Range::prefix(b"b"), 9).await.unwrap()), ["b", "ba"]);
    assert_eq!(keys(scan(Range::prefix(b"x"), 9).await.unwrap()), Vec::<String>::new());
    let backwards = Range { start: b"c".to_vec(), end: Some(b"a".to_vec()) };
    assert_eq!(keys(scan(backwards, 9).await.unwrap()), Vec::<String>::new());

    // A batch whose expectation fails does nothing at all.
    let mut batch = Batch::new();
    batch.put(Table::Meta, "a", "changed");
    batch.delete(Table::Users, "b");
    batch.expect(Table::Users, "a", Some(b"other".to_vec()));
    assert_eq!(state.apply(batch.clone()).await.unwrap(), Applied::Conflict);
    assert_eq!(state.get(Table::Meta, b"a").await.unwrap(), Some(b"1".to_vec()));
    assert!(state.get(Table::Users, b"b").await.unwrap().is_some());
    batch.expectations = vec![
        (Table::Users, b"a".to_vec(), Some(b"2".to_vec())),
        (Table::Users, b"none".to_vec(), None),
    ];
    assert_eq!(state.apply(batch).await.unwrap(), Applied::Applied);
    assert_eq!(state.get(Table::Meta, b"a").await.unwrap(), Some(b"changed".to_vec()));
    assert_eq!(state.get(Table::Users, b"b").await.unwrap(), None);

    // The later write of a row wins; expectations are of the state before.
    let mut batch = Batch::new();
    batch.put(Table::Meta, "twice", "1");
    batch.put(Table::Meta, "twice", "2");
    batch.expect(Table::Meta, "twice", None);
    assert_eq!(state.apply(batch).await.unwrap(), Applied::Applied);
    assert_eq!(state.get(Table::Meta, b"twice").await.unwrap(), Some(b"2".to_vec()));

    leases(state).await;
    halves(state).await;
    state.flush().await.unwrap();

    // Over the limits.
    let mut batch = Batch::new();
    batch.put(Table::Meta, vec![0; 513], "");
    assert!(state.apply(batch).await.is_err());
    let mut batch = Batch::new();
    batch.put(Table::Meta, "large", vec![0; (1 << 20) + 1]);
    assert!(state.apply(batch).await.is_err());

    // Emptied, one table alone.
    state.clear(Table::Users).await.unwrap();
    assert_eq!(scan(Range::all(), 9).await.unwrap(), []);
    assert!(state.get(Table::Meta, b"a").await.unwrap().is_some());
}

/// Sixteen take one lease at once: one gets it.
async fn leases(state: &dyn State) {
    let takes = (0..16u8).map(|who| async move {
        let mut batch = Batch::new();
        batch.expect(Table::Frontier, "lease", None);
        batch.put(Table::Frontier, "lease", [who]);
        state.apply(batch).await.unwrap()
    });
    let outcomes = futures::future::join_all(takes).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Applied::Applied).count(), 1);
}

/// A scan beside a writer of pairs never sees one half of a pair.
async fn halves(state: &dyn State) {
    let write = async {
        for turn in 0..50u8 {
            let mut batch = Batch::new();
            batch.put(Table::Cache, "left", [turn]);
            batch.put(Table::Cache, "right", [turn]);
            let _ = state.apply(batch).await.unwrap();
            tokio::time::sleep(Duration::from_micros(10)).await;
        }
    };
    let read = async {
        for _ in 0..50 {
            let rows = state.scan(Table::Cache, Range::all(), 9).await.unwrap();
            if let [(_, left), (_, right)] = rows.as_slice() {
                assert_eq!(left, right);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(write, read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_keeps_both_contracts() {
        blobs_contract(&Blobs::memory()).await;
        state_contract(&MemoryState::default()).await;
    }

    #[tokio::test]
    async fn a_folder_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        blobs_contract(&Blobs::folder(folder.path()).unwrap()).await;
    }

    #[tokio::test]
    async fn a_private_folder_is_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(&folder.path().join("deep/down")).unwrap();
        store.private.put("a/b", Bytes::from_static(b"x")).await.unwrap();
        let mode = std::fs::metadata(folder.path().join("deep/down/private")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn a_claim_survives_every_false_answer() {
        for answer in Answer::ALL {
            let faults = Faults::new();
            let blobs = faults.wrap_blobs(&Blobs::memory(), "private");
            faults.on(Operation::Write, "private/n", 0, Fault::Lie(answer));
            let claim = blobs.claim("n", Bytes::from_static(b"ours"), 10).await.unwrap();
            assert_eq!(claim, Claim::Won, "persisted but answered {answer:?}");

            let faults = Faults::new();
            let blobs = faults.wrap_blobs(&Blobs::memory(), "private");
            faults.on(Operation::Write, "private/n", 0, Fault::Refuse(answer));
            let claim = blobs.claim("n", Bytes::from_static(b"ours"), 10).await.unwrap();
            assert_eq!(claim, Claim::Won, "refused with {answer:?}, then tried again");
        }
    }

    #[tokio::test]
    async fn the_probe_finds_a_store_that_overwrites() {
        let overwriting = Blobs::memory().wrapped(|inner| Arc::new(Careless(inner)));
        assert_eq!(
            overwriting.probe("commit").await.unwrap(),
            super::super::blobs::Probe::Overwrites
        );
        assert_eq!(overwriting.list_all("commit", 9).await.unwrap(), []);
    }

    /// Ignores every condition, as some real engines do.
    #[derive(Debug)]
    struct Careless(Arc<dyn ObjectStore>);

    impl fmt::Display for Careless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("careless")
        }
    }

    #[async_trait]
    impl ObjectStore for Careless {
        async fn put_opts(
            &self,
            location: &Path,
            payload: PutPayload,
            _: PutOptions,
        ) -> object_store::Result<PutResult> {
            self.0.put_opts(location, payload, PutOptions::default()).await
        }
        async fn put_multipart_opts(
            &self,
            location: &Path,
            options: PutMultipartOptions,
        ) -> object_store::Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(location, options).await
        }
        async fn get_opts(
            &self,
            location: &Path,
            options: GetOptions,
        ) -> object_store::Result<GetResult> {
            self.0.get_opts(location, options).await
        }
        fn delete_stream(
            &self,
            locations: BoxStream<'static, object_store::Result<Path>>,
        ) -> BoxStream<'static, object_store::Result<Path>> {
            self.0.delete_stream(locations)
        }
        fn list(
            &self,
            prefix: Option<&Path>,
        ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
            self.0.list(prefix)
        }
        async fn list_with_delimiter(
            &self,
            prefix: Option<&Path>,
        ) -> object_store::Result<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }
        async fn copy_opts(
            &self,
            from: &Path,
            to: &Path,
            options: CopyOptions,
        ) -> object_store::Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }
}
