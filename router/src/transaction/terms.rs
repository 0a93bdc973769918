//! What was agreed when a transaction was opened.

use crate::connection::characteristics::Characteristics;

/// What was agreed when a transaction was opened.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub(crate) struct Terms {
    /// What its scope has asked of the databases.
    pub(crate) characteristics: Characteristics,
    /// Its scope is run again where that may help: then its end is told as an error, and no hook runs.
    pub(crate) repeats: bool,
    /// A row of the library's own commits with the transaction, so that a lost reply can be resolved.
    pub(crate) verifies: bool,
    /// Its scope commits and rolls back by itself.
    pub(crate) manual: bool,
    /// A hook that fails after the commit makes the scope return an error.
    pub(crate) returns_hook_errors: bool,
    /// Its databases are committed one after the other, and not as one.
    pub(crate) best_effort: bool,
    /// Its scope returns once it is decided, and the other databases get their commit on a thread.
    pub(crate) acknowledges_decision: bool,
}

impl Terms {
    /// Whether its commit is to be provable. What has written nothing has nothing to prove.
    pub(super) fn verifies(&self) -> bool {
        self.verifies && !self.characteristics.limits.read_only
    }
}
