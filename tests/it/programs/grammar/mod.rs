//! The texts of each dialect: harmless ones that look dangerous, and dangerous ones that look harmless.

mod mysql;
mod postgres;
mod sqlite;

use std::sync::LazyLock;

use fastrand::Rng;

use super::program::{Mark, Text};
use crate::fixture::Kind;

/// A text of a list.
pub(super) struct Entry {
    sql: &'static str,
    marks: &'static [Mark],
    single: bool,
    rows: bool,
}

/// One statement that puts a row.
const fn one(sql: &'static str) -> Entry {
    Entry { sql, marks: &[Mark::Put], single: true, rows: false }
}

/// One statement that puts a row, and gives its id.
const fn rows(sql: &'static str) -> Entry {
    Entry { sql, marks: &[Mark::Put], single: true, rows: true }
}

/// One statement that puts a row of which the list says more.
const fn special(sql: &'static str, marks: &'static [Mark]) -> Entry {
    Entry { sql, marks, single: true, rows: false }
}

/// Several statements.
const fn script(sql: &'static str, marks: &'static [Mark]) -> Entry {
    Entry { sql, marks, single: false, rows: false }
}

/// What puts no row.
const fn other(sql: &'static str) -> Entry {
    Entry { sql, marks: &[], single: true, rows: false }
}

/// What puts no row, and gives one with a column `id`.
const fn query(sql: &'static str) -> Entry {
    Entry { sql, marks: &[], single: true, rows: true }
}

const PUT: &[Mark] = &[Mark::Put];
const TWO: &[Mark] = &[Mark::Put, Mark::Put];
const GONE: &[Mark] = &[Mark::Gone];
const UNSURE: &[Mark] = &[Mark::Unsure];
const FAILS: &[Mark] = &[Mark::Fails];

/// What every dialect knows.
const ALL: &[Entry] = &[
    one("INSERT INTO {t} (id) VALUES ({0})"),
    one("INSERT INTO {t} (id, note) VALUES ({0}, 'it''s; COMMIT')"),
    one("INSERT INTO {t} (id, note) SELECT {0}, CASE WHEN 1 = 1 THEN 'begin' ELSE 'end' END"),
    one("insert into {t} (id) /* COMMIT; BEGIN */ values ({0}) -- ; ROLLBACK"),
    one("-- it's\nINSERT INTO {t} (id) VALUES ({0});"),
    one("INSERT INTO {t} (id) SELECT {0} AS begin"),
    rows("INSERT INTO {t} (id) VALUES ({0}) RETURNING id"),
    script("INSERT INTO {t} (id) VALUES ({0}); INSERT INTO {t} (id) VALUES ({1})", TWO),
    script("BEGIN; INSERT INTO {t} (id) VALUES ({0}); COMMIT", PUT),
    script("BEGIN; INSERT INTO {t} (id) VALUES ({0}); ROLLBACK", GONE),
    script("BEGIN; INSERT INTO {t} (id) VALUES ({0})", UNSURE),
    script("INSERT INTO {t} (id) VALUES ({0}); COMMIT; BEGIN", PUT),
    script("INSERT INTO {t} (id) VALUES ({0}); ROLLBACK; BEGIN", UNSURE),
    script("COMMIT; BEGIN; INSERT INTO {t} (id) VALUES ({0})", UNSURE),
    script("SAVEPOINT a; INSERT INTO {t} (id) VALUES ({0}); ROLLBACK TO SAVEPOINT a", UNSURE),
    script(
        "INSERT INTO {e} (id, begin, \"end\") VALUES (1, 2, 3); INSERT INTO {t} (id) VALUES ({0}); COMMIT; BEGIN",
        PUT,
    ),
    script("INSERT INTO {e} (begin) VALUES (1); BEGIN; INSERT INTO {t} (id) VALUES ({0}); COMMIT", PUT),
    script("SELECT 1 AS begin; INSERT INTO {t} (id) VALUES ({0}); COMMIT; BEGIN", PUT),
    script("SELECT 1 AS begin; BEGIN; INSERT INTO {t} (id) VALUES ({0})", UNSURE),
    script("INSERT INTO {w} ({c}) VALUES ({v}); INSERT INTO {t} (id) VALUES ({0}); COMMIT; BEGIN", PUT),
    script("INSERT INTO {t} (id) VALUES ({0}); INSERT INTO nowhere VALUES (1)", PUT),
    script("INSERT INTO {u} (id) VALUES ({0}); INSERT INTO {u} (id) VALUES ({0})", &[]),
    other("INSERT INTO nowhere VALUES (1)"),
    other("SELEC 1"),
    other("COMMIT"),
    other("ROLLBACK"),
    other("BEGIN"),
    other("/**/ begin"),
    other("SELECT 'COMMIT; BEGIN'"),
    other("CREATE TABLE x{n} (a INT)"),
    other("CREATE TEMPORARY TABLE x{n} (a INT)"),
    query("SELECT id FROM {t}"),
];

fn own(kind: Kind) -> &'static [Entry] {
    match kind {
        Kind::Postgres => postgres::TEXTS,
        Kind::Mysql => mysql::TEXTS,
        Kind::Sqlite => sqlite::TEXTS,
    }
}

/// Set to words with `|` between them, no text has any of them: to look behind what is found already.
const WITHOUT: &str = "MULTIDB_TEST_WITHOUT";

/// A random text for a database of this kind.
pub(super) fn text(rng: &mut Rng, kind: Kind) -> Text {
    static LEFT_OUT: LazyLock<Vec<String>> = LazyLock::new(|| {
        let words = std::env::var(WITHOUT).unwrap_or_default();
        words.split('|').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    });
    loop {
        let text = any(rng, kind);
        if !LEFT_OUT.iter().any(|word| text.sql.contains(word)) {
            return text;
        }
    }
}

fn any(rng: &mut Rng, kind: Kind) -> Text {
    let own = own(kind);
    let at = rng.usize(..ALL.len() + 2 * own.len());
    let entry = ALL.get(at).unwrap_or_else(|| &own[(at - ALL.len()) / 2]);
    let mut text =
        Text { sql: entry.sql.to_owned(), marks: entry.marks.to_vec(), single: entry.single, rows: entry.rows };
    if rng.u8(..8) == 0 {
        let (before, after) = HARMLESS[rng.usize(..HARMLESS.len())];
        text.sql = format!("{before}{}{after}", text.sql);
    }
    if rng.u8(..12) == 0 && text.marks.len() < 2 {
        join(rng, kind, &mut text);
    }
    text
}

/// What may stand around any text.
const HARMLESS: [(&str, &str); 6] = [
    (" \n\t", " ; "),
    ("/* it's \" $$ ` */ ", ""),
    ("-- begin\n", "\n-- end"),
    ("/* BEGIN */", "/* END */"),
    (";;", ";"),
    ("\u{feff}", ""),
];

/// What a text has that handles failures of its own.
const HANDLING: [&str; 3] = [" HANDLER FOR ", "EXCEPTION WHEN", "_and_handle("];

/// Puts another text in front of it.
fn join(rng: &mut Rng, kind: Kind, text: &mut Text) {
    let own = own(kind);
    let first = &own[rng.usize(..own.len())];
    if first.marks.is_empty() {
        text.sql = format!("{}; {}", first.sql, text.sql);
        (text.single, text.rows) = (false, false);
        // What handles its own failures may have put nothing: the text before may lock the table.
        if HANDLING.iter().any(|word| text.sql.contains(word)) {
            text.marks.fill(Mark::Unsure);
        }
    }
}
