//! A handle's own instrumentation, lent to whichever connection the handle reaches.

use std::any::Any;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diesel::connection::{Connection, DebugQuery, Instrumentation, InstrumentationEvent};
use diesel::result::QueryResult;

use super::stale::{Stale, stale};
use super::text::{self, Effect, SessionEffect, Syntax};
use crate::failure::{Failure, FailureClass};

/// What a panic carries.
pub type Payload = Box<dyn Any + Send>;

/// One instrumentation, shared by a handle and the connection under it.
///
/// Its panics are kept until the statement has come back: Diesel would be left in the middle of an exchange with its server, and
/// what became of a COMMIT would be unknown.
#[derive(Clone)]
pub struct SharedInstrumentation(Arc<Mutex<Shared>>);

struct Shared {
    instrumentation: Box<dyn Instrumentation>,
    /// The first panic that was not taken yet.
    panic: Option<Payload>,
}

impl SharedInstrumentation {
    /// Shares `instrumentation`.
    pub fn new(instrumentation: impl Instrumentation) -> Self {
        Self::boxed(Box::new(instrumentation))
    }

    /// Shares Diesel's default, if there is one.
    pub fn of_default() -> Option<Self> {
        diesel::connection::get_default_instrumentation().map(Self::boxed)
    }

    fn boxed(instrumentation: Box<dyn Instrumentation>) -> Self {
        Self(Arc::new(Mutex::new(Shared { instrumentation, panic: None })))
    }

    /// The first panic since the last call.
    pub fn take_panic(&self) -> Option<Payload> {
        self.shared().panic.take()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instrumentation for SharedInstrumentation {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let mut shared = self.shared();
        let Shared { instrumentation, panic } = &mut *shared;
        // It only watches: one that panicked may watch on.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| instrumentation.on_connection_event(event))) {
            panic.get_or_insert(payload);
        }
    }
}

/// The failure of a transaction whose instrumentation has panicked at a statement.
pub fn failure_of(panic: &Payload) -> Failure {
    Failure::new(FailureClass::Other, format!("the instrumentation panicked at a statement: {}", panic_text(panic)))
}

/// The text of a panic.
pub fn panic_text(payload: &Payload) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// What a [`Watcher`] saw.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is seen by itself")]
pub struct Seen {
    /// The first failure that no inner transaction of the borrower's has undone.
    pub failure: Option<Failure>,
    /// Whether a statement may have lifted a read-only mode.
    pub may_allow_writes: bool,
    /// Whether a statement may have taken away what is remembered of the session.
    pub forgets_statements: bool,
    /// Whether the last statement may have failed after its first result, of which the borrower hasn't heard.
    pub may_fail_late: bool,
    /// Whether a statement may have begun or ended a transaction without Diesel's knowing.
    pub control: bool,
    /// Whether a COPY that talks with the client was sent as a text. Its end reports nothing.
    pub copies: bool,
    /// What the statements may have done to the session.
    pub session: SessionEffect,
    /// What the server has answered afterwards: `Err` for what the borrower has not heard of.
    pub answer: QueryResult<()>,
    /// Whether an error was seen that will come back on this connection.
    pub stale: Option<Stale>,
    /// Whether a transaction that the borrower began is still open.
    pub left_open: bool,
    /// The texts that were sent, each once, if they were asked for. `None` if there were too many.
    pub texts: Option<HashSet<String>>,
}

/// Watches what is done with a connection that is lent out, and forwards every event.
#[derive(Clone)]
pub struct Watcher(Arc<Mutex<Watched>>);

#[expect(clippy::struct_excessive_bools, reason = "each is seen by itself")]
struct Watched {
    forward: Option<SharedInstrumentation>,
    syntax: Syntax,
    /// The first failure in each open transaction of the borrower's own, the outermost first.
    failures: Vec<Option<Failure>>,
    /// Whether the next statement is one of Diesel's own transaction manager.
    managed: bool,
    may_allow_writes: bool,
    forgets_statements: bool,
    may_fail_late: bool,
    control: bool,
    copies: bool,
    session: SessionEffect,
    /// Whether the event came by which the watcher is found.
    called: bool,
    /// The texts so far, if they are kept.
    texts: Option<HashSet<String>>,
    stale: Option<Stale>,
}

