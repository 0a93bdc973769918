//! Hooks: what is done once the outcome of the open transaction is known.

use std::error::Error as StdError;

use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};
use crate::transaction::{self, HOOKS_LIMIT, HookBody, When};

/// What a hook may return: nothing, or a `Result` whose error is told of.
#[diagnostic::on_unimplemented(
    message = "a hook returns nothing or a `Result`, and this returns `{Self}`",
    note = "end the closure with `;` to drop the value, or with `Ok::<(), Error>(())`; the `Result` of a call is `Result<(), _>` \
            after `.map(drop)`"
)]
pub trait HookResult {
    /// The error, if there is one.
    ///
    /// # Errors
    /// That of the hook.
    fn into_result(self) -> Result<(), Box<dyn StdError + Send + Sync>>;
}

impl HookResult for () {
    fn into_result(self) -> Result<(), Box<dyn StdError + Send + Sync>> {
        Ok(())
    }
}

/// What a function that never returns "returns", which stable Rust has no name for.
type Never = <fn() -> ! as Signature>::Output;

/// Names the output of a function pointer.
#[doc(hidden)]
pub trait Signature {
    /// What it returns.
    type Output;
}

impl<T> Signature for fn() -> T {
    type Output = T;
}

/// Such as `on_commit(|| panic!("..."))`: since edition 2024 its closure never returns.
#[diagnostic::do_not_recommend]
impl HookResult for Never {
    fn into_result(self) -> Result<(), Box<dyn StdError + Send + Sync>> {
        match self {}
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> HookResult for Result<(), E> {
    fn into_result(self) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.map_err(Into::into)
    }
}

/// Runs `hook` after the open transaction has committed: Django's `on_commit`.
///
/// Hooks run in the order in which they were registered, after the outermost COMMIT, in autocommit; they may open
/// scopes. A level that is undone drops the hooks that were registered in it. Outside of any transaction the hook runs
/// at once. A hook that fails or panics stops no other one and makes no committed result an error: it goes to an error
/// event and to [`on_hook_failure`](crate::DatabasesBuilder::on_hook_failure), unless the scope says
/// `hook_errors = returned`. No hook runs after an unknown outcome.
pub fn on_commit<R: HookResult>(hook: impl FnOnce() -> R + 'static) {
    register(When::Committed, false, Box::new(|| hook().into_result()));
}

/// As [`on_commit`], and a failure is never returned, whatever the scope says: Django's `robust=True`.
pub fn on_commit_robust<R: HookResult>(hook: impl FnOnce() -> R + 'static) {
    register(When::Committed, true, Box::new(|| hook().into_result()));
}

/// Runs `hook` after the open transaction was rolled back, otherwise as [`on_commit`]. Outside of any transaction there is
/// nothing to roll back, and the hook is dropped.
///
/// It tells of the end of the *transaction*. A nested level that is undone drops its hooks of this kind too, whatever then
/// becomes of the transaction: so what a nested function did outside of the database is undone by the function itself,
/// before it returns its error, and not by this hook.
pub fn on_rollback<R: HookResult>(hook: impl FnOnce() -> R + 'static) {
    register(When::RolledBack, false, Box::new(|| hook().into_result()));
}

fn register(when: When, robust: bool, hook: HookBody) {
    let mut hook = Some(hook);
    let refused = transaction::top(|open| open.hook(when, robust, hook.take()?)).flatten();
    if let Some((hook, gate)) = refused {
        let text = format!("{} registered more than {HOOKS_LIMIT} hooks in one transaction", gate.site());
        gate.doom(gate.depth(), Failure::new(FailureClass::Other, text));
        drop(hook);
        return;
    }
    if let Some(hook) = hook
        && when == When::Committed
    {
        transaction::run_hook(hook);
    }
}

/// Whether the level of the innermost scope is undone although the scope returns `Ok`: Django's `set_rollback`.
///
/// The scope then returns the body's value, and everything that it did on any branch is gone.
///
/// # Errors
/// [`Error::NoScope`] outside of any transaction.
pub fn set_rollback(undone: bool) -> Result<()> {
    transaction::top(|open| open.set_undone(undone)).ok_or_else(|| Error::no_scope("`set_rollback`"))
}
