//! What a router is asked.

use std::any::Any;

use super::block::Hints;
use super::chain::Subject;
use crate::model::ModelInfo;

/// Whether the database is needed to read or to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// For reads only.
    Read,
    /// For writes, and for reads that must see them.
    Write,
}

/// A question to the routers: who needs a database, and for what.
#[derive(Clone, Copy)]
pub struct RouteRequest<'a> {
    app: &'a str,
    model: Option<&'a ModelInfo>,
    module: Option<&'a str>,
    access: Access,
    in_scope: bool,
    hints: &'a Hints,
}

impl<'a> RouteRequest<'a> {
    pub(super) fn of(subject: Subject, access: Access, in_scope: bool, hints: &'a Hints) -> Self {
        let (app, model, module) = match subject {
            Subject::Model(model) => (model.app(), Some(model), Some(model.module())),
            Subject::App { app, module } => (app, None, module),
        };
        Self { app, model, module, access, in_scope, hints }
    }

    /// The application: the model's, or that of the annotated function.
    pub fn app(&self) -> &'a str {
        self.app
    }

    /// The model, unless only the application asks (a bare `#[transactional]`).
    pub fn model(&self) -> Option<&'a ModelInfo> {
        self.model
    }

    /// The module of the model, or else of the annotated function; `None` for `atomic_app`.
    pub fn module(&self) -> Option<&'a str> {
        self.module
    }

    /// Read or write.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Whether a transaction is open on this thread.
    pub fn in_scope(&self) -> bool {
        self.in_scope
    }

    /// The innermost hint of this type that [`with_hint`](crate::with_hint) has set for the block.
    pub fn hint<T: Any>(&self) -> Option<&'a T> {
        self.hints.innermost()
    }
}

impl std::fmt::Debug for RouteRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteRequest")
            .field("app", &self.app)
            .field("model", &self.model)
            .field("module", &self.module)
            .field("access", &self.access)
            .field("in_scope", &self.in_scope)
            .finish_non_exhaustive()
    }
}
