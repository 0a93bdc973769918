//! Pragmas that SQLite ignores inside of a transaction without a word.

use diesel::result::QueryResult;

use super::backend::Dialect;
use super::text::Syntax;
use crate::alias::Alias;
use crate::error::Error;

/// A pragma that a transaction keeps from changing, and what to do in its place.
struct Ineffective {
    name: &'static str,
    remedy: &'static str,
    /// Whether it is ignored always, and not only once the transaction has written.
    always: bool,
    /// Asks what it is now. The name of the file's schema stands in its place.
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
        always: true,
        asks: "SELECT CAST(foreign_keys AS TEXT) AS a, NULL AS b, NULL AS c FROM pragma_foreign_keys",
        reads: |value| u8::from(is_on(value)).to_string(),
    },
    Ineffective {
        name: "journal_mode",
        remedy: "set `sqlite.journal_mode` in the configuration, or do it outside of any scope",
        always: false,
        asks: "SELECT journal_mode AS a, NULL AS b, NULL AS c FROM pragma_journal_mode('{schema}')",
        reads: str::to_lowercase,
    },
];

/// One of them that a text sets.
struct Setting {
    pragma: &'static Ineffective,
    schema: String,
    value: String,
}

impl Setting {
    /// An error unless the pragma has the value.
    fn compare<B: Dialect>(&self, raw: &mut B::Raw, database: &Alias) -> QueryResult<()> {
        let Ineffective { name: pragma, remedy, asks, reads, .. } = *self.pragma;
        let asked = asks.replace("{schema}", &self.schema.replace('\'', "''"));
        let now = B::ask(raw, &asked, &[])?.into_iter().find_map(|row| row.a);
        if now.as_deref() == Some(&reads(&self.value)) {
            return Ok(());
        }
        Err(Error::IneffectivePragma { database: database.clone(), pragma, remedy }.into())
    }
}

/// As SQLite reads it: any number but 0, and these words.
fn is_on(value: &str) -> bool {
    match value.parse::<i64>() {
        Ok(number) => number != 0,
        Err(_) => ["on", "yes", "true"].contains(&value.to_lowercase().as_str()),
    }
}

/// Refuses a text that sets a pragma which would be ignored, if a transaction is open, be it one of the text's. Setting it to
/// the value that it has is harmless.
pub fn refuse_ignored<B: Dialect>(
    raw: &mut B::Raw,
    database: &Alias,
    in_transaction: bool,
    sql: &str,
) -> QueryResult<()> {
    if B::SYNTAX != Syntax::Sqlite {
        return Ok(());
    }
    let mut settings = settings(sql, in_transaction).into_iter().filter(|setting| setting.pragma.always);
    settings.try_for_each(|setting| setting.compare::<B>(raw, database))
}

/// Looks after a text in a transaction whether it has set what may have been ignored.
pub fn refuse_unchanged<B: Dialect>(raw: &mut B::Raw, database: &Alias, sql: &str) -> QueryResult<()> {
    if B::SYNTAX != Syntax::Sqlite {
        return Ok(());
    }
    let mut settings = settings(sql, true).into_iter().filter(|setting| !setting.pragma.always);
    settings.try_for_each(|setting| setting.compare::<B>(raw, database))
}

/// The pragmas of the list that a text sets in a transaction, with their values.
fn settings(sql: &str, mut in_transaction: bool) -> Vec<Setting> {
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
        } else if is(0, "commit")
            || is(0, "end")
            || is(0, "rollback") && !statement.iter().any(|word| word.eq_ignore_ascii_case("to"))
        {
            in_transaction = false;
        } else if in_transaction && is(0, "pragma") {
            // A schema may stand before the name.
            let name = if is(2, ".") { 3 } else { 1 };
            let sets = is(name + 1, "=") || is(name + 1, "(");
            let ineffective = INEFFECTIVE.iter().find(|ineffective| is(name, ineffective.name));
            if let (true, Some(pragma), Some(value)) = (sets, ineffective, statement.get(name + 2)) {
                let schema = if name == 3 { &statement[1] } else { "main" };
                found.push(Setting { pragma, schema: schema.to_owned(), value: value.clone() });
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
            assert_eq!(settings(sql, true).first().map(|found| found.value.as_str()), Some(value), "{sql}");
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
            "COMMIT; PRAGMA foreign_keys = OFF",
        ] {
            assert!(settings(sql, true).is_empty(), "{sql}");
        }
    }
}
