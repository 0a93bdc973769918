//! One transaction over several databases: an atomic commit without a coordinator's log. The decision is a row in home's own
//! commit.

mod adoption;
mod applying;
mod cleaning;
mod coordinator;
pub mod protocol;
mod recovery;
mod report;
mod rules;
mod site;
mod status;
mod worker;

pub use applying::DRAIN_LIMIT;
pub use cleaning::DECISION_RETENTION;
pub(crate) use cleaning::complete;
pub(crate) use coordinator::{Fate, Joint, Member, branch_name, commit, name};
pub use report::{InDoubt, OPEN_LIMIT, OpenDecision, Reason, RecoveryReport};
pub use status::{TransactionStatus, status};
pub use worker::{RECOVERY_INTERVAL, RecoveryHandle};

pub(crate) use rules::{Ability, home};
