//! Running a scope again: after a failure that may pass, or where its key was claimed by another call.

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use super::once::{Claim, Once};
use super::open::Target;
use super::open_scope::Scope;
use super::options::Options;
use super::run::{Returned, close_in_panic};
use super::span::ScopeSpan;
use crate::error::Error;
use crate::site::Site;
use crate::telemetry::TARGET;
use crate::transaction::{self, Verdict};

/// The most times that a scope is run again, whatever it asks for.
pub const RETRIES_LIMIT: u32 = 1_000;
/// The longest wait before the first repetition. Each further one may be twice as long.
pub const RETRY_BASE: Duration = Duration::from_millis(10);
/// The longest wait before any repetition.
pub const RETRY_CAP: Duration = Duration::from_secs(1);
/// How long a call without a `timeout` tries to claim its key.
pub const CLAIM_LIMIT: Duration = Duration::from_secs(30);

/// When a scope is run again.
pub struct Repetition<R> {
    /// How many times after a failure that may pass.
    pub retries: u32,
    /// The key, if it must be run only once.
    pub once: Option<Once<R>>,
}

/// Runs a scope, again and again where that may help.
pub(super) fn run_repeatedly<R: Returned>(
    site: Site,
    targets: &[Target],
    options: &Options,
    repetition: &Repetition<R>,
    mut body: impl FnMut(&Scope<'_>) -> R,
) -> R {
    if options.terms.manual {
        let problem =
            format!("`retry` and `once` of {site} run the scope as a whole, which a manual one may commit in parts");
        return R::from_error(Error::config(
            problem,
            "drop `mode = manual`, or move the parts into functions of their own",
        ));
    }
    if repetition.once.is_some() && options.terms.characteristics.limits.read_only {
        let problem = format!("`once` of {site} writes its key, which `read_only` refuses");
        return R::from_error(Error::config(problem, "leave one of them out"));
    }
    let _hint = options.hold_hint();
    let span = ScopeSpan::enter(site, targets, options);
    let begin = Instant::now();
    let limit = options.terms.characteristics.limits.timeout;
    let in_time = |limit: Duration| begin.elapsed() < limit;
    let (mut attempt, mut left) = (0, repetition.retries.min(RETRIES_LIMIT));
    loop {
        attempt += 1;
        let may_retry = left > 0 && limit.is_none_or(in_time);
        let mut options = options.clone();
        options.terms.repeats = may_retry;
        options.keyed = repetition.once.is_some();
        let mut scope = match Scope::open(site, targets, &options) {
            Ok(scope) => scope,
            Err(error) => {
                span.refused();
                return R::from_error(error);
            }
        };
        span.opened(scope.opened());
        span.attempt(attempt);
        let outermost = scope.is_outermost();
        let may_retry = may_retry && outermost;
        if let Some(once) = &repetition.once {
            match once.claim(&scope) {
                Ok(Claim::New) => {}
                Ok(Claim::Done(result)) => {
                    // Nothing was written.
                    return match scope.close(Verdict::Keep) {
                        Ok(()) => result,
                        Err(error) => R::from_error(error),
                    };
                }
                Err(error) => {
                    // A call that had no connection has waited for one already.
                    let passes = matches!(error, Error::Query(_)) && error.is_retryable();
                    let again = outermost && passes && in_time(limit.unwrap_or(CLAIM_LIMIT));
                    let _ = scope.close(Verdict::Undo);
                    if !again {
                        return R::from_error(error);
                    }
                    wait(site, attempt, &error);
                    continue;
                }
            }
        }
        let error = match catch_unwind(AssertUnwindSafe(|| body(&scope))) {
            Ok(returned) => {
                let stored = match &repetition.once {
                    Some(once) if returned.is_ok() => once.store(&scope, &returned),
                    _ => Ok(()),
                };
                let verdict = if returned.is_ok() && stored.is_ok() { Verdict::Keep } else { Verdict::Undo };
                // Not if something independent has committed in it.
                let may_retry = may_retry && transaction::may_be_repeated();
                match scope.close(verdict) {
                    // Only the end of the transaction knows that nothing of it was committed.
                    Err(error) if may_retry && error.is_retryable() => error,
                    closed => {
                        let ended = match (stored, closed) {
                            (_, Err(ended @ Error::ImplicitCommit { .. })) => Err(ended),
                            (stored, closed) => stored.and(closed),
                        };
                        return match ended {
                            Ok(()) => returned,
                            Err(error) => returned.ended_with(error),
                        };
                    }
                }
            }
            Err(panic) => {
                transaction::forbid_repetition();
                close_in_panic(&mut scope);
                resume_unwind(panic)
            }
        };
        left -= 1;
        wait(site, attempt, &error);
    }
}

/// The body of a scope that is run once, be its key claimed again and again.
pub(super) fn take<F>(body: &mut Option<F>) -> F {
    body.take().expect("a scope without `retry` is run once")
}

/// Tells that a scope is run again, and waits.
fn wait(site: Site, attempt: u32, error: &Error) {
    let delay = delay(attempt, RandomState::new().hash_one(attempt));
    tracing::warn!(target: TARGET, function = site.function(), attempt, ?delay, %error, "a transaction is run again");
    std::thread::sleep(delay);
}

/// Exponential, capped, and anything from nothing to that: so that those who met once don't meet again.
fn delay(attempt: u32, random: u64) -> Duration {
    let most = RETRY_BASE.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(RETRY_CAP);
    let nanoseconds = u64::try_from(most.as_nanos()).expect("at most the cap");
    Duration::from_nanos(random % (nanoseconds + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_longer_than_twice_the_last_nor_than_the_cap() {
        for attempt in 1..100 {
            let most = RETRY_BASE.saturating_mul(1 << (attempt - 1).min(20)).min(RETRY_CAP);
            for random in [0, 1, u64::MAX / 3, u64::MAX / 2, u64::MAX] {
                assert!(delay(attempt, random) <= most, "{attempt}: {:?}", delay(attempt, random));
            }
            let nanoseconds = u64::try_from(most.as_nanos()).expect("a short time");
            assert_eq!(delay(attempt, nanoseconds), most, "the whole of it may be waited");
        }
    }
}
