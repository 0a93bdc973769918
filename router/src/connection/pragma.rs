//! Pragmas that SQLite ignores inside of a transaction without a word.

use diesel::result::QueryResult;

use super::backend::Dialect;
use super::text::Syntax;
use crate::alias::Alias;
use crate::error::Error;

/// A pragma that changes nothing while a transaction is open, and what to do in its place.
struct Ineffective {
    name: &'static str,
    remedy: &'static str,
    /// What it is set to now.
    asks: &'static str,
    /// The value as that question gives it.
    reads: fn(&str) -> String,
}

const INEFFECTIVE: &[Ineffective] = &[
    Ineffective {
        name: "foreign_keys",
        remedy: "rebuild tables in a migration of `Databases::migrate`, which switches it off and looks for broken keys; defer \
                 the checks of one transaction by `PRAGMA defer_foreign_keys = ON`; or set `sqlite.foreign_keys` in the \
                 configuration",
        asks: "SELECT CAST(foreign_keys AS TEXT) AS a, NULL AS b, NULL AS c FROM pragma_foreign_keys",
        reads: |value| u8::from(is_on(value)).to_string(),
    },
    Ineffective {
        name: "journal_mode",
        remedy: "set `sqlite.journal_mode` in the configuration, or do it outside of any scope",
        asks: "SELECT journal_mode AS a, NULL AS b, NULL AS c FROM pragma_journal_mode",
        reads: str::to_lowercase,
    },
];

/// As SQLite reads it: any number but 0, and these words.
fn is_on(value: &str) -> bool {
    match value.parse::<i64>() {
        Ok(number) => number != 0,
        Err(_) => ["on", "yes", "true"].contains(&value.to_lowercase().as_str()),
    }
}

/// Refuses a text that sets such a pragma to another value than it has, if a transaction is open, be it one of the text's.
pub fn refuse_ineffective<B: Dialect>(
    raw: &mut B::Raw,
    database: &Alias,
    in_transaction: bool,
    sql: &str,
) -> QueryResult<()> {
    if B::SYNTAX != Syntax::Sqlite {
        return Ok(());
    }
    for (ineffective, value) in settings(sql, in_transaction) {
        let now = B::ask(raw, ineffective.asks, &[])?.into_iter().find_map(|row| row.a);
        if now.as_deref() != Some(&(ineffective.reads)(&value)) {
            let Ineffective { name, remedy, .. } = *ineffective;
            return Err(Error::IneffectivePragma { database: database.clone(), pragma: name, remedy }.into());
        }
    }
    Ok(())
}

/// The pragmas of the list that a text sets in a transaction, with their values.
fn settings(sql: &str, mut in_transaction: bool) -> Vec<(&'static Ineffective, String)> {
    const PRAGMA: &[u8] = b"pragma";
    // Most texts hold no such word.
    if !sql.as_bytes().windows(PRAGMA.len()).any(|word| word.eq_ignore_ascii_case(PRAGMA)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for statement in words(sql).split(|word| word == ";") {
        let is = |at: usize, word: &str| statement.get(at).is_some_and(|found| found.eq_ignore_ascii_case(word));
        if is(0, "begin") || is(0, "savepoint") {
            in_transaction = true;
        } else if in_transaction && is(0, "pragma") {
            // A schema may stand before the name.
            let name = if is(2, ".") { 3 } else { 1 };
            let sets = is(name + 1, "=") || is(name + 1, "(");
            let ineffective = INEFFECTIVE.iter().find(|ineffective| is(name, ineffective.name));
            if let (true, Some(ineffective), Some(value)) = (sets, ineffective, statement.get(name + 2)) {
                found.push((ineffective, value.clone()));
            }
        }
    }
    found
}

/// The words and signs of a text, without comments, and quoted ones without their quotes.
fn words(sql: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), sql);
    let is_word = |letter: char| letter.is_alphanumeric() || "_-+$".contains(letter);
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        let until = |end: &str| after.find(end).map_or(rest.len(), |at| first.len_utf8() + at + end.len());
        let length = match first {
            '-' if after.starts_with('-') => until("\n"),
            '/' if after.starts_with('*') => after[1..].find("*/").map_or(rest.len(), |at| at + 4),
            '\'' | '"' | '`' | '[' => {
                let length = until(if first == '[' { "]" } else { &rest[..1] });
                words.push(rest.get(1..length - 1).unwrap_or_default().to_owned());
                length
            }
            first if is_word(first) => {
                let length = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
                words.push(rest[..length].to_owned());
                length
            }
            first => {
                if !first.is_whitespace() {
                    words.push(first.to_string());
                }
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pragma_is_found_where_it_would_be_ignored() {
        for (sql, value) in [
            ("PRAGMA foreign_keys = OFF", "OFF"),
            ("pragma main.Foreign_Keys(0);", "0"),
            ("SELECT 1; /* why */ PRAGMA\n\"foreign_keys\"='off' -- so", "off"),
            ("PRAGMA journal_mode=wal", "wal"),
        ] {
            assert_eq!(settings(sql, true).first().map(|found| found.1.as_str()), Some(value), "{sql}");
            assert!(settings(sql, false).is_empty(), "{sql}");
            assert_eq!(settings(&format!("BEGIN; {sql}"), false).len(), 1, "{sql}");
        }
        for sql in [
            "PRAGMA foreign_keys",
            "PRAGMA defer_foreign_keys = ON",
            "SELECT 'PRAGMA foreign_keys = OFF'",
            "-- PRAGMA foreign_keys = OFF",
            "/* PRAGMA foreign_keys = OFF */ SELECT '",
            "SELECT 1 [",
            "PRAGMA foreign_keys =",
            "INSERT INTO pragma VALUES (1)",
        ] {
            assert!(settings(sql, true).is_empty(), "{sql}");
        }
    }
}
