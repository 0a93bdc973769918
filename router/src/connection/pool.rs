//! The pool of one database.

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use diesel::connection::{AnsiTransactionManager, Connection, SimpleConnection, TransactionManager};
use diesel::r2d2::{self, ManageConnection, PooledConnection};
use diesel::result::{ConnectionError, QueryResult};
use scheduled_thread_pool::ScheduledThreadPool;

use super::attached::Attached;
use super::backend::Dialect;
use super::beside::Connecting;
use super::born::Births;
use super::decision;
use super::holders::{Holder, Holders};
use super::instrument::{SharedInstrumentation, panic_text};
use super::link::Link;
use super::migrations::{Migrations, Ran};
use super::queue::Queue;
use super::right_of_way::RightOfWay;
use super::settings::Settings;
use super::survey::{Survey, Surveyor};
use super::text::Syntax;
use crate::error::{Error, Result};
use crate::failure::classify;
use crate::reported::named;
#[cfg(feature = "testing")]
use crate::site::Function;
use crate::site::Site;
#[cfg(feature = "testing")]
use crate::testing::Idle;
use crate::transaction_id::TransactionId;

/// How long a thread that already holds a connection waits for another one at most; at least it is half of that.
///
/// Short, because the thread with the other pool's last connection may be waiting for this one's. Not the same for all, so that
/// of several threads that wait for each other one gives up first, and the others go on.
pub const WAIT_WHILE_HOLDING: Duration = Duration::from_secs(2);
/// The threads that open and replace connections, for all pools together.
pub const POOL_THREADS: usize = 3;

/// One pool of connections, and who holds them.
pub struct Pool<B: Dialect> {
    r2d2: r2d2::Pool<Manager<B>>,
    settings: Settings,
    holders: Arc<Holders>,
    /// Whether the server prepares transactions, once it was asked.
    prepares: OnceLock<bool>,
    births: Arc<Births>,
    queue: Queue,
}

impl<B: Dialect> Pool<B> {
    /// Makes a pool; opens no connection unless `min_idle` asks for some.
    pub fn new(settings: Settings) -> Self {
        static THREADS: LazyLock<Arc<ScheduledThreadPool>> = LazyLock::new(|| {
            Arc::new(
                ScheduledThreadPool::builder().num_threads(POOL_THREADS).thread_name_pattern("multidb-pool-{}").build(),
            )
        });
        let pool = &settings.pool;
        let holders = Arc::new(Holders::default());
        let births = Arc::new(Births::new::<B>(settings.clone()));
        let r2d2 = r2d2::Pool::builder()
            .max_size(pool.max_size)
            .min_idle(Some(pool.min_idle))
            .connection_timeout(pool.connection_timeout)
            .idle_timeout(pool.idle_timeout)
            .max_lifetime(pool.max_lifetime)
            // A ping at each checkout costs a round trip; a dead connection is found and replaced at BEGIN instead.
            .test_on_check_out(false)
            .thread_pool(Arc::clone(&THREADS))
            .error_handler(Box::new(Report(settings.clone())))
            .build_unchecked(Manager {
                settings: settings.clone(),
                holders: Arc::clone(&holders),
                births: Arc::clone(&births),
                _backend: std::marker::PhantomData,
            });
        Self { r2d2, settings, holders, prepares: OnceLock::new(), births, queue: Queue::default() }
    }

    /// What the pool was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Opens one connection beside the pool, to find out whether the database can be reached.
    pub fn check(&self) -> Result<()> {
        let mut raw = B::connect(&self.settings).map_err(|error| self.unreachable(&error.to_string()))?;
        if let Some(prepares) = B::prepares(&mut raw).map_err(|error| self.unreachable(&error.to_string()))? {
            let _ = self.prepares.set(prepares);
        }
        Ok(())
    }

    /// Whether the server prepares transactions, as far as that is known.
    pub fn prepares(&self) -> Option<bool> {
        self.prepares.get().copied()
    }

    /// Opens one connection beside the pool, to find out whether its files can be committed as one. Gives their paths.
    pub fn inspect(&self) -> Result<Vec<PathBuf>> {
        let mut raw = B::connect(&self.settings).map_err(|error| self.unreachable(&error.to_string()))?;
        Attached::new(&self.settings.files).map_or(Ok(Vec::new()), |attached| attached.examine::<B>(&mut raw))
    }

