//! A handle's own instrumentation, lent to whichever connection the handle reaches.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use diesel::connection::{Instrumentation, InstrumentationEvent};

use super::guard::{self, Syntax};
use crate::failure::Failure;

/// One instrumentation, shared by a handle and the connection under it.
#[derive(Clone)]
pub struct SharedInstrumentation(Arc<Mutex<Box<dyn Instrumentation>>>);

impl SharedInstrumentation {
    /// Shares `instrumentation`.
    pub fn new(instrumentation: impl Instrumentation) -> Self {
        Self(Arc::new(Mutex::new(Box::new(instrumentation))))
    }
}

impl Instrumentation for SharedInstrumentation {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        // It only watches: one that panicked earlier may watch on.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).on_connection_event(event);
    }
}

/// What a [`Watcher`] saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// The first failure that no inner transaction of the borrower's has undone.
    pub failure: Option<Failure>,
    /// Whether a statement began or ended a transaction without Diesel's knowing.
    pub control: bool,
    /// Whether a text was sent that commits by itself.
    pub committed: bool,
    /// Whether a transaction that the borrower began is still open.
    pub left_open: bool,
    /// The texts that were sent, each once, if they were asked for. `None` if there were too many.
    pub texts: Option<HashSet<String>>,
}

/// Watches what is done with a connection that is lent out, and forwards every event.
#[derive(Clone)]
pub struct Watcher(Arc<Mutex<Watched>>);

struct Watched {
    forward: Option<Box<dyn Instrumentation>>,
    syntax: Syntax,
    /// The first failure in each open transaction of the borrower's own, the outermost first.
    failures: Vec<Option<Failure>>,
    /// Whether the next statement is one of Diesel's own transaction manager.
    managed: bool,
    control: bool,
    committed: bool,
    /// The texts so far, if they are kept.
    texts: Option<HashSet<String>>,
}

/// How many texts are kept. Of more, none is.
pub const TEXTS_LIMIT: u32 = 4_096;

impl Watcher {
    /// Forwards to `forward`, or to Diesel's default. With `keeps_texts` it keeps the texts that it sees.
    pub fn new(forward: Option<SharedInstrumentation>, syntax: Syntax, keeps_texts: bool) -> Self {
        let forward = match forward {
            Some(forward) => Some(Box::new(forward) as Box<dyn Instrumentation>),
            None => diesel::connection::get_default_instrumentation(),
        };
        let texts = keeps_texts.then(HashSet::new);
        let watched =
            Watched { forward, syntax, failures: vec![None], managed: false, control: false, committed: false, texts };
        Self(Arc::new(Mutex::new(watched)))
    }

    /// What it saw so far.
    pub fn seen(&self) -> Seen {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = watched.failures.iter_mut().find_map(Option::take);
        let texts = watched.texts.take();
        Seen { failure, control: watched.control, committed: watched.committed, left_open: false, texts }
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
            InstrumentationEvent::StartQuery { query, .. } if !by_diesel && !self.control => {
                let sql = query.to_string();
                self.control = guard::crosses_boundary(&sql, self.syntax);
                self.committed |= guard::commits_by_itself(&sql, self.syntax);
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

impl Instrumentation for Watcher {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.note(&event);
        if let Some(forward) = &mut watched.forward {
            forward.on_connection_event(event);
        }
    }
}
