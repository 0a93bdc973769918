//! A handle's own instrumentation, lent to whichever connection the handle reaches.

use std::sync::{Arc, Mutex, PoisonError};

use diesel::connection::{Instrumentation, InstrumentationEvent};

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

/// Watches what is done with a connection that is lent out, and forwards every event.
#[derive(Clone)]
pub struct Watcher(Arc<Mutex<Watched>>);

struct Watched {
    forward: Option<Box<dyn Instrumentation>>,
    /// The first failure in each open transaction of the borrower's own, the outermost first.
    failures: Vec<Option<Failure>>,
}

impl Watcher {
    /// Forwards to `forward`, or to Diesel's default.
    pub fn new(forward: Option<SharedInstrumentation>) -> Self {
        let forward = match forward {
            Some(forward) => Some(Box::new(forward) as Box<dyn Instrumentation>),
            None => diesel::connection::get_default_instrumentation(),
        };
        Self(Arc::new(Mutex::new(Watched { forward, failures: vec![None] })))
    }

    /// The first failure that was not rolled back.
    pub fn failure(&self) -> Option<Failure> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.failures.iter_mut().find_map(Option::take)
    }
}

impl Instrumentation for Watcher {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = &mut watched.failures;
        match &event {
            InstrumentationEvent::FinishQuery { error: Some(error), .. } => {
                if let Some(first @ None) = failures.last_mut() {
                    *first = Failure::of(error);
                }
            }
            InstrumentationEvent::BeginTransaction { .. } => failures.push(None),
            InstrumentationEvent::RollbackTransaction { .. } if failures.len() > 1 => {
                failures.pop();
            }
            InstrumentationEvent::CommitTransaction { .. } if failures.len() > 1 => {
                let inner = failures.pop().flatten();
                if let Some(first @ None) = failures.last_mut() {
                    *first = inner;
                }
            }
            _ => {}
        }
        if let Some(forward) = &mut watched.forward {
            forward.on_connection_event(event);
        }
    }
}
