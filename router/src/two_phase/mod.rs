//! One transaction over several databases: an atomic commit without a coordinator's log. The decision is a row in home's own
//! commit.

mod coordinator;
pub mod protocol;
mod rules;

pub(crate) use coordinator::{Fate, Joint, Member, branch_name, commit, name};
pub(crate) use rules::{Ability, home};
