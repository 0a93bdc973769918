//! What users want done once the outcome of a transaction is known.

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ending::{Verdict, leave};
use super::stack::hide;
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::site::{Function, Site};
use crate::telemetry::TARGET;

/// The most hooks of one transaction.
pub(crate) const HOOKS_LIMIT: usize = 100_000;

/// A hook's body, whatever it returns.
pub(crate) type HookBody = Box<dyn FnOnce() -> Result<(), Box<dyn StdError + Send + Sync>>>;

/// After which outcome a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Committed,
    RolledBack,
}

/// A registered hook.
pub(crate) struct Hook {
    /// The level that it was registered in, or that this one was handed down to.
    pub(super) level: u32,
    pub(super) when: When,
    /// Its failure is never returned.
    pub(super) robust: bool,
    /// The scope that registered it.
    pub(super) site: Site,
    pub(super) run: HookBody,
}

/// Runs the hooks for an outcome, in the order in which they were registered, and outside of any transaction.
///
/// A hook that fails or panics doesn't stop the others. The error is that of the first one that isn't robust.
pub(super) fn run(hooks: Vec<Hook>, outcome: When, databases: &Databases) -> Result<()> {
    if hooks.iter().all(|hook| hook.when != outcome) {
        return Ok(());
    }
    // A hook of an independent transaction must not join the one around it.
    let hidden = hide()?;
    let mut failed: Option<Error> = None;
    for Hook { site, robust, run, .. } in hooks.into_iter().filter(|hook| hook.when == outcome) {
        let Some(error) = failure(run, site, outcome) else { continue };
        databases.tell_of_hook_failure(&error);
        if !robust {
            failed.get_or_insert(error);
        }
    }
    let _ = leave(hidden, Verdict::Keep);
    failed.map_or(Ok(()), Err)
}

/// Runs a hook that was registered outside of any transaction.
pub(crate) fn run_now(body: HookBody) {
    if let Some(error) = failure(body, OUTSIDE, When::Committed)
        && let Ok(databases) = Databases::current()
    {
        databases.tell_of_hook_failure(&error);
    }
}

/// What errors name for a hook that no scope has registered.
const OUTSIDE: Site = Site::Function(&Function::new("on_commit", "", "outside of any scope", 0));

fn failure(body: HookBody, site: Site, outcome: When) -> Option<Error> {
    let problem = problem(body)?;
    let (function, file, line) = (site.function(), site.file(), site.line());
    let error = Error::HookFailed { function, file, line, problem, committed: outcome == When::Committed };
    tracing::error!(target: TARGET, %error, "a hook failed");
    Some(error)
}

/// Why a hook failed, if it did.
fn problem(body: HookBody) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(panic) => {
            let text =
                panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Some(format!("it panicked: {}", text.unwrap_or("without a text")))
        }
    }
}
