//! An open scope.

use std::sync::Arc;

use super::open::{self, Opened, Target};
use super::options::Options;
use crate::connection::slot::AnySlot;
use crate::error::{Error, Result};
use crate::handle::{Handle, Origin};
use crate::model::Model;
use crate::site::Site;
use crate::transaction::{self, Verdict};

/// An open scope over the models that it lists: what [`atomic_many`](crate::atomic_many) lends its closure.
pub struct Scope<'a> {
    pub(super) site: Site,
    pub(super) targets: &'a [Target],
    pub(super) opened: Opened,
}

impl<'a> Scope<'a> {
    pub(super) fn open(site: Site, targets: &'a [Target], options: &Options) -> Result<Self> {
        open::open(site, targets, options)
    }

    /// Ends it. Once only: a scope that is dropped later has nothing left to end.
    #[inline]
    pub(super) fn close(&mut self, verdict: Verdict) -> Result<()> {
        match self.opened.ticket.take() {
            Some(ticket) => transaction::leave(ticket, verdict),
            None => Ok(()),
        }
    }

    pub(super) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Whether it has opened its transaction.
    pub(super) fn is_outermost(&self) -> bool {
        self.opened.begun
    }

    /// The branch of its first target, and which of its files that is.
    pub(super) fn first_slot(&self) -> Result<(Arc<dyn AnySlot>, usize)> {
        let first = self.opened.indices.get(0);
        let found = |ticket| Some((transaction::slot(ticket, first)?, transaction::file(ticket, first)));
        self.opened.ticket.as_ref().and_then(found).ok_or_else(|| Error::OptionConflict {
            outer: "which is none: the scope runs in autocommit".into(),
            inner: format!("`once` of {}", self.site),
            remedy: "use `nested` or `mandatory`",
        })
    }

    /// A handle on the database of one of the scope's models.
    ///
    /// # Errors
    /// [`Error::WrongBackend`] where the handle doesn't fit, [`Error::NotAtomic`] where the model was not listed and
    /// lives on another database.
    pub fn conn<M: Model, H: Handle>(&self) -> Result<H> {
        let listed = self.targets.iter().position(|target| matches!(target, Target::Model(info) if *info == M::info()));
        match listed {
            Some(index) => self.handle(index),
            None => super::access::connection::<M, H>(),
        }
    }

    /// A handle on the database of the target at `index`.
    #[inline]
    pub(super) fn handle<H: Handle>(&self, index: usize) -> Result<H> {
        let database = self.opened.indices.get(index);
        let asked = || format!("{} for {}", self.site, self.targets[index]);
        let origin = if self.opened.in_transaction {
            let found = self.opened.ticket.as_ref().and_then(|ticket| transaction::reached(ticket, database));
            let found = found.ok_or_else(|| Error::no_scope(format!("a handle for {}", self.targets[index])))?;
            Origin::Scope(found.0, found.1, self.opened.databases.at(database))
        } else {
            Origin::Pool(&self.opened.databases, database, self.site)
        };
        H::open(origin, &asked)
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        // The second line: a panic is caught where the scope is run, so a scope is closed in all ordinary cases.
        if let Some(ticket) = self.opened.ticket.take() {
            let _ = transaction::leave(ticket, Verdict::Undo);
        }
    }
}

impl std::fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("site", &self.site).field("targets", &self.targets).finish_non_exhaustive()
    }
}