/// The text of the event by which the watcher is found.
const CALL: &str = "multidb: is the watcher there?";

/// How many texts are kept. Of more, none is.
pub const TEXTS_LIMIT: u32 = 4_096;

impl Watcher {
    /// Forwards to `forward`. With `keeps_texts` it keeps the texts that it sees.
    pub fn new(forward: Option<SharedInstrumentation>, syntax: Syntax, keeps_texts: bool) -> Self {
        let watched = Watched {
            forward,
            syntax,
            failures: vec![None],
            managed: false,
            may_allow_writes: false,
            forgets_statements: false,
            may_fail_late: false,
            control: false,
            copies: false,
            session: SessionEffect::None,
            called: false,
            texts: keeps_texts.then(HashSet::new),
            stale: None,
        };
        Self(Arc::new(Mutex::new(watched)))
    }

    /// What it saw so far.
    pub fn seen(&self) -> Seen {
        let mut watched = self.watched();
        let failure = watched.failures.iter_mut().find_map(Option::take);
        let texts = watched.texts.take();
        let Watched { may_fail_late, may_allow_writes, forgets_statements, control, copies, session, stale, .. } =
            *watched;
        Seen {
            failure,
            may_allow_writes,
            forgets_statements,
            may_fail_late,
            control,
            copies,
            session,
            answer: Ok(()),
            left_open: false,
            texts,
            stale,
        }
    }

    /// Whether it still is the connection's instrumentation, so that it saw all that was done.
    pub fn watches<C: Connection>(&self, raw: &mut C) -> bool {
        raw.instrumentation().on_connection_event(InstrumentationEvent::cache_query(CALL));
        std::mem::take(&mut self.watched().called)
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn note(&mut self, event: &InstrumentationEvent<'_>) {
        let begins_or_ends = matches!(
            event,
            InstrumentationEvent::BeginTransaction { .. }
                | InstrumentationEvent::CommitTransaction { .. }
                | InstrumentationEvent::RollbackTransaction { .. }
        );
        let by_diesel = std::mem::replace(&mut self.managed, begins_or_ends);
        match event {
            InstrumentationEvent::StartQuery { .. } if by_diesel => self.may_fail_late = false,
            InstrumentationEvent::StartQuery { query, .. } => {
                let sql = query.to_string();
                let found = text::inspect(&sql, self.syntax);
                self.control |= found.crosses;
                self.copies |= found.effect == Effect::Copy && is_text(*query);
                self.session = self.session.max(found.session);
                self.may_fail_late = found.may_fail_late;
                self.may_allow_writes |= found.may_allow_writes;
                self.forgets_statements |= found.forgets_statements;
                if let Some(texts) = &mut self.texts {
                    // Values make no other text of it.
                    let text = sql.rsplit_once(" -- binds: ").map_or(&*sql, |(text, _)| text);
                    if !texts.contains(text) {
                        texts.insert(text.to_owned());
                    }
                }
                self.texts.take_if(|texts| texts.len() > TEXTS_LIMIT as usize);
            }
            InstrumentationEvent::FinishQuery { error: Some(error), .. } => {
                self.may_fail_late = false;
                self.stale = self.stale.or_else(|| stale(error));
                if let Some(first @ None) = self.failures.last_mut() {
                    *first = Failure::of(error);
                }
            }
            InstrumentationEvent::BeginTransaction { .. } => self.failures.push(None),
            InstrumentationEvent::RollbackTransaction { .. } if self.failures.len() > 1 => {
                self.failures.pop();
            }
            InstrumentationEvent::CommitTransaction { .. } if self.failures.len() > 1 => {
                let inner = self.failures.pop().flatten();
                if let Some(first @ None) = self.failures.last_mut() {
                    *first = inner;
                }
            }
            _ => {}
        }
    }
}

/// Whether a statement was sent as a text, by `batch_execute`. Diesel prints only that as a literal.
fn is_text(query: &dyn DebugQuery) -> bool {
    format!("{query:?}").starts_with('"')
}

impl Instrumentation for Watcher {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let mut watched = self.watched();
        if matches!(event, InstrumentationEvent::CacheQuery { sql, .. } if sql == CALL) {
            watched.called = true;
            return;
        }
        watched.note(&event);
        if let Some(forward) = &mut watched.forward {
            forward.on_connection_event(event);
        }
    }
}
