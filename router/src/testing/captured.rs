//! Hooks that a test wants to see rather than run.

use std::fmt;

use crate::site::Site;
use crate::transaction::{HookBody, capturing, run_captured};

/// Hooks that were kept from running.
#[must_use = "the hooks have not run"]
pub struct CapturedHooks(Vec<(Site, HookBody)>);

/// Runs `body`; the `on_commit` hooks of the transactions that commit meanwhile on this thread are kept: Django's
/// `captureOnCommitCallbacks`. So are those that are registered outside of any scope.
pub fn capture_hooks<T>(body: impl FnOnce() -> T) -> (T, CapturedHooks) {
    let (value, hooks) = capturing(body);
    (value, CapturedHooks(hooks))
}

impl CapturedHooks {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The functions that have registered them, in their order.
    pub fn functions(&self) -> Vec<&'static str> {
        self.0.iter().map(|(site, _)| site.function()).collect()
    }

    /// Runs them now, in their order, and outside of any transaction.
    ///
    /// # Errors
    /// Those of the hooks that failed or panicked; the others run all the same.
    pub fn run(self) -> Result<(), Vec<Box<dyn std::error::Error + Send + Sync>>> {
        let errors = run_captured(self.0);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

impl fmt::Debug for CapturedHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.functions()).finish()
    }
}
