//! The handle itself.

use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;

use diesel::connection::{
    CacheSize, Connection, ConnectionSealed, Instrumentation, SimpleConnection, TransactionDepthChange,
    TransactionManagerStatus, ValidTransactionManagerStatus,
};
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::{ConnectionError, ConnectionResult, QueryResult};

use super::manager::HandleTransactions;
use super::proof::{is_unproven, may_give_rows, proof_of};
use crate::alias::Alias;
use crate::connection::attached::OwnFile;
use crate::connection::backend::Backend;
use crate::connection::gate::Proof;
use crate::connection::instrument::SharedInstrumentation;
use crate::connection::link::Link;
use crate::connection::pool::Pool;
use crate::connection::slot::{AnySlot, Slot};
use crate::databases::Databases;
use crate::error::Error;
use crate::site::Site;
use crate::transaction::{Ticket, abandon, any, note_independent_work};

/// A Diesel connection that leads to a scope's database: what a `#[conn]` parameter is.
///
/// Every Diesel query runs on it as on the plain connection. Inside a scope its statements belong to the scope's
/// transaction; outside of any scope each runs in autocommit on a pooled connection. Diesel's own `transaction` on it
/// is a nested scope, or outside of any scope a new one, which annotated functions then join.
///
/// A handle that outlives its scope answers [`Error::Closed`], carried in Diesel's error.
pub struct Conn<B: Backend> {
    pub(super) place: Place<B>,
    /// Where the handle leads outside of a transaction that it began itself.
    pub(super) home: Option<Box<Home<B>>>,
    pub(super) instrumentation: Option<SharedInstrumentation>,
    /// If its connection holds several files, which of them the handle means.
    own_file: Option<Box<OwnFile>>,
    /// The levels that Diesel's `transaction` has opened through this handle, the innermost last.
    pub(super) opened: Vec<Ticket>,
    /// A copy for Diesel, which wants to borrow a status from the handle. The transaction is the owner.
    shadow: TransactionManagerStatus,
    quiet: Quiet,
    pub(super) test: bool,
}

/// Where the statements of a handle go.
pub(super) enum Place<B: Backend> {
    Scope(Arc<Slot<B>>),
    /// With the place where the handle was taken.
    Pool(Arc<Pool<B>>, Site),
}

/// The database of a handle that was taken outside of any scope.
pub(super) struct Home<B: Backend> {
    pub(super) pool: Arc<Pool<B>>,
    pub(super) databases: Databases,
    pub(super) index: usize,
    pub(super) site: Site,
}

impl<B: Backend> Conn<B> {
    pub(crate) fn in_scope(slot: Arc<Slot<B>>, own_file: Option<Box<OwnFile>>) -> Self {
        Self::new(Place::Scope(slot), None, own_file)
    }

    pub(crate) fn in_autocommit(pool: Arc<Pool<B>>, databases: Databases, index: usize, site: Site) -> Self {
        let home = Home { pool: Arc::clone(&pool), databases, index, site };
        Self::new(Place::Pool(pool, site), Some(Box::new(home)), None)
    }

    fn new(place: Place<B>, home: Option<Box<Home<B>>>, own_file: Option<Box<OwnFile>>) -> Self {
        let shadow = TransactionManagerStatus::Valid(ValidTransactionManagerStatus::default());
        Self { place, opened: Vec::new(), home, instrumentation: None, own_file, quiet: Quiet, shadow, test: false }
    }

    /// The database that the handle leads to.
    pub fn alias(&self) -> &Alias {
        match (&self.own_file, &self.place) {
            (Some(own), _) => &own.alias,
            (None, Place::Scope(slot)) => slot.alias(),
            (None, Place::Pool(pool, _)) => &pool.settings().alias,
        }
    }

    /// The place of its file among those of its connection.
    pub(super) fn file(&self) -> usize {
        self.own_file.as_ref().map_or(0, |own| own.place)
    }

    /// Lends Diesel's own connection: for COPY, and for functions that take `&mut PgConnection`.
    ///
    /// A statement that the database refuses inside dooms the level, as outside, unless a transaction of Diesel's
    /// inside was rolled back after it. A transaction that is begun inside must be ended inside; inside a scope a raw
    /// `COMMIT` or `ROLLBACK` must not be sent, since no database tells the library of every such thing.
    ///
    /// # Errors
    /// Those of `body`; before it runs, [`Error::Busy`], [`Error::Closed`], [`Error::Doomed`] or
    /// [`Error::PoolExhausted`].
    pub fn with_raw<T, E: From<Error>>(&mut self, body: impl FnOnce(&mut B::Raw) -> Result<T, E>) -> Result<T, E> {
        self.weigh(|| Proof::None).map_err(Error::from)?;
        match &self.place {
            Place::Scope(slot) => slot.with_raw(self.file(), body),
            Place::Pool(pool, site) => {
                let mut lease = pool.lease_once(*site, self.instrumentation.as_ref())?;
                let lent = lease.watch(self.instrumentation.clone(), body);
                let (result, seen) = lent.map_err(Error::from)?;
                if seen.left_open {
                    lease.break_off();
                }
                lease.alive();
                if let Some(panic) = lease.take_panic() {
                    drop(lease);
                    resume_unwind(panic);
                }
                let value = result?;
                #[cfg(feature = "testing")]
                lease.was_kept_open(&seen)?;
                seen.answer.map_err(Error::from)?;
                Ok(value)
            }
        }
    }

