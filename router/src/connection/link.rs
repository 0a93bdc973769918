//! One live connection with what has to be remembered of it.

use std::sync::Arc;

use diesel::connection::{
    AnsiTransactionManager, CacheSize, Connection, SimpleConnection, TransactionManager, TransactionManagerStatus,
    ValidTransactionManagerStatus,
};
use diesel::query_builder::{QueryBuilder, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error as DieselError, QueryResult};

use super::attached::Attached;
use super::backend::Dialect;
use super::characteristics::Limits;
use super::control::Control;
use super::guard::{self, Effect, Syntax};
use super::holders::Seat;
use super::identity::{self, Identity};
use super::instrument::{Seen, SharedInstrumentation, Watcher};
use super::reach::Reach;
#[cfg(feature = "testing")]
use super::rehearsal::Rehearsal;
use super::repeated::Repeated;
use super::settings::Settings;
use crate::alias::Alias;
use crate::error::Error;

/// A live connection. Diesel's transaction manager on it is the only owner of its depth.
pub struct Link<B: Dialect> {
    database: Alias,
    raw: B::Raw,
    seat: Arc<Seat>,
    broken: bool,
    holds_branch: bool,
    lent: Lent,
    /// How many statements Diesel keeps prepared.
    pub(super) cache: CacheSize,
    sql: String,
    repeated: Option<Repeated>,
    /// Takes the limits of a scope away again.
    restore: Option<Box<str>>,
    /// What the database is, once it was asked: as of this connection, since a failover ends it.
    identity: Option<Arc<Identity>>,
    /// Where it holds several files.
    pub(super) attached: Option<Arc<Attached>>,
    /// Which of them the handle in use means.
    pub(super) reach: Reach,
    #[cfg(feature = "testing")]
    pub(super) rehearsal: Option<Rehearsal>,
}

/// What was set on a connection for as long as somebody holds it.
#[derive(Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is undone by itself")]
struct Lent {
    /// Instrumentation or statement cache.
    settings: bool,
    lock_limit: bool,
    /// Limits of a scope, which outlive its transaction.
    limits: bool,
    /// Diesel's connection itself, which has not come back.
    away: bool,
    /// A text was sent that commits by itself.
    committed: bool,
    /// The server may not tell all that was done.
    opaque: bool,
}

impl<B: Dialect> Link<B> {
    /// Takes over a fresh connection.
    pub fn new(raw: B::Raw, settings: &Settings, seat: Arc<Seat>) -> Self {
        let repeated = settings.prepare_repeated.then(Repeated::default);
        Self {
            database: settings.alias.clone(),
            raw,
            seat,
            broken: false,
            holds_branch: false,
            lent: Lent::default(),
            cache: CacheSize::Unbounded,
            sql: String::new(),
            repeated,
            restore: B::restore(settings).map(String::into_boxed_str),
            identity: None,
            attached: Attached::new(&settings.files),
            reach: Reach::default(),
            #[cfg(feature = "testing")]
            rehearsal: settings.test.clone().map(Rehearsal::new),
        }
    }

    /// Says who holds the connection.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The database that it leads to.
    #[cfg(feature = "testing")]
    pub(super) fn database(&self) -> &Alias {
        &self.database
    }

    /// Diesel's connection.
    pub fn raw(&mut self) -> &mut B::Raw {
        &mut self.raw
    }

