//! One transaction over several databases: an atomic commit without a coordinator's log. The decision is a row in home's own
//! commit.

pub mod protocol;
