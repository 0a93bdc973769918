//! What a run did.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::reason::Reason;

/// Counts lines by what became of them.
#[derive(Default)]
pub struct Summary {
    committed: u64,
    rejected: BTreeMap<&'static str, u64>,
    pub took: Duration,
}

impl Summary {
    pub fn commit(&mut self) {
        self.committed += 1;
    }

    pub fn reject(&mut self, reason: &Reason) {
        *self.rejected.entry(reason.name()).or_default() += 1;
    }

    fn per_second(&self) -> u128 {
        u128::from(self.committed) * 1_000_000 / self.took.as_micros().max(1)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, count: u128| writeln!(f, "{name:<27} {count:>8}");
        line("committed", self.committed.into())?;
        line("rejected", self.rejected.values().map(|count| u128::from(*count)).sum())?;
        for (name, count) in &self.rejected {
            line(&format!("  {name}"), (*count).into())?;
        }
        write!(f, "{:<27} {:>8}", "transfers per second", self.per_second())
    }
}
