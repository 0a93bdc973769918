//! Which kinds of databases are in one transaction, and what follows from that.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::scope;

use crate::places::{Kind, Places};

use Kind::{MariaDb, Postgres, Sqlite};

/// The kinds of the databases, in the order in which their models are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout(pub(crate) &'static [Kind]);

/// Every pair of kinds, in both orders, and three databases.
pub(crate) const ALL: [Layout; 13] = [
    Layout(&[Postgres, Postgres]),
    Layout(&[Postgres, MariaDb]),
    Layout(&[MariaDb, Postgres]),
    Layout(&[MariaDb, MariaDb]),
    Layout(&[Postgres, Sqlite]),
    Layout(&[Sqlite, Postgres]),
    Layout(&[MariaDb, Sqlite]),
    Layout(&[Sqlite, MariaDb]),
    Layout(&[Sqlite, Sqlite]),
    Layout(&[Postgres, Postgres, Postgres]),
    Layout(&[Postgres, MariaDb, Sqlite]),
    Layout(&[MariaDb, Postgres, MariaDb]),
    Layout(&[Sqlite, Sqlite, Postgres]),
];

impl Layout {
    fn is_file(self, at: usize) -> bool {
        self.0[at] == Sqlite
    }

    /// The databases of the branch that holds the decision: what can't prepare, else the first. Several files are one branch.
    pub(crate) fn home(self) -> Vec<usize> {
        let files: Vec<usize> = (0..self.0.len()).filter(|at| self.is_file(*at)).collect();
        if files.is_empty() { vec![0] } else { files }
    }

    /// The databases of the other branches. The library counts them from 1.
    pub(crate) fn others(self) -> Vec<usize> {
        let home = self.home();
        (0..self.0.len()).filter(|at| !home.contains(at)).collect()
    }

    /// The number of the last database's branch.
    pub(crate) fn last_branch(self) -> usize {
        let last = self.0.len() - 1;
        self.others().iter().position(|at| *at == last).map_or(0, |at| at + 1)
    }

    /// Whether the databases after the first may join one by one.
    pub(crate) fn may_join(self) -> bool {
        (1..self.0.len()).all(|at| !self.is_file(at))
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, kind) in self.0.iter().enumerate() {
            let letter = match kind {
                Postgres => 'P',
                MariaDb => 'M',
                Sqlite => 'S',
            };
            write!(f, "{}{letter}", if at == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

/// How many layouts are tried at once. Most of the time each waits for a disk.
const AT_ONCE: usize = 8;

/// Tries something on fresh databases of each layout, several at once. `false` where a server is missing.
pub(crate) fn on_each(layouts: &[Layout], work: impl Fn(usize, &Places) + Sync) -> bool {
    let places: Option<Vec<Places>> = layouts.iter().map(|layout| Places::new(layout.0)).collect();
    let Some(places) = places else { return false };
    let next = AtomicUsize::new(0);
    scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(places) = places.get(at) else { break };
                    work(at, places);
                }
            });
        }
    });
    true
}

/// Whether all is to be tried, which takes longer than `scripts/test` may.
pub(crate) fn whole() -> bool {
    std::env::var("MULTIDB_TEST_MATRIX").is_ok_and(|value| value == "whole")
}