    /// Counts what a manual scope has pending, refuses writes in a read-only one, and notes those outside of any.
    #[inline]
    pub(super) fn weigh(&self, proof: impl FnOnce() -> Proof) -> QueryResult<()> {
        match &self.place {
            Place::Scope(slot) => slot.gate().weigh(slot.alias(), |level| slot.can_be_read_only(level), proof)?,
            // It commits by itself, whatever becomes of a transaction around it.
            Place::Pool(..) if any(|_| true) && proof() != Proof::Read => note_independent_work(),
            Place::Pool(..) => {}
        }
        Ok(())
    }

    /// Whether the end of the transaction must know that a statement of this type was sent. Its name is searched only where the
    /// transaction is on several databases.
    #[inline]
    pub(super) fn is_to_be_noted<T: QueryId>(&self) -> bool {
        matches!(&self.place, Place::Scope(slot) if slot.gate().is_across()) && is_unproven::<T>()
    }

    /// Runs a statement where the handle leads.
    #[inline]
    pub(super) fn run<T>(&mut self, statement: impl FnOnce(&mut Link<B>) -> QueryResult<T>) -> QueryResult<T> {
        match &self.place {
            Place::Scope(slot) => {
                let file = self.file();
                slot.run(|link| {
                    link.aim(file);
                    statement(link)
                })
            }
            Place::Pool(pool, site) => pool.run(*site, self.instrumentation.as_ref(), statement),
        }
    }

    /// Runs what sends texts of Diesel's own.
    pub(super) fn send<T>(&mut self, statements: impl FnOnce(&mut B::Raw) -> QueryResult<T>) -> QueryResult<T> {
        match &self.place {
            // Which ones, is not known before they are sent.
            Place::Scope(slot) if slot.has_files() => slot.with_raw(self.file(), statements),
            _ => self.run(|link| statements(link.raw())),
        }
    }

    /// Brings the copy of the status up to date.
    pub(super) fn refresh(&mut self) -> &mut TransactionManagerStatus {
        let mut status = ValidTransactionManagerStatus::default();
        if let Place::Scope(slot) = &self.place {
            for _ in 0..slot.gate().depth() {
                // Growing can't fail.
                let _ = status.change_transaction_depth(TransactionDepthChange::IncreaseDepth);
            }
            if let Some(open) = &mut status.in_transaction {
                open.requires_rollback_maybe_up_to_top_level = slot.gate().doomed().is_some();
                open.test_transaction = self.test;
            }
        }
        self.shadow = TransactionManagerStatus::Valid(status);
        &mut self.shadow
    }
}

impl<B: Backend> SimpleConnection for Conn<B> {
    fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.weigh(|| Proof::None)?;
        self.run(|link| link.batch(query))
    }
}

impl<B: Backend> ConnectionSealed for Conn<B> {}

impl<B: Backend> Connection for Conn<B> {
    type Backend = B::Native;
    type TransactionManager = HandleTransactions;

    fn establish(_database_url: &str) -> ConnectionResult<Self> {
        let remedy = "a multidb handle is not opened by URL; take one with `multidb::connection::<Model, _>()`";
        Err(ConnectionError::BadConnection(remedy.into()))
    }

    fn begin_test_transaction(&mut self) -> QueryResult<()> {
        super::manager::begin_test_transaction(self)
    }

    fn execute_returning_count<T>(&mut self, source: &T) -> QueryResult<usize>
    where
        T: QueryFragment<Self::Backend> + QueryId,
    {
        self.weigh(proof_of::<T>)?;
        let unproven = self.is_to_be_noted::<T>();
        self.run(|link| {
            if unproven {
                link.note_unproven();
            }
            let result = link.execute(source, B::EXECUTES_ONE_STEP && may_give_rows::<T>());
            if let Err(error) = &result
                && proof_of::<T>() != Proof::Write
            {
                link.forget_failed(error);
            }
            result
        })
    }

    fn transaction_state(&mut self) -> &mut TransactionManagerStatus {
        self.refresh()
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        match &mut self.instrumentation {
            Some(instrumentation) => instrumentation,
            None => &mut self.quiet,
        }
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        let shared = SharedInstrumentation::new(instrumentation);
        if let Place::Scope(slot) = &self.place {
            slot.instrument(shared.clone());
        }
        self.instrumentation = Some(shared);
    }

    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        if let Place::Scope(slot) = &self.place {
            slot.cache_statements(size);
        }
    }
}

/// The instrumentation of a handle that has none of its own; the connection has Diesel's default.
struct Quiet;

impl Instrumentation for Quiet {
    fn on_connection_event(&mut self, _event: diesel::connection::InstrumentationEvent<'_>) {}
}

impl<B: Backend> Drop for Conn<B> {
    fn drop(&mut self) {
        // Most handles have opened nothing.
        while let Some(ticket) = self.opened.pop() {
            if let Place::Scope(slot) = &self.place {
                abandon(ticket, &**slot, slot.gate(), self.test);
            }
        }
    }
}

impl<B: Backend> fmt::Debug for Conn<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = match &self.place {
            Place::Scope(slot) => slot.gate().depth(),
            Place::Pool(..) => 0,
        };
        f.debug_struct("Conn").field("database", self.alias()).field("depth", &depth).finish_non_exhaustive()
    }
}
