//! What users want done once the outcome of a transaction is known.

use std::any::Any;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ending::{Verdict, leave};
use super::stack::hide;
#[cfg(feature = "testing")]
use super::stack::hide_always;
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
    let (hooks, others): (Vec<_>, Vec<_>) = hooks.into_iter().partition(|hook| hook.when == outcome);
    let mut failed: Option<Error> = None;
    #[cfg(feature = "testing")]
    let hooks = keep_captured(hooks, outcome);
    if !hooks.is_empty() {
        // A hook of an independent transaction must not join the one around it.
        let hidden = hide()?;
        for Hook { site, robust, run, .. } in hooks {
            let Some(error) = failure(run, site, outcome) else { continue };
            caught(|| databases.tell_of_hook_failure(&error));
            if !robust {
                failed.get_or_insert(error);
            }
        }
        let _ = leave(hidden, Verdict::Keep);
    }
    for hook in others {
        caught(|| drop(hook));
    }
    failed.map_or(Ok(()), Err)
}

/// Runs a hook that was registered outside of any transaction.
pub(crate) fn run_now(body: HookBody) {
    #[cfg(feature = "testing")]
    let Some(body) = capture(OUTSIDE, body) else { return };
    if let Some(error) = failure(body, OUTSIDE, When::Committed)
        && let Ok(databases) = Databases::current()
    {
        caught(|| databases.tell_of_hook_failure(&error));
    }
}

#[cfg(feature = "testing")]
thread_local! {
    /// The hooks that a test keeps from running, while it does.
    static CAPTURED: std::cell::RefCell<Option<Vec<(Site, HookBody)>>> = const { std::cell::RefCell::new(None) };
}

/// Keeps the hooks that would run meanwhile.
#[cfg(feature = "testing")]
pub(crate) fn capturing<T>(body: impl FnOnce() -> T) -> (T, Vec<(Site, HookBody)>) {
    /// Puts back what was there before, also after a panic.
    struct Outer(Option<Vec<(Site, HookBody)>>);
    impl Drop for Outer {
        fn drop(&mut self) {
            drop(CAPTURED.replace(self.0.take()));
        }
    }
    let outer = Outer(CAPTURED.replace(Some(Vec::new())));
    let value = body();
    let captured = CAPTURED.take().unwrap_or_default();
    drop(outer);
    (value, captured)
}

/// Runs hooks that a test has kept, as [`run`] does, and gives their failures.
#[cfg(feature = "testing")]
pub(crate) fn run_captured(hooks: Vec<(Site, HookBody)>) -> Vec<Box<dyn StdError + Send + Sync>> {
    let hidden = hide_always();
    let failure = |body: HookBody| match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result.err(),
        Err(panic) => {
            let problem = format!("it panicked: {}", text(&*panic).unwrap_or("without a text"));
            discard(panic);
            Some(problem.into())
        }
    };
    let errors = hooks.into_iter().filter_map(|(_, body)| failure(body)).collect();
    let _ = leave(hidden, Verdict::Keep);
    errors
}

/// Gives a hook back, unless a test keeps it.
#[cfg(feature = "testing")]
fn capture(site: Site, body: HookBody) -> Option<HookBody> {
    CAPTURED.with_borrow_mut(|captured| match captured {
        Some(captured) => {
            captured.push((site, body));
            None
        }
        None => Some(body),
    })
}

/// The hooks that no test keeps.
#[cfg(feature = "testing")]
fn keep_captured(hooks: Vec<Hook>, outcome: When) -> Vec<Hook> {
    if outcome != When::Committed {
        return hooks;
    }
    let left = hooks.into_iter().filter_map(|Hook { level, when, robust, site, run }| {
        capture(site, run).map(|run| Hook { level, when, robust, site, run })
    });
    left.collect()
}

/// Runs what belongs to a hook and is the user's too: a listener, or the end of what a hook has captured. A panic there must
/// neither stop the other hooks nor leave the scope around them hidden.
fn caught(work: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        let text = text(&*panic).unwrap_or("without a text");
        tracing::error!(target: TARGET, text, "what belongs to a hook panicked");
        discard(panic);
    }
}

/// What was panicked with may panic again when it is dropped.
fn discard(panic: Panic) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

type Panic = Box<dyn Any + Send>;

fn text(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str))
}

/// What errors name for a hook that no scope has registered.
const OUTSIDE: Site = Site::of(&Function::new("on_commit", "", "outside of any scope", 0));

fn failure(body: HookBody, site: Site, outcome: When) -> Option<Error> {
    let problem = problem(body)?;
    let (function, file, line) = (site.function(), site.file(), site.line());
    let error = Error::HookFailed { function, file, line, problem, committed: outcome == When::Committed };
    tracing::error!(target: TARGET, %error, "a hook failed");
    Some(error)
}

/// Why a hook failed, if it did.
fn problem(body: HookBody) -> Option<String> {
    // The error's text and its end are the user's code, as the body is.
    match catch_unwind(AssertUnwindSafe(|| body().map_err(|error| error.to_string()))) {
        Ok(result) => result.err(),
        Err(panic) => {
            let problem = format!("it panicked: {}", text(&*panic).unwrap_or("without a text"));
            discard(panic);
            Some(problem)
        }
    }
}