    /// Runs what is missing of these migrations, or of the library's own, on a connection beside the pool, unless that would
    /// be another database.
    pub fn migrate(&self, site: Site, source: Option<&dyn Migrations>) -> Result<Ran> {
        #[cfg(feature = "testing")]
        if self.settings.is_rolled_back() {
            let problem = "this test's work is rolled back, and they could not be; run them before it begins".into();
            return Err(Error::Migration { database: self.settings.alias.clone(), problem });
        }
        let ran = if self.settings.private {
            let mut lease = self.lease(site)?;
            let ran = B::migrate(lease.raw(), source);
            if ran.is_err() && lease.in_transaction() {
                // Its transaction must not take the database with it.
                let _ = AnsiTransactionManager::rollback_transaction(lease.raw());
            }
            ran
        } else {
            let mut raw = B::connect(&self.settings).map_err(|error| self.unreachable(&error.to_string()))?;
            match source {
                Some(source) => B::migrate(&mut raw, Some(source)),
                None => self.make_own_tables(&mut raw),
            }
        };
        ran.map_err(|error| Error::Migration { database: self.settings.alias.clone(), problem: error.to_string() })
    }

    /// Makes the library's own tables where they are looked for.
    fn make_own_tables(&self, raw: &mut B::Raw) -> diesel::migration::Result<Ran> {
        let born = self.births.ask::<B>(raw)?;
        if born.schema.is_none() && !born.settled {
            return Err(NOWHERE.into());
        }
        B::make_in(raw, &born)?;
        let ran = B::migrate(raw, None)?;
        self.births.ask::<B>(raw)?;
        Ok(ran)
    }

    /// Asks on a connection beside the pool what became of a transaction whose reply was lost.
    pub fn probe(&self, id: &TransactionId) -> decision::Verdict {
        #[cfg(feature = "testing")]
        if self.settings.is_rolled_back() {
            // Nobody else sees what the test has committed.
            let site = Site::of(const { &Function::new("verify_commit", "multidb", "the library itself", 0) });
            let asked = self.run(site, None, |link| link.own(|raw, born| decision::look::<B>(raw, born, id)));
            return asked.unwrap_or(decision::Verdict::Unknown);
        }
        let connected = self.births.beside().open::<B>(&self.settings).map_err(|problem| self.unreachable(&problem));
        let asked = connected.and_then(|mut raw| {
            let born = self.births.of::<B>(&mut raw)?;
            limit_session::<B>(&mut raw)?;
            decision::probe::<B>(&mut raw, &born, id).map_err(Error::from)
        });
        asked.unwrap_or_else(|error| {
            let alias = &self.settings.alias;
            let text = "a lost reply to COMMIT could not be resolved";
            tracing::warn!(target: crate::telemetry::TARGET, %alias, %id, %error, "{text}");
            decision::Verdict::Unknown
        })
    }

    /// Begins to open a connection beside the pool, for recovery.
    pub fn begin_survey(self: &Arc<Self>) -> Result<PendingSurvey> {
        let pool = Arc::clone(self);
        let connecting: Connecting<B::Raw> =
            self.births.beside().begin::<B>(&self.settings).map_err(|problem| self.unreachable(&problem))?;
        Ok(Box::new(move || {
            let mut raw = connecting.wait().map_err(|problem| pool.unreachable(&problem))?;
            // Asked before its session is made another one.
            let born = pool.births.of::<B>(&mut raw)?;
            limit_session::<B>(&mut raw)?;
            Ok(Box::new(Surveyor::<B>::new(raw, born, &pool.settings)))
        }))
    }

    /// Lets recovery come first at the write lock of a SQLite file.
    #[inline]
    pub fn give_way(&self) {
        if B::SYNTAX == Syntax::Sqlite {
            self.rights().for_each(RightOfWay::give_way);
        }
    }

    /// A transaction that held the write lock of a SQLite file has given up waiting for another lock.
    pub fn congest(&self) {
        self.rights().for_each(RightOfWay::congest);
    }

