//! Whether what a scope promises of its commit is what its transaction does.

use super::open::{Target, outermost};
use super::options::{CommitMode, Options};
use crate::error::{Error, Result};
use crate::site::Site;

/// Refuses what the transaction that a scope opens can't promise. The macro has said so already where it could.
#[cold]
pub(super) fn promises(site: Site, options: &Options) -> Result<()> {
    if options.commit != Some(CommitMode::BestEffort) {
        return Ok(());
    }
    let acknowledged = || {
        options.terms.acknowledges_decision.then_some(("acknowledge = decided", "returns at the decision about all"))
    };
    let Some((key, problem)) = whole_work(options).or_else(acknowledged) else { return Ok(()) };
    let problem = format!("`{key}` of {site} {problem}, and `commit = best_effort` may commit a part of it");
    Err(Error::config(problem, "leave one of them out"))
}

/// The key by which a scope promises something of its work as a whole.
fn whole_work(options: &Options) -> Option<(&'static str, &'static str)> {
    match () {
        () if options.keyed => Some(("once", "stores a result for the whole work")),
        () if options.terms.verifies => Some(("verify_commit", "proves the commit of the whole work")),
        () => None,
    }
}

/// Refuses a scope that is to be a part of a transaction which commits in another way. `best_effort`: how that one does.
///
/// How many models are listed counts, and not on how many databases they are: what may run must not depend on the route.
pub(super) fn agrees(site: Site, targets: &[Target], options: &Options, best_effort: bool) -> Result<()> {
    let reads = options.terms.characteristics.limits.read_only;
    let as_a_whole = "let the inner scope have `propagation = requires_new`, so that it commits by itself, or drop `commit = \
                      best_effort` on the outer one";
    let too = "let the inner scope have `propagation = requires_new`, so that it commits by itself, or `commit = best_effort` \
               too if a part of it may stay behind, or drop that on the outer one";
    let declared =
        "declare it on the outer scope too, drop it on the inner one, or let that have `propagation = requires_new`";
    let (no, asked, remedy) = match (best_effort, options.commit) {
        (false, Some(CommitMode::BestEffort)) => ("no ", format!("`commit = best_effort` of {site}"), declared),
        (true, Some(CommitMode::Atomic)) => ("", format!("`commit = atomic` of {site}"), too),
        (true, None) if targets.len() > 1 && !reads => {
            ("", format!("that {site} lists several models, and so commits them as one,"), too)
        }
        (true, _) => match whole_work(options) {
            Some((key, _)) => {
                ("", format!("`{key}` of {site}, which promises something of its work as a whole,"), as_a_whole)
            }
            None => return Ok(()),
        },
        (false, _) => return Ok(()),
    };
    Err(Error::OptionConflict { outer: format!("{no}`commit = best_effort` of {}", outermost()), inner: asked, remedy })
}
