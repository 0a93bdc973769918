//! The incarnation of a modelled server, and those that were adopted there.

use super::rules::{Predecessor, Rules};
use crate::two_phase::protocol::Incarnations;

/// In which incarnation home was when the transaction was named.
pub const NAMED: &str = "2";
/// Where the list says that it has replaced the one that is home again, and then that this one has replaced it.
const BETWEEN: u8 = 16;
const NOW: [&str; 4] = ["0", "1", "2", "3"];
/// What `multidb_meta` says where these were adopted, as bits.
const ADOPTED: [&str; 18] = [
    "", "0", "1", "1<0", "2", "2<0", "2<1", "2<1<0", "3", "3<0", "3<1", "3<1<0", "3<2", "3<2<0", "3<2<1", "3<2<1<0",
    "1<2", "2<1<2",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Standing {
    now: u8,
    adopted: u8,
}

impl Standing {
    /// Installed in the incarnation in which transactions are named.
    pub const INSTALLED: Self = Self { now: 2, adopted: 0b100 };

    /// The primary before that one.
    pub fn before(predecessor: Predecessor) -> Self {
        let adopted = match predecessor {
            Predecessor::Installed => 0b10,
            Predecessor::Adopted => 0b11,
            Predecessor::Between => BETWEEN,
        };
        Self { now: 1, adopted }
    }

    /// Its standby takes its place.
    pub fn promoted(self) -> Self {
        Self { now: self.now + 1, ..self }
    }

    /// An operator says that it replaces those before it.
    pub fn adopt(&mut self) {
        self.adopted = if self.adopted == BETWEEN { BETWEEN + 1 } else { self.adopted | 1 << self.now };
    }

    pub fn name(self) -> &'static str {
        NOW[usize::from(self.now)]
    }

    pub fn incarnations(self, rules: &Rules) -> Incarnations<'static> {
        Incarnations { now: Some(self.name()), adopted: ADOPTED[usize::from(self.adopted)], grows: rules.grows }
    }
}