    /// The right of way of each file of its connections.
    fn rights(&self) -> impl Iterator<Item = &RightOfWay> {
        let alone = self.settings.files.is_empty().then_some(&*self.settings.right_of_way);
        alone.into_iter().chain(self.settings.files.iter().map(|file| &*file.right_of_way))
    }

    /// How many threads wait for a connection.
    pub fn waiting(&self) -> u32 {
        self.queue.waiting()
    }

    /// How many connections are open, and how many of them idle.
    pub fn state(&self) -> (u32, u32) {
        let state = self.r2d2.state();
        (state.connections, state.idle_connections)
    }

    /// Lends each idle connection as it is: see [`testing::idle`](crate::testing::idle()).
    #[cfg(feature = "testing")]
    pub fn idle(&self, ask: &mut dyn FnMut(Idle<'_>)) {
        if self.settings.is_rolled_back() {
            return;
        }
        let mut taken: Vec<_> = std::iter::from_fn(|| self.r2d2.try_get()).collect();
        let connect = || B::connect(&self.settings).map(|raw| Box::new(raw) as _).map_err(|error| error.to_string());
        for link in &mut taken {
            let (alias, url) = (self.settings.alias.as_str(), self.settings.url.as_str());
            ask(Idle { alias, url, raw: link.raw(), connect: &connect });
        }
        // The pool is a stack: the first one that was taken is the next one to be taken again.
        while taken.pop().is_some() {}
    }

    /// Takes a connection. Waits the pool's timeout, or [`WAIT_WHILE_HOLDING`] where this thread holds one already.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a connection is large to move")]
    pub fn lease(&self, site: Site) -> Result<Lease<B>> {
        #[cfg(feature = "testing")]
        if self.settings.test.as_ref().is_some_and(|test| test.undeclared) {
            return Err(Error::Config {
                alias: Some(self.settings.alias.clone()),
                key: None,
                problem: format!("{site} uses it, and this test has not declared it"),
                remedy: "declare it in `testing::rolled_back_on`, or mend the route".into(),
            });
        }
        #[cfg(feature = "testing")]
        if self.settings.test.as_ref().is_some_and(super::rehearsal::Test::is_lost) {
            return Err(Error::Config {
                alias: Some(self.settings.alias.clone()),
                key: None,
                problem: format!(
                    "the connection of this test was lost, and with it all that the test did; {site} would see none of it"
                ),
                remedy: "look what ended it, such as DDL on MySQL, or let the test commit: `testing::committed`".into(),
            });
        }
        // An idle one is there most of the time, and then no clock needs to be read.
        let gives_way = self.queue.has_holders() && !Holder::is_holding();
        let link = match if gives_way { None } else { self.r2d2.try_get() } {
            Some(link) => link,
            None => self.wait()?,
        };
        link.seat().take(site);
        Ok(Lease(link))
    }

    /// Waits for a connection, or for a new one.
    #[cold]
    fn wait(&self) -> Result<PooledConnection<Manager<B>>> {
        #[cfg(feature = "testing")]
        if self.settings.is_rolled_back() && self.holders.include_this_thread() {
            let database = self.settings.alias.clone();
            return Err(Error::Busy { database, reason: super::rehearsal::ONLY_ONE });
        }
        let (full, holds) = (self.settings.pool.connection_timeout, Holder::is_holding());
        let wait = if holds { full.min(spread(WAIT_WHILE_HOLDING, RandomState::new().hash_one(()))) } else { full };
        if self.is_exhausted() {
            self.queue.note_short();
        }
        let mut link = self.queue_up(holds, wait)?;
        // Not where it is opened: there a refusal would be tried again until the time is over.
        link.examine()?;
        Ok(link)
    }

    /// Waits for so long, behind those that hold a connection of another pool.
    fn queue_up(&self, holds: bool, wait: Duration) -> Result<PooledConnection<Manager<B>>> {
        let until = Instant::now() + wait;
        let _waiting = self.queue.join(holds);
        loop {
            if !holds {
                self.queue.give_way(until);
            }
            let left = until.saturating_duration_since(Instant::now());
            let link = self.r2d2.get_timeout(left).map_err(|error| self.exhausted_or_unreachable(&error, wait))?;
            if holds || !self.queue.has_holders() || Instant::now() >= until {
                return Ok(link);
            }
            // It goes back, and to one of those.
        }
    }

    /// Takes a connection ahead of the first statement, if the pool was short of them not long ago.
    pub fn lease_if_short(&self, site: Site) -> Result<Option<Lease<B>>> {
        if !self.queue.is_short() {
            return Ok(None);
        }
        if !self.is_exhausted() {
            self.queue.note_calm();
        }
        match self.lease(site) {
            Ok(lease) => Ok(Some(lease)),
            Err(error @ Error::PoolExhausted { .. }) => Err(error),
            // It may never be needed.
            Err(_) => Ok(None),
        }
    }

    /// Takes a connection for a handle outside of any scope.
    pub fn lease_once(&self, site: Site, instrumentation: Option<&SharedInstrumentation>) -> Result<Lease<B>> {
        let holding = Holder::is_holding();
        let mut lease = self.lease(site)?;
        #[cfg(feature = "testing")]
        lease.begin_autocommit()?;
        if holding && let Err(error) = lease.limit_locks() {
            // This thread's transaction may hold the lock that the statement waits for, and no server sees that.
            lease.alive();
            return Err(error.into());
        }
        if let Some(instrumentation) = instrumentation {
            lease.instrument(instrumentation.clone());
        }
        Ok(lease)
    }

    /// Runs one statement in autocommit, on a connection taken for it alone.
    ///
    /// It is never repeated, whatever happened to it: nobody knows how far it came.
    pub fn run<T>(
        &self,
        site: Site,
        instrumentation: Option<&SharedInstrumentation>,
        statement: impl FnOnce(&mut Link<B>) -> QueryResult<T>,
    ) -> QueryResult<T> {
        let mut lease = self.lease_once(site, instrumentation)?;
        let result = statement(&mut lease);
        let panic = lease.take_panic();
        if let Err(error) = &result {
            lease.note_stale(error);
        }
        if result.as_ref().is_err_and(|error| classify(error).is_some()) {
            lease.alive();
        }
        #[cfg(feature = "testing")]
        if result.is_ok() {
            lease.settle_autocommit()?;
        }
        if let Some(panic) = panic {
            drop(lease);
            resume_unwind(panic);
        }
        result.map_err(|error| named(error, &self.settings.alias))
    }

    fn exhausted_or_unreachable(&self, error: &r2d2::PoolError, waited: Duration) -> Error {
        let size = self.settings.pool.max_size;
        if self.is_exhausted() {
            let database = self.settings.alias.clone();
            let remedy = "raise `pool.max_size`, or hold connections for less time";
            // There it has one connection, whatever the configuration says.
            #[cfg(feature = "testing")]
            let remedy = if self.settings.is_rolled_back() { super::rehearsal::SHARED } else { remedy };
            Error::PoolExhausted { database, size, waited, holders: self.holders.to_string(), remedy }
        } else {
            self.unreachable(&error.to_string())
        }
    }

    /// Whether all connections are out.
    fn is_exhausted(&self) -> bool {
        let (connections, idle) = self.state();
        connections >= self.settings.pool.max_size && idle == 0
    }

    fn unreachable(&self, problem: &str) -> Error {
        let url = &self.settings.url;
        let problem = format!("{} (at `{}`)", crate::databases::mask_in(problem, url), crate::databases::mask(url));
        Error::Pool { database: self.settings.alias.clone(), problem }
    }
}

/// At least half of it, and not more than all.
fn spread(most: Duration, random: u64) -> Duration {
    let half = most / 2;
    let nanoseconds = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX - 1);
    half + Duration::from_nanos(random % (nanoseconds + 1))
}