    /// Sends control statements in one batch, and keeps Diesel's depth right.
    pub fn control<'a>(&mut self, controls: impl IntoIterator<Item = Control<'a>>) -> QueryResult<()> {
        #[cfg(feature = "testing")]
        if self.rehearsal.is_some() {
            return self.control_in_test(&mut controls.into_iter());
        }
        self.control_plainly(controls)
    }

    pub(super) fn control_plainly<'a>(&mut self, controls: impl IntoIterator<Item = Control<'a>>) -> QueryResult<()> {
        let mut sql = std::mem::take(&mut self.sql);
        sql.clear();
        let (mut begins, mut ends) = (false, false);
        for control in controls {
            let end = sql.len();
            if end > 0 {
                sql.push_str("; ");
            }
            let start = sql.len();
            match control {
                Control::Begin(start) => {
                    begins = true;
                    self.lent.limits |= start.characteristics.limits != Limits::NONE || start.across.is_some();
                }
                Control::Narrow(_) | Control::Across(_) => self.lent.limits = true,
                // What it undoes may have made a table.
                Control::RollbackTo(_) => self.reach.forget(),
                Control::Commit(_) | Control::Rollback(_) | Control::Prepare(_) => ends = true,
                _ => {}
            }
            B::write(control, &mut sql);
            if let (Some(attached), Control::Begin(begin)) = (&self.attached, control) {
                attached.write_locks(begin, &mut sql);
            }
            if sql.len() == start {
                // Nothing to be said on this database.
                sql.truncate(end);
            }
        }
        // libmariadb takes the length 0 for an unknown one, and would read what the buffer held before.
        let result = if sql.is_empty() { Ok(()) } else { self.send(&sql, begins, ends) };
        self.sql = sql;
        result
    }

    /// Sends a BEGIN or a COMMIT, alone. Those of most scopes are texts that never change.
    #[inline]
    pub fn control_alone(&mut self, control: Control<'_>) -> QueryResult<()> {
        match B::fixed(control) {
            #[cfg(feature = "testing")]
            _ if self.rehearsal.is_some() => self.control([control]),
            Some(sql) => {
                let begins = matches!(control, Control::Begin(_));
                self.send(sql, begins, !begins)
            }
            None => self.control([control]),
        }
    }

    /// Sends a text that begins the transaction, or ends it, or does neither.
    #[inline]
    fn send(&mut self, sql: &str, begins: bool, ends: bool) -> QueryResult<()> {
        if begins {
            if self.attached.is_some() {
                self.reach.begin();
            }
            return AnsiTransactionManager::begin_transaction_sql(&mut self.raw, sql);
        }
        self.raw.batch_execute(sql)?;
        if ends {
            *self.status() = TransactionManagerStatus::Valid(ValidTransactionManagerStatus::default());
        }
        Ok(())
    }

    /// Runs a statement that gives no rows.
    ///
    /// Diesel parses an UPDATE, a struct INSERT and an upsert anew each time. From its second use on such a text is
    /// kept prepared here, unless it holds raw SQL, whose texts are often made for one use.
    ///
    /// With `to_end` it may give rows all the same, and is run to its end.
    pub fn execute<T>(&mut self, statement: &T, to_end: bool) -> QueryResult<usize>
    where
        T: QueryFragment<B::Native> + QueryId,
    {
        #[cfg(feature = "testing")]
        self.fail_statement()?;
        self.keep_in_file(statement)?;
        if T::query_id().is_none() && !statement.is_safe_to_cache_prepared(&B::NATIVE)? {
            let raw_sql = || is_raw_sql(type_name::<T>());
            if self.repeated.is_some() || raw_sql() {
                let mut builder = <B::Native as diesel::backend::Backend>::QueryBuilder::default();
                statement.to_sql(&mut builder, &B::NATIVE)?;
                let sql = builder.finish();
                // A text that is kept came from no raw SQL. Asked first, since searching a type's name takes longer.
                let kept = self.repeated.as_ref().is_some_and(|repeated| repeated.keeps(&sql));
                if !kept && raw_sql() {
                    return self.guarded(&sql, |raw| B::execute(raw, statement, to_end));
                } else if !to_end && (kept || self.repeated.as_mut().is_some_and(|repeated| repeated.admits(&sql))) {
                    let binds = B::collect_binds(&mut self.raw, statement)?;
                    return B::execute_prepared(&mut self.raw, sql, binds);
                }
            }
        }
        B::execute(&mut self.raw, statement, to_end)
    }

    /// Refuses a query with rows that would begin or end a transaction: one that is a text of the user's as a whole.
    pub fn admit_query<T>(&mut self, query: &T) -> QueryResult<()>
    where
        T: QueryFragment<B::Native> + QueryId,
    {
        #[cfg(feature = "testing")]
        self.fail_statement()?;
        self.keep_in_file(query)?;
        if T::query_id().is_none() && is_raw_query(type_name::<T>()) {
            let mut builder = <B::Native as diesel::backend::Backend>::QueryBuilder::default();
            query.to_sql(&mut builder, &B::NATIVE)?;
            return self.guarded(&builder.finish(), |_| Ok(()));
        }
        Ok(())
    }

    /// Runs a text of one or more statements.
    pub fn batch(&mut self, sql: &str) -> QueryResult<()> {
        #[cfg(feature = "testing")]
        self.fail_statement()?;
        if self.attached.is_some() {
            self.guarded(sql, |_| Ok(()))?;
            return self.batch_in_file(sql);
        }
        self.guarded(sql, |raw| raw.batch_execute(sql))
    }

    /// Runs what sends a text, unless the text would change the transaction behind the scope's back.
    pub(super) fn guarded<T>(&mut self, sql: &str, send: impl FnOnce(&mut B::Raw) -> QueryResult<T>) -> QueryResult<T> {
        if sql.is_empty() && B::SYNTAX == Syntax::Mysql {
            // libmariadb takes the length 0 for an unknown one, and would read memory that is not its own. This is what the
            // server says of a text without a statement.
            let information = Box::new("Query was empty".to_owned());
            return Err(DieselError::DatabaseError(DatabaseErrorKind::Unknown, information));
        }
        if guard::changes_session(sql, B::SYNTAX) {
            // The texts that are kept would be run where the new ones are not, or are gone on the server.
            self.repeated = None;
            self.broken = true;
            #[cfg(feature = "testing")]
            self.never_revive();
        }
        self.lent.opaque |= guard::notifies(sql, B::SYNTAX);
        self.lent.committed |= guard::commits_by_itself(sql, B::SYNTAX);
        if !self.in_transaction() && guard::calls_procedure(sql, B::SYNTAX) {
            self.broken = true;
        }
        let Some(effect) = guard::effect(sql, B::SYNTAX) else { return send(&mut self.raw) };
        let database = self.database.clone();
        match effect {
            Effect::Copy => Err(Error::CopyByText { database }.into()),
            Effect::Balanced(_) if !self.in_transaction() => {
                let result = send(&mut self.raw);
                // It may have stopped after its BEGIN.
                self.broken |= result.is_err();
                result
            }
            Effect::Balanced(statement) | Effect::Unbalanced(statement) => {
                Err(Error::TransactionControl { database, statement }.into())
            }
        }
    }

    /// Lends Diesel's connection. Also gives what it saw of transactions meanwhile.
    pub fn watch<T>(
        &mut self,
        forward: Option<SharedInstrumentation>,
        body: impl FnOnce(&mut B::Raw) -> T,
    ) -> (T, Seen) {
        let watcher = Watcher::new(forward.clone(), B::SYNTAX, self.attached.is_some());
        self.lent.settings = true;
        self.lent.opaque = true;
        let depth = self.depth();
        self.raw.set_instrumentation(watcher.clone());
        // Not clean if `body` panics: nobody knows what it has begun.
        self.lent.away = true;
        let result = body(&mut self.raw);
        self.lent.away = false;
        B::refresh(&mut self.raw);
        match forward {
            Some(forward) => self.raw.set_instrumentation(forward),
            None => self.raw.set_instrumentation(diesel::connection::get_default_instrumentation()),
        }
        let mut seen = watcher.seen();
        self.lent.committed |= seen.committed;
        seen.left_open = self.depth() > depth;
        (result, seen)
    }

    /// After the connection was lent outside of any scope: ends a transaction that was left open, and tells of it where
    /// the database does.
    pub fn end_leftover(&mut self) -> QueryResult<()> {
        #[cfg(feature = "testing")]
        if self.is_rolled_back() {
            return Ok(());
        }
        if B::finds_leftover(&mut self.raw) {
            let statement = "BEGIN without an end".into();
            return Err(Error::TransactionControl { database: self.database.clone(), statement }.into());
        }
        self.alive();
        Ok(())
    }

    /// Takes note that limits of a scope are set, which outlive its transaction.
    #[cfg(feature = "testing")]
    pub(super) fn note_limits(&mut self) {
        self.lent.limits = true;
    }

    /// Whether a text was sent that commits by itself, since the connection was taken.
    pub fn may_have_committed(&self) -> bool {
        self.lent.committed
    }

    /// Whether Diesel knows of an open transaction.
    pub fn in_transaction(&mut self) -> bool {
        #[cfg(feature = "testing")]
        if self.inside() == Some(false) {
            return false;
        }
        self.depth() > 0
    }

    /// How deep Diesel's own transactions on the connection are.
    fn depth(&mut self) -> u32 {
        self.status().transaction_depth().ok().flatten().map_or(0, std::num::NonZeroU32::get)
    }

    /// Whether nothing but ROLLBACK makes sense on this connection's transaction.
    pub fn aborted(&mut self) -> bool {
        match self.status() {
            TransactionManagerStatus::Valid(status) => {
                status.in_transaction.as_ref().is_some_and(|open| open.requires_rollback_maybe_up_to_top_level)
            }
            TransactionManagerStatus::InError => true,
        }
    }

    /// Asks whether the connection still reaches its server; if it doesn't, the pool discards it. After failures only.
    pub fn alive(&mut self) -> bool {
        #[cfg(feature = "testing")]
        if self.is_lost() {
            self.broken = true;
            return false;
        }
        let alive = B::alive(&mut self.raw);
        self.broken |= !alive;
        alive
    }

    /// Keeps the connection from going back to the pool.
    pub fn break_off(&mut self) {
        self.broken = true;
    }

    /// What the database is.
    pub fn identity(&mut self) -> QueryResult<Arc<Identity>> {
        if let Some(known) = &self.identity {
            return Ok(Arc::clone(known));
        }
        let identity = Arc::new(identity::ask::<B>(&mut self.raw)?);
        // A connection to a standby outlives its promotion.
        if identity.incarnation.is_some() {
            self.identity = Some(Arc::clone(&identity));
        }
        Ok(identity)
    }

    /// Whether the server may not tell all that was done: the connection was lent, or was sent a text that notifies others.
    pub fn is_opaque(&self) -> bool {
        self.lent.opaque
    }

    /// Whether a prepared branch belongs to the connection.
    pub fn holds_branch(&self) -> bool {
        self.holds_branch
    }

    /// Keeps the connection from the pool for as long as a prepared branch belongs to it.
    pub fn hold_for_branch(&mut self, held: bool) {
        self.holds_branch = held;
    }

    /// Whether the pool may hand the connection to somebody else.
    pub fn is_clean(&mut self) -> bool {
        !self.broken && !self.lent.away && !self.holds_branch && self.is_outside()
    }

    /// Whether no transaction is open, as far as Diesel knows.
    fn is_outside(&mut self) -> bool {
        #[cfg(feature = "testing")]
        if let Some(inside) = self.inside() {
            return !inside && !self.is_lost() && self.depth() == 1;
        }
        matches!(self.status().transaction_depth(), Ok(None))
    }

    /// Lends the connection an instrumentation until it is returned.
    pub fn instrument(&mut self, instrumentation: SharedInstrumentation) {
        self.lent.settings = true;
        self.raw.set_instrumentation(instrumentation);
    }

    /// Sets Diesel's statement cache until the connection is returned.
    pub fn cache_statements(&mut self, size: CacheSize) {
        self.lent.settings = true;
        self.cache = size;
        self.raw.set_prepared_statement_cache_size(size);
    }

    /// Gives lock waits a limit until the connection is returned.
    pub fn limit_locks(&mut self) -> QueryResult<()> {
        let Some([limit, _]) = B::LOCK_LIMIT else { return Ok(()) };
        self.lent.lock_limit = true;
        self.raw.batch_execute(limit)
    }

    /// Undoes what a handle has set on the connection.
    #[inline]
    pub fn reset(&mut self) {
        #[cfg(feature = "testing")]
        if self.rehearsal.is_some() {
            let lost = self.broken || self.lent.away || self.is_lost();
            self.broken = if lost { !self.revive() } else { self.end_autocommit().is_err() };
            self.lent.away &= self.broken;
        }
        if self.lent != Lent::default() {
            self.take_back();
        }
    }

    #[cold]
    fn take_back(&mut self) {
        let lent = std::mem::take(&mut self.lent);
        self.broken |= lent.away;
        if lent.lock_limit
            && let Some([_, free]) = B::LOCK_LIMIT
        {
            self.broken |= self.raw.batch_execute(free).is_err();
        }
        if lent.limits
            && !self.broken
            && let Some(restore) = &self.restore
        {
            self.broken |= self.raw.batch_execute(restore).is_err();
        }
        if lent.settings {
            self.raw.set_instrumentation(diesel::connection::get_default_instrumentation());
            self.cache = CacheSize::Unbounded;
            self.raw.set_prepared_statement_cache_size(self.cache);
        }
    }

    fn status(&mut self) -> &mut TransactionManagerStatus {
        AnsiTransactionManager::transaction_manager_status_mut(&mut self.raw)
    }
}

/// The name of a statement's type, without what `MultiConnection` wraps around it.
pub fn type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    match name.split_once("::SerializedQuery<") {
        Some((path, wrapped)) if !path.contains('<') => wrapped.trim_start_matches('&'),
        _ => name,
    }
}

/// Whether the statement's type holds SQL that the user wrote as text.
pub fn is_raw_sql(type_name: &str) -> bool {
    type_name.contains("::sql_query::") || type_name.contains("::SqlLiteral<")
}

/// Whether the statement is nothing but such a text.
fn is_raw_query(type_name: &str) -> bool {
    type_name.contains("::sql_query::") || type_name.starts_with("diesel::expression::sql_literal::SqlLiteral<")
}
