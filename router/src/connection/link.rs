//! One live connection with what has to be remembered of it.

mod session;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use diesel::connection::{
    AnsiTransactionManager, CacheSize, Connection, Instrumentation, SimpleConnection, TransactionManager,
    TransactionManagerStatus, ValidTransactionManagerStatus,
};
use diesel::query_builder::{QueryBuilder, QueryFragment, QueryId};
use diesel::result::QueryResult;

use self::session::Session;
use super::attached::Attached;
use super::backend::Dialect;
use super::born::Births;
use super::characteristics::Limits;
use super::control::Control;
use super::holders::Seat;
use super::identity::{self, Identity};
use super::instrument::{Payload, Seen, SharedInstrumentation, Watcher, panic_text};
use super::question::{Breach, Question};
use super::reach::Reach;
#[cfg(feature = "testing")]
use super::rehearsal::Rehearsal;
use super::repeated::Repeated;
use super::settings::Settings;
use super::text::{SessionEffect, Syntax};
use crate::alias::Alias;
use crate::error::Error;
use crate::failure::{Failure, FailureClass};

/// A live connection. Diesel's transaction manager on it is the only owner of its depth.
#[expect(clippy::struct_excessive_bools, reason = "each is known by itself")]
pub struct Link<B: Dialect> {
    database: Alias,
    raw: B::Raw,
    seat: Arc<Seat>,
    broken: bool,
    holds_branch: bool,
    lent: Lent,
    instrumentation: Option<SharedInstrumentation>,
    /// How many statements Diesel keeps prepared.
    pub(super) cache: CacheSize,
    /// The connection is the database itself, which would be lost with it.
    private: bool,
    sql: String,
    repeated: Option<Repeated>,
    /// Takes the limits of a scope away again.
    restore: Option<Box<str>>,
    /// Makes the session what it was when it was opened.
    renewal: Option<Arc<str>>,
    /// The settings of the session before a raw text that may change them.
    pub(super) settings_before: Option<String>,
    /// What a raw text has done to the scope's transaction.
    pub(super) breach: Option<Breach>,
    /// How many marks were set.
    pub(super) marks: u64,
    /// Whether the innermost level can't write, as far as the server was told.
    read_only: bool,
    /// Whether a DDL may end the transaction, on MySQL and MariaDB.
    allows_ddl: bool,
    /// A text was let through in it that may have ended it.
    let_through: bool,
    /// What all connections of its pool begin with.
    births: Arc<Births>,
    /// What is known of the session beside.
    session: Session,
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
pub(super) struct Lent {
    /// Instrumentation or statement cache.
    settings: bool,
    lock_limit: bool,
    /// Limits of a scope, which outlive its transaction.
    limits: bool,
    /// Of these, that nothing may be written.
    read_only: bool,
    /// Diesel's connection itself, which has not come back.
    away: bool,
    /// The server may not tell all that was done: it was sent what may notify others.
    pub opaque: bool,
    /// What may have been done to the session.
    pub session: SessionEffect,
}

impl<B: Dialect> Link<B> {
    /// Takes over a fresh connection.
    pub fn new(raw: B::Raw, settings: &Settings, births: Arc<Births>, seat: Arc<Seat>) -> Self {
        let repeated = settings.prepare_repeated.then(Repeated::default);
        Self {
            database: settings.alias.clone(),
            raw,
            seat,
            broken: false,
            holds_branch: false,
            lent: Lent::default(),
            cache: CacheSize::Unbounded,
            private: settings.private,
            sql: String::new(),
            repeated,
            restore: B::restore(settings).map(String::into_boxed_str),
            instrumentation: None,
            renewal: B::renewal(settings).map(Arc::from),
            settings_before: None,
            breach: None,
            marks: 0,
            read_only: false,
            allows_ddl: false,
            let_through: false,
            births,
            session: Session::Born,
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
    pub(super) fn database(&self) -> &Alias {
        &self.database
    }

    /// Diesel's connection.
    pub fn raw(&mut self) -> &mut B::Raw {
        &mut self.raw
    }

    /// What was done with it since it was taken.
    pub(super) fn lent(&mut self) -> &mut Lent {
        &mut self.lent
    }

    /// Makes the session what it was when it was opened, if anything but a new one does.
    pub(super) fn renewal(&self) -> Option<Arc<str>> {
        self.renewal.clone()
    }

    /// Whether the innermost level can't write, as far as the server was told.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Takes note of a text of which the server is not asked whether it has ended the transaction.
    pub(super) fn note_let_through(&mut self) {
        self.let_through = true;
    }

    /// How many rows the connection has changed since it was opened, on a database that counts them.
    pub fn changes(&mut self) -> Option<i64> {
        B::ask(&mut self.raw, B::CHANGES?, &[]).ok()?.pop()?.a?.parse().ok()
    }

    /// Whether the transaction must be asked about before it is rolled back: a text was let through that may have ended it.
    pub fn may_have_ended(&self) -> bool {
        self.let_through
    }

    /// Rolls such a transaction back. Whether there was one: if the connection is lost, that can't be known any more.
    pub fn roll_back_what_is_left(&mut self) -> bool {
        self.let_through = false;
        let found = B::finds_leftover(&mut self.raw);
        self.set_outside();
        found && self.alive()
    }

    /// Whether a DDL may end the transaction, as in Diesel's migrations on MySQL and MariaDB.
    pub(super) fn allows_ddl(&self) -> bool {
        self.allows_ddl
    }

    /// The texts that are kept prepared are gone on the server, or would be run in another database than new ones.
    pub(super) fn forget_statements(&mut self) {
        self.repeated = None;
        self.broken = true;
        #[cfg(feature = "testing")]
        self.never_revive();
    }

    /// Takes note of what a control statement does to the read-only mode.
    pub(super) fn note_mode(&mut self, control: &Control<'_>) {
        match control {
            Control::Begin(start) => {
                self.read_only = start.characteristics.limits.read_only;
                self.allows_ddl = B::SYNTAX == Syntax::Mysql && !start.tripwire;
                self.let_through = false;
            }
            Control::Narrow { to, .. } => self.read_only |= to.read_only,
            Control::Widen { to, .. } => self.read_only = to.read_only,
            Control::Commit(_) | Control::Rollback(_) | Control::Prepare(_) => self.read_only = false,
            _ => {}
        }
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
            self.note_mode(&control);
            match control {
                Control::Begin(start) => {
                    begins = true;
                    self.lent.read_only |= start.characteristics.limits.read_only;
                    self.lent.limits |= start.characteristics.limits != Limits::NONE
                        || start.across.is_some()
                        || start.lock_limit && B::LOCK_LIMIT.is_some();
                }
                Control::Narrow { to, .. } => {
                    self.lent.limits = true;
                    self.lent.read_only |= to.read_only;
                }
                // What it undoes may have made a table.
                Control::RollbackTo(_) => self.reach.forget(),
                Control::Across(_) => self.lent.limits = true,
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
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each transaction passes here twice")]
    pub fn control_alone(&mut self, control: Control<'_>) -> QueryResult<()> {
        match B::fixed(control) {
            #[cfg(feature = "testing")]
            _ if self.rehearsal.is_some() => self.control_one(control),
            Some(sql) => {
                self.read_only = false;
                let begins = matches!(control, Control::Begin(_));
                self.send(sql, begins, !begins)
            }
            None => self.control_one(control),
        }
    }

    /// Kept out of line, so that the usual way stays small.
    #[inline(never)]
    fn control_one(&mut self, control: Control<'_>) -> QueryResult<()> {
        self.control([control])
    }

    /// Sends a text that begins the transaction, or ends it, or does neither.
    fn send(&mut self, sql: &str, begins: bool, ends: bool) -> QueryResult<()> {
        if self.session == Session::PutBack {
            self.session = Session::Changed;
        }
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
        if is_foreign::<T>() {
            let mut builder = <B::Native as diesel::backend::Backend>::QueryBuilder::default();
            statement.to_sql(&mut builder, &B::NATIVE)?;
            return self.guarded_statement(&builder.finish(), |raw| B::execute(raw, statement, to_end));
        }
        if T::query_id().is_none() && !statement.is_safe_to_cache_prepared(&B::NATIVE)? {
            let raw_sql = || is_raw_sql(type_name::<T>());
            if self.repeated.is_some() || raw_sql() {
                let mut builder = <B::Native as diesel::backend::Backend>::QueryBuilder::default();
                statement.to_sql(&mut builder, &B::NATIVE)?;
                let sql = builder.finish();
                // A text that is kept came from no raw SQL. Asked first, since searching a type's name takes longer.
                let kept = self.repeated.as_ref().is_some_and(|repeated| repeated.keeps(&sql));
                if !kept && raw_sql() {
                    return self.guarded_statement(&sql, |raw| B::execute(raw, statement, to_end));
                } else if !to_end && (kept || self.repeated.as_mut().is_some_and(|repeated| repeated.admits(&sql))) {
                    let binds = B::collect_binds(&mut self.raw, statement)?;
                    return B::execute_prepared(&mut self.raw, sql, binds);
                }
            }
        }
        B::execute(&mut self.raw, statement, to_end)
    }

    /// Prepares the questions about a query with rows that is a text of the user's as a whole. Refuses one that would begin or
    /// end a transaction.
    pub fn admit_query<T>(&mut self, query: &T) -> QueryResult<Option<Question>>
    where
        T: QueryFragment<B::Native> + QueryId,
    {
        #[cfg(feature = "testing")]
        self.fail_statement()?;
        self.keep_in_file(query)?;
        if is_foreign::<T>() || T::query_id().is_none() && is_raw_query(type_name::<T>()) {
            let mut builder = <B::Native as diesel::backend::Backend>::QueryBuilder::default();
            query.to_sql(&mut builder, &B::NATIVE)?;
            let sql = builder.finish();
            Self::only_one(&sql)?;
            return self.before_text(&sql).map(Some);
        }
        Ok(None)
    }

    /// Runs a text of one or more statements.
    pub fn batch(&mut self, sql: &str) -> QueryResult<()> {
        #[cfg(feature = "testing")]
        self.fail_statement()?;
        if self.attached.is_some() {
            let question = self.before_text(sql)?;
            let result = self.batch_in_file(sql);
            return self.answered(Some(question), result);
        }
        self.guarded(sql, |raw| raw.batch_execute(sql))
    }

    /// Lends Diesel's connection. Also gives what it saw of transactions meanwhile, and asks the server.
    pub fn watch<T>(
        &mut self,
        forward: Option<SharedInstrumentation>,
        body: impl FnOnce(&mut B::Raw) -> T,
    ) -> QueryResult<(T, Seen)> {
        let question = self.before_lending()?;
        let inside = self.in_transaction();
        let forward = forward.or_else(|| self.instrumentation.clone());
        let watcher = Watcher::new(forward.clone(), B::SYNTAX, self.attached.is_some());
        self.lent.settings = true;
        self.note_unproven();
        let depth = self.depth();
        self.raw.set_instrumentation(watcher.clone());
        let result = catch_unwind(AssertUnwindSafe(|| body(&mut self.raw)));
        let blind = !watcher.watches(&mut self.raw);
        let mut seen = watcher.seen();
        if result.is_err() && B::SYNTAX != Syntax::Sqlite {
            // What the connection waits for is unknown, so the server can't be asked.
            self.lent.away = true;
            if inside && (blind || seen.control) {
                self.breach = Some(Breach::Ended);
            }
        }
        let result = result.unwrap_or_else(|panic| {
            if !self.lent.away {
                self.after_body(question, blind, depth, &mut seen);
            }
            resume_unwind(panic)
        });
        self.after_body(question, blind, depth, &mut seen);
        self.watch_with(forward);
        self.discard_if(seen.stale);
        Ok((result, seen))
    }

    /// Finds out what a body has done that has used the connection.
    fn after_body(&mut self, question: Question, blind: bool, depth: u32, seen: &mut Seen) {
        if self.read_only && seen.may_allow_writes && B::KEEPS_READ_ONLY.is_none() {
            self.breach = Some(Breach::Writable);
        }
        if seen.forgets_statements || blind && B::SYNTAX != Syntax::Sqlite {
            self.forget_statements();
        }
        seen.left_open = self.depth() > depth;
        self.doubt_session(if blind { SessionEffect::Unknown } else { seen.session });
        if blind {
            seen.failure.get_or_insert_with(blinded);
        }
        B::refresh(&mut self.raw);
        let doubtful = blind || seen.control;
        if self.aborted() {
            // The server answers no question in such a transaction, or has rolled it back by itself.
            if doubtful {
                self.note_end();
            }
        } else if doubtful || seen.failure.is_none() || self.in_transaction() || B::SYNTAX == Syntax::Sqlite {
            // On SQLite a savepoint begins a transaction, and a statement that fails after it leaves it open.
            seen.answer = self.after_text(question, !(blind || seen.may_fail_late));
        }
        if seen.copies && seen.failure.is_none() {
            // The next statement, the question too, has ended it, and has got its error.
            self.broken = true;
            let error = Error::CopyByText { database: self.database().clone() };
            seen.failure = Some(Failure::new(FailureClass::Other, error.to_string()));
            seen.answer = Err(error.into());
        }
    }

    /// Takes note that limits are set that outlive the transaction.
    pub(super) fn note_limits(&mut self) {
        self.lent.limits = true;
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

    /// The transaction has ended without the library: the pool discards the connection, unless it is the database itself.
    pub fn leave_ended(&mut self) {
        self.broken |= self.renewal.is_none() || B::SYNTAX != Syntax::Sqlite || !self.is_outside();
    }

    /// Whether an error that the server takes no writes is the server's own, and not asked for by a scope.
    pub(super) fn should_take_writes(&self) -> bool {
        !self.lent.read_only && !self.private
    }

    /// A statement has panicked half-way. Only a server could wait for the rest of it.
    pub fn note_panic(&mut self) {
        self.broken |= !self.private;
    }

    /// Keeps the connection from going back to the pool.
    pub fn break_off(&mut self) {
        self.broken = true;
    }

    /// Whether its session goes on with what it is: that of a test ends with the test.
    #[cfg_attr(
        not(feature = "testing"),
        expect(clippy::unused_self, reason = "without the feature there are no such tests")
    )]
    fn keeps_session(&self) -> bool {
        #[cfg(feature = "testing")]
        return self.is_rolled_back();
        #[cfg(not(feature = "testing"))]
        false
    }

    /// What the database is.
    pub fn identity(&mut self) -> QueryResult<Arc<Identity>> {
        if let Some(known) = &self.identity {
            return Ok(Arc::clone(known));
        }
        let asked = |link: &mut Self| link.own(|raw, born| identity::ask::<B>(raw, born));
        let identity = Arc::new(match B::LOCK_LIMIT {
            // In a transaction it waits no longer than other statements.
            Some([limit, free]) if !self.in_transaction() && !self.lent.lock_limit => {
                self.raw.batch_execute(limit)?;
                let identity = asked(self);
                self.broken |= self.raw.batch_execute(free).is_err();
                identity?
            }
            _ => asked(self)?,
        });
        // A connection to a standby outlives its promotion.
        if identity.incarnation.is_some() {
            self.identity = Some(Arc::clone(&identity));
        }
        Ok(identity)
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
        self.watch_with(Some(instrumentation));
    }

    /// Gives the connection an instrumentation, or takes it away.
    pub fn watch_with(&mut self, instrumentation: Option<SharedInstrumentation>) {
        // Diesel finds a missing one in such a box alone, and passes it over.
        let boxed = instrumentation.clone().map(|shared| Box::new(shared) as Box<dyn Instrumentation>);
        self.raw.set_instrumentation(boxed);
        self.instrumentation = instrumentation;
    }

    /// Its instrumentation, if it has any.
    pub fn instrumentation(&self) -> Option<SharedInstrumentation> {
        self.instrumentation.clone()
    }

    /// The first panic of its instrumentation since the last call.
    #[inline]
    pub fn take_panic(&mut self) -> Option<Payload> {
        match &self.instrumentation {
            Some(instrumentation) => instrumentation.take_panic(),
            None => None,
        }
    }

    /// A panic of its instrumentation changes nothing of what has happened: at an end it is an event.
    #[inline]
    pub fn report_panic(&mut self) {
        if let Some(panic) = self.take_panic() {
            let (alias, panic) = (self.database(), panic_text(&panic));
            tracing::error!(target: crate::telemetry::TARGET, %alias, panic, "the instrumentation of a connection panicked");
        }
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
        self.report_panic();
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
        // If nothing renews the session, a text may have set them too, and they are not among the settings that are compared.
        if (lent.limits || lent.session == SessionEffect::Settings && self.renewal.is_none())
            && !self.broken
            && let Some(restore) = &self.restore
        {
            self.broken |= self.raw.batch_execute(restore).is_err();
        }
        if lent.settings {
            self.watch_with(SharedInstrumentation::of_default());
            self.cache = CacheSize::Unbounded;
            self.raw.set_prepared_statement_cache_size(self.cache);
        }
        if !self.broken && !self.keeps_session() {
            self.renew_session(lent.session);
            if lent.session != SessionEffect::None {
                self.session = Session::Born;
            }
        }
    }

    fn status(&mut self) -> &mut TransactionManagerStatus {
        AnsiTransactionManager::transaction_manager_status_mut(&mut self.raw)
    }
}

/// What is known of statements after their watcher was taken away.
fn blinded() -> Failure {
    let text = "`set_instrumentation` was called inside `with_raw`, so that a failure of a statement can't be seen; set it on \
                the handle";
    Failure::new(FailureClass::Other, text)
}

/// The name of a statement's type, without what `MultiConnection` wraps around it.
pub fn type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    match name.split_once("::SerializedQuery<") {
        Some((path, wrapped)) if !path.contains('<') => wrapped.trim_start_matches('&'),
        _ => name,
    }
}

/// Whether the statement as a whole is none of Diesel's, so that it may be any text.
#[inline]
fn is_foreign<T>() -> bool {
    let is_diesels = |name: &str| name.trim_start_matches('&').starts_with("diesel::");
    !is_diesels(std::any::type_name::<T>()) && !is_diesels(type_name::<T>())
}

/// Whether the statement's type holds SQL that the user wrote as text.
pub fn is_raw_sql(type_name: &str) -> bool {
    type_name.contains("::sql_query::") || type_name.contains("::SqlLiteral<")
}

/// Whether the statement is nothing but such a text.
fn is_raw_query(type_name: &str) -> bool {
    type_name.contains("::sql_query::") || type_name.starts_with("diesel::expression::sql_literal::SqlLiteral<")
}
