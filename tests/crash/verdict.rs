//! What must hold whatever was killed: looked at after one pass of recovery, through connections of the tests' own.

use multidb::{Databases, RecoveryReport};

use crate::child::{AGAIN, Ended, Told, transfer};
use crate::places::Places;

/// What the databases may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// These rows.
    Rows(Vec<i64>),
    /// These, or none.
    RowsOrNone(Vec<i64>),
}

impl Expected {
    pub(crate) const NONE: Self = Self::Rows(Vec::new());

    /// The row of the one transaction.
    pub(crate) fn one() -> Self {
        Self::Rows(vec![1])
    }

    fn allows(&self, rows: &[i64]) -> bool {
        match self {
            Self::Rows(expected) => expected == rows,
            Self::RowsOrNone(expected) => rows.is_empty() || expected == rows,
        }
    }
}

/// One pass, after which nothing is in doubt.
pub(crate) fn one_pass(databases: &Databases) -> Result<RecoveryReport, String> {
    let report = databases.recover().unwrap();
    if report.is_clear() { Ok(report) } else { Err(format!("after one pass: {report}")) }
}

/// The databases in `written` agree, hold what is expected, and nothing is left over. Gives what they hold: `those` where not all
/// were written.
pub(crate) fn agree(places: &Places, written: &[usize], expected: &Expected) -> Result<&'static str, String> {
    let all: Vec<Vec<i64>> = (0..places.urls.len()).map(|at| places.rows(at)).collect();
    let first = &all[written[0]];
    for (at, rows) in all.iter().enumerate() {
        let wanted = if written.contains(&at) { &first[..] } else { &[] };
        if rows != wanted {
            return Err(format!("split: {all:?}"));
        }
    }
    let own: Vec<i64> = first.iter().copied().filter(|id| *id < AGAIN).collect();
    if !expected.allows(&own) {
        return Err(format!("they hold {own:?}, not {expected:?}"));
    }
    for at in 0..places.urls.len() {
        if places.prepared(at) != 0 {
            return Err(format!("a branch is left prepared on {at}"));
        }
    }
    match places.unfinished() {
        [0, 0] if own.is_empty() => Ok("none"),
        [0, 0] if written.len() < all.len() => Ok("those"),
        [0, 0] => Ok("all"),
        [open, receipts] => Err(format!("{open} open decisions and {receipts} receipts without one are left")),
    }
}

/// What a caller was told is what the databases hold.
pub(crate) fn is_true(ended: &Ended, held: &str) -> Result<(), String> {
    match (ended.told(), held) {
        (Some(Told::Committed), "all") | (Some(Told::RolledBack), "none") | (Some(Told::Unknown), _) => Ok(()),
        (None, _) if ended.was_killed() => Ok(()),
        _ => Err(format!("it was told otherwise: {ended:?}, and they hold {held}")),
    }
}

/// The databases serve who comes next.
pub(crate) fn go_on(places: &Places) -> Result<(), String> {
    let id = AGAIN + 1;
    transfer(places.urls.len() - 1, id, id, None).map_err(|error| format!("the next transaction: {error}"))
}