/// Makes a connection that is none of the pool's wait for nothing without a limit.
fn limit_session<B: Dialect>(raw: &mut B::Raw) -> QueryResult<()> {
    if B::SURVEY.is_empty() { Ok(()) } else { raw.batch_execute(B::SURVEY) }
}

/// Why the library's tables can't be made.
const NOWHERE: &str = "its connections begin in no schema or database, so there is no place for tables; name one in the URL, or \
                       set `search_path` for the role";

#[cfg(feature = "testing")]
impl<B: Dialect> Drop for Pool<B> {
    fn drop(&mut self) {
        if let Some(mut ask) = crate::testing::idle::last_look() {
            self.idle(&mut ask);
        }
    }
}

/// Waits for the connection that was begun.
pub type PendingSurvey = Box<dyn FnOnce() -> Result<Box<dyn Survey>>>;

/// A connection taken from a pool; dropping it gives it back, or discards it where it isn't clean.
pub struct Lease<B: Dialect>(PooledConnection<Manager<B>>);

impl<B: Dialect> Lease<B> {
    /// Another thread will drop it: this one holds it no longer.
    pub fn hand_over(&self) {
        self.0.seat().hand_over();
    }
}

impl<B: Dialect> Drop for Lease<B> {
    fn drop(&mut self) {
        self.0.reset();
        self.0.seat().leave();
    }
}

