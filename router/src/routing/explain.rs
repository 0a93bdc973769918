//! How a routing decision came about.

use std::fmt;

use super::block::{Hints, overrides};
use super::chain::{Chain, OVERRIDE, Subject};
use super::request::{Access, RouteRequest};
use super::route::Answer;
use crate::alias::Alias;
use crate::error::Error;

/// The path of a routing decision: who was asked, what they answered, and where it ended. Its `Display` is for people.
#[derive(Debug)]
pub struct RouteExplanation {
    subject: String,
    access: Access,
    steps: Vec<RouteStep>,
    end: Result<Alias, Error>,
}

/// One router's part in a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteStep {
    /// The router's type, or `with_routes`.
    pub router: &'static str,
    /// What it answered, in words.
    pub answer: String,
    /// The types of the hints that it asked for, and whether there was one.
    pub hints: Vec<(&'static str, bool)>,
}

impl RouteExplanation {
    /// The routers that were asked, in their order.
    pub fn steps(&self) -> &[RouteStep] {
        &self.steps
    }

    /// The database.
    ///
    /// # Errors
    /// What a call would get: [`Error::UnknownDatabase`] or [`Error::RouteRefused`].
    pub fn database(&self) -> Result<&Alias, &Error> {
        self.end.as_ref()
    }
}

impl fmt::Display for RouteExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "write",
        };
        write!(f, "{}, to {access}:", self.subject)?;
        for RouteStep { router, answer, hints } in &self.steps {
            write!(f, "\n  {router}: {answer}")?;
            for (hint, found) in hints {
                write!(f, " ({} hint `{hint}`)", if *found { "by" } else { "without" })?;
            }
        }
        match (&self.end, self.steps.last()) {
            (Ok(alias), Some(step)) if step.answer.starts_with('`') => write!(f, "\n  so database `{alias}`"),
            (Ok(alias), _) => write!(f, "\n  no router had an opinion, so database `{alias}`"),
            (Err(error), _) => write!(f, "\n  so an error: {error}"),
        }
    }
}

impl Chain {
    /// Decides as for a call, and tells how.
    pub(crate) fn explain(
        &self,
        subject: Subject,
        access: Access,
        in_scope: bool,
        find: impl Fn(&str) -> Option<usize>,
        end: Result<Alias, Error>,
    ) -> RouteExplanation {
        let hints = Hints::watched();
        let request = RouteRequest::of(subject, access, in_scope, &hints);
        let overrides = overrides();
        let overriding = overrides.iter().map(|router| (OVERRIDE, router));
        let mut steps = Vec::new();
        for (router, asked) in overriding.chain(self.routers()) {
            let answer = asked.select_db(&request).0;
            let (words, decides) = match &answer {
                Answer::Pass => ("no opinion".to_owned(), false),
                Answer::Prefer(alias) if find(alias.as_str()).is_none() => {
                    (format!("prefers `{alias}`, which is not configured"), false)
                }
                Answer::Prefer(alias) => (format!("`{alias}`, which it prefers"), true),
                Answer::To(alias) => (format!("`{alias}`"), true),
                Answer::Refuse(reason) => (format!("refuses: {reason}"), true),
            };
            steps.push(RouteStep { router, answer: words, hints: hints.take_asked() });
            if decides {
                break;
            }
        }
        RouteExplanation { subject: subject.to_string(), access, steps, end }
    }
}
