//! Running a body in a scope: the thin generic shell around the two ends, which are not generic.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::once::{Once, OnceKey, Stored};
use super::open::Target;
use super::open_scope::Scope;
use super::options::Options;
use super::repeat::{Repetition, run_repeatedly, take};
use super::span::ScopeSpan;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::site::{Function, Site};
use crate::telemetry::TARGET;
use crate::transaction::Verdict;

/// What a body returns: a `Result` whose error can carry an [`Error`].
#[diagnostic::on_unimplemented(
    message = "a transaction's function must return a `Result` whose error implements `From<multidb::Error>` and `Debug`, \
               and this returns `{Self}`",
    label = "can't carry the library's errors",
    note = "give the error type a variant such as `#[error(transparent)] Database(#[from] multidb::Error)`, and derive `Debug`"
)]
pub trait Returned {
    /// The error of a scope that could not be opened or committed.
    fn from_error(error: Error) -> Self;
    /// Whether the scope commits.
    fn is_ok(&self) -> bool;
    /// What is returned if the end of the scope has failed with `error`.
    #[must_use]
    fn ended_with(self, error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<Error> + Debug> Returned for Result<T, E> {
    fn from_error(error: Error) -> Self {
        Err(error.into())
    }

    fn ended_with(self, error: Error) -> Self {
        match self {
            Ok(_) => Err(error.into()),
            Err(failing) => Err(error.beside(&failing).map_or(failing, E::from)),
        }
    }

    fn is_ok(&self) -> bool {
        Result::is_ok(self)
    }
}

/// The handles that a body takes: a tuple of types that implement [`Handle`].
pub trait Handles: Sized {
    /// Opens each on the database of the target at its index.
    ///
    /// # Errors
    /// [`Error::WrongBackend`].
    fn open(scope: &Scope<'_>, indices: &[usize]) -> Result<Self>;
}

macro_rules! handles {
    ($($name:ident $at:literal)*) => {
        impl<$($name: Handle),*> Handles for ($($name,)*) {
            fn open(scope: &Scope<'_>, indices: &[usize]) -> Result<Self> {
                let _ = (scope, indices);
                Ok(($(scope.handle::<$name>(indices[$at])?,)*))
            }
        }
    };
}

handles!();
handles!(A 0);
handles!(A 0 B 1);
handles!(A 0 B 1 C 2);
handles!(A 0 B 1 C 2 D 3);
handles!(A 0 B 1 C 2 D 3 E 4);
handles!(A 0 B 1 C 2 D 3 E 4 F 5);
handles!(A 0 B 1 C 2 D 3 E 4 F 5 G 6);
handles!(A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7);

/// What the attribute expands to.
#[expect(clippy::needless_pass_by_value, reason = "as the attribute writes it")]
pub fn run<H: Handles, R: Returned, const N: usize>(
    function: &'static Function,
    targets: &[Target],
    options: Options,
    indices: [usize; N],
    body: impl FnOnce(&mut H) -> R,
) -> R {
    run_scope(Site::of(function), targets, &options, |scope| match H::open(scope, &indices) {
        Ok(ref mut handles) => body(handles),
        Err(error) => R::from_error(error),
    })
}

/// What the attribute expands to with `retry`.
#[expect(clippy::needless_pass_by_value, reason = "as the attribute writes it")]
pub fn run_again<H: Handles, R: Returned, const N: usize>(
    function: &'static Function,
    targets: &[Target],
    options: Options,
    retries: u32,
    indices: [usize; N],
    mut body: impl FnMut(&mut H) -> R,
) -> R {
    let repetition = Repetition { retries, once: None };
    run_repeatedly(Site::of(function), targets, &options, &repetition, |scope| match H::open(scope, &indices) {
        Ok(mut handles) => body(&mut handles),
        Err(error) => R::from_error(error),
    })
}

/// What the attribute expands to with `once`.
pub fn run_once<H: Handles, R: Returned + Stored, const N: usize>(
    function: &'static Function,
    targets: &[Target],
    options: Options,
    once: Result<Once<R>>,
    indices: [usize; N],
    body: impl FnOnce(&mut H) -> R,
) -> R {
    // The key may be claimed again and again; the body is run once.
    let mut body = Some(body);
    run_once_again(function, targets, options, 0, once, indices, |handles: &mut H| take(&mut body)(handles))
}

/// What the attribute expands to with `once` and `retry`.
#[expect(clippy::needless_pass_by_value, reason = "as the attribute writes it")]
pub fn run_once_again<H: Handles, R: Returned + Stored, const N: usize>(
    function: &'static Function,
    targets: &[Target],
    options: Options,
    retries: u32,
    once: Result<Once<R>>,
    indices: [usize; N],
    mut body: impl FnMut(&mut H) -> R,
) -> R {
    let repetition = match once.and_then(|once| once.owned_by(function)) {
        Ok(once) => Repetition { retries, once: Some(once) },
        Err(error) => return R::from_error(error),
    };
    run_repeatedly(Site::of(function), targets, &options, &repetition, |scope| match H::open(scope, &indices) {
        Ok(mut handles) => body(&mut handles),
        Err(error) => R::from_error(error),
    })
}

/// The key of an annotated function: taken before the body takes the arguments. `place` is a closure in the function: the
/// name of its type is the function's whole path, with the types of a method and of a generic function, each of which has
/// keys of its own.
///
/// # Errors
/// Those of [`Once::new`].
pub fn once<R: Returned + Stored>(place: &impl Fn(), key: &(impl OnceKey + ?Sized)) -> Result<Once<R>> {
    let path = std::any::type_name_of_val(place);
    Once::new(key, path.trim_end_matches("::{{closure}}").to_owned())
}

/// A by-value argument of a function with `retry`: each run gets a clone.
#[diagnostic::on_unimplemented(
    message = "`retry` may run this function several times, and `{Self}` can't be given to each run",
    label = "is not `Clone`",
    note = "let it be `Clone`, and its type parameters too, or take it by reference: `&{Self}`"
)]
pub trait Again {
    /// A clone for one run.
    #[must_use]
    fn again(&self) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: Clone> Again for T {
    fn again(&self) -> Self {
        self.clone()
    }
}

/// Opens a scope, runs the body in it, and commits or rolls back.
pub(super) fn run_scope<R: Returned>(
    site: Site,
    targets: &[Target],
    options: &Options,
    body: impl FnOnce(&Scope<'_>) -> R,
) -> R {
    let _hint = options.hold_hint();
    let span = ScopeSpan::enter(site, targets, options);
    // Used where it is made: a scope is large to move.
    match Scope::open(site, targets, options) {
        Ok(ref mut scope) => {
            span.opened(scope.opened());
            run_in(scope, body)
        }
        Err(error) => {
            span.refused();
            R::from_error(error)
        }
    }
}

#[inline]
fn run_in<R: Returned>(scope: &mut Scope<'_>, body: impl FnOnce(&Scope<'_>) -> R) -> R {
    match catch_unwind(AssertUnwindSafe(|| body(scope))) {
        Ok(returned) => {
            let verdict = if returned.is_ok() { Verdict::Keep } else { Verdict::Undo };
            match scope.close(verdict) {
                Ok(()) => returned,
                Err(error) => returned.ended_with(error),
            }
        }
        Err(panic) => {
            // Rolled back and given back first: r2d2 would discard the connection while the thread panics.
            close_in_panic(scope);
            resume_unwind(panic)
        }
    }
}

/// Rolls a scope back whose body has panicked. The panic goes on, so what could not be undone is an event.
pub(super) fn close_in_panic(scope: &mut Scope<'_>) {
    if let Err(error) = scope.close(Verdict::Undo) {
        tracing::error!(target: TARGET, %error, "the function of a scope panicked, and its work could not be undone");
    }
}
