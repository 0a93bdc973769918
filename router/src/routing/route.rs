//! A router's answer.

use std::borrow::Cow;

use crate::alias::Alias;

/// A router's answer to "which database?".
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a route does nothing until `select_db` returns it"]
pub struct Route(pub(super) Answer);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    To(Alias),
    Prefer(Alias),
    Pass,
    Refuse(Cow<'static, str>),
}

impl Route {
    /// That database. If it is not configured, the call is an error: nothing falls back silently.
    pub fn to(alias: impl Into<Alias>) -> Self {
        Self(Answer::To(alias.into()))
    }

    /// That database where it is configured, and otherwise no opinion: so a second database costs one line of
    /// configuration.
    pub fn prefer(alias: impl Into<Alias>) -> Self {
        Self(Answer::Prefer(alias.into()))
    }

    /// No opinion: the next router is asked.
    pub fn pass() -> Self {
        Self(Answer::Pass)
    }

    /// Whether it is a route to this database, be it a preferred one.
    pub(super) fn names(&self, database: &Alias) -> bool {
        matches!(&self.0, Answer::To(alias) | Answer::Prefer(alias) if alias == database)
    }

    /// The database that must be configured, if it is such a route.
    pub(super) fn target(&self) -> Option<&Alias> {
        match &self.0 {
            Answer::To(alias) => Some(alias),
            Answer::Prefer(_) | Answer::Pass | Answer::Refuse(_) => None,
        }
    }

    /// No database at all, for this reason: the call is an error. For a shard router without its key, say.
    pub fn refuse(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Answer::Refuse(reason.into()))
    }
}
