//! What was tried on which databases, and what they held afterwards: a row for each point, a column for each layout.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

/// What the databases held, alike in all; or what was wrong.
pub(crate) type Cell = Result<&'static str, String>;

/// A table that several threads fill.
pub(crate) struct Table {
    title: &'static str,
    columns: Vec<String>,
    rows: Mutex<BTreeMap<(usize, String), BTreeMap<usize, Cell>>>,
}

impl Table {
    pub(crate) fn new(title: &'static str, columns: impl Iterator<Item = String>) -> Self {
        Self { title, columns: columns.collect(), rows: Mutex::default() }
    }

    /// Enters a cell. Rows stand in the order of their numbers. `false` where it is wrong: then what comes next on these
    /// databases says nothing.
    pub(crate) fn enter(&self, number: usize, row: &str, column: usize, cell: Cell) -> bool {
        let is_right = cell.is_ok();
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rows.entry((number, row.to_owned())).or_default().insert(column, cell);
        assert!(before.is_none(), "{row} was tried twice on {}", self.columns[column]);
        is_right
    }

    /// The names of the rows.
    pub(crate) fn rows(&self) -> Vec<String> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).keys().map(|(_, row)| row.clone()).collect()
    }

    /// Prints the table where the test harness doesn't hide it, and fails where something was wrong.
    pub(crate) fn end(self) {
        let rows = self.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        let names = rows.keys().map(|(_, row)| row.chars().count());
        let width = names.chain([self.title.chars().count()]).max().unwrap_or(0);
        let mut text = format!("\n{:width$}", self.title);
        let (mut wrong, mut cells) = (Vec::new(), 0);
        for column in &self.columns {
            write!(text, " {column:>6}").unwrap();
        }
        for ((_, row), found) in &rows {
            write!(text, "\n{row:width$}").unwrap();
            for (at, column) in self.columns.iter().enumerate() {
                let shown = match found.get(&at) {
                    None => "-",
                    Some(Ok(held)) => held,
                    Some(Err(why)) => {
                        wrong.push(format!("{row} on {column}: {why}"));
                        "WRONG"
                    }
                };
                cells += usize::from(found.contains_key(&at));
                write!(text, " {shown:>width$}", width = column.len().max(6)).unwrap();
            }
        }
        writeln!(text, "\n{cells} tried, {} wrong", wrong.len()).unwrap();
        // Not by `println!`, which the harness hides where a test succeeds. If nobody can read it, nothing is lost.
        let _ = std::io::stdout().write_all(text.as_bytes());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(cells > 0, "nothing was tried");
    }
}