impl<B: Dialect> std::ops::Deref for Lease<B> {
    type Target = Link<B>;

    fn deref(&self) -> &Link<B> {
        &self.0
    }
}

impl<B: Dialect> std::ops::DerefMut for Lease<B> {
    fn deref_mut(&mut self) -> &mut Link<B> {
        &mut self.0
    }
}

/// Opens connections for r2d2, and tells it which to discard.
pub struct Manager<B> {
    settings: Settings,
    holders: Arc<Holders>,
    births: Arc<Births>,
    _backend: std::marker::PhantomData<B>,
}

impl<B: Dialect> ManageConnection for Manager<B> {
    // Boxed, because each checkout moves the connection about ten times, and Diesel's alone has hundreds of bytes.
    type Connection = Box<Link<B>>;
    type Error = ConnectionError;

    fn connect(&self) -> Result<Box<Link<B>>, ConnectionError> {
        // A panic in the pool's thread would take one of its connections away for ever.
        let connected = catch_unwind(AssertUnwindSafe(|| B::connect(&self.settings)));
        let mut raw = connected.unwrap_or_else(|panic| {
            let text = format!("the default instrumentation panicked: {}", panic_text(&panic));
            Err(ConnectionError::BadConnection(text))
        })?;
        // From here on its panics are kept.
        let instrumentation = SharedInstrumentation::of_default();
        if let Some(instrumentation) = &instrumentation {
            raw.set_instrumentation(instrumentation.clone());
        }
        // Later the session may be another one.
        self.births.of::<B>(&mut raw).map_err(ConnectionError::CouldntSetupConfiguration)?;
        let mut link = Box::new(Link::new(raw, &self.settings, Arc::clone(&self.births), self.holders.seat()));
        if instrumentation.is_some() {
            link.watch_with(instrumentation);
        }
        #[cfg(feature = "testing")]
        link.rehearse().map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(link)
    }

    fn is_valid(&self, _link: &mut Box<Link<B>>) -> Result<(), ConnectionError> {
        Ok(())
    }

    // Diesel's own manager discards everything that comes back while a thread panics. Here a panic is rolled back first.
    fn has_broken(&self, link: &mut Box<Link<B>>) -> bool {
        let broken = !link.is_clean();
        #[cfg(feature = "testing")]
        if broken && let Some(test) = &self.settings.test {
            test.lose();
        }
        broken
    }
}

/// Tells of connections that could not be opened.
#[derive(Debug)]
struct Report(Settings);

impl r2d2::HandleError<ConnectionError> for Report {
    fn handle_error(&self, error: ConnectionError) {
        // A driver's error may quote the URL, or a part of it.
        let (alias, error) = (&self.0.alias, crate::databases::mask_in(&error.to_string(), &self.0.url));
        tracing::warn!(target: crate::telemetry::TARGET, %alias, %error, "a connection could not be opened");
    }
}

#[cfg(test)]
mod tests {
    use super::{WAIT_WHILE_HOLDING, spread};

    #[test]
    fn who_holds_a_connection_waits_for_half_of_the_limit_or_more_and_not_longer() {
        for random in [0, 1, u64::MAX / 3, u64::MAX] {
            let waits = spread(WAIT_WHILE_HOLDING, random);
            assert!(waits >= WAIT_WHILE_HOLDING / 2 && waits <= WAIT_WHILE_HOLDING, "{waits:?}");
        }
        assert_ne!(spread(WAIT_WHILE_HOLDING, 1 << 20), spread(WAIT_WHILE_HOLDING, 0));
    }
}
