//! The keys of a database in the configuration, and what their values must be.

use toml::{Table, Value};

use super::registry::nearest;
use super::url::mask;
use crate::alias::Alias;
use crate::error::{Error, Result};

/// A key, and what it holds.
struct Key(&'static str, Holds);

enum Holds {
    Text,
    Time,
    Number,
    Switch,
    Keys(&'static [Key]),
}

/// The fields of `DatabaseConfig`. Serde knows them too, but its errors name no key, and quote values that may hold a
/// password.
const DATABASE: &[Key] = &[
    Key("url", Holds::Text),
    Key("pool", Holds::Keys(POOL)),
    Key("sqlite", Holds::Keys(SQLITE)),
    Key("prepare_repeated", Holds::Switch),
    Key("same_as", Holds::Text),
];
const POOL: &[Key] = &[
    Key("max_size", Holds::Number),
    Key("min_idle", Holds::Number),
    Key("connection_timeout", Holds::Time),
    Key("idle_timeout", Holds::Time),
    Key("max_lifetime", Holds::Time),
];
const SQLITE: &[Key] = &[
    Key("journal_mode", Holds::Text),
    Key("busy_timeout", Holds::Time),
    Key("synchronous", Holds::Text),
    Key("foreign_keys", Holds::Switch),
];

/// Looks whether all keys of a database are known and hold what they must, and whether the URL is there.
pub(super) fn check(alias: &Alias, table: &Table) -> Result<()> {
    check_keys(alias, "", DATABASE, table)?;
    if table.contains_key("url") {
        return Ok(());
    }
    let remedy = format!("write `url = \"..\"` below its table, a path or a URL, or set `{}`", variable(alias));
    Err(error(alias, "url", "it is missing", remedy))
}

fn check_keys(alias: &Alias, prefix: &str, keys: &[Key], table: &Table) -> Result<()> {
    for (name, value) in table {
        let path = format!("{prefix}{name}");
        let Some(Key(_, holds)) = keys.iter().find(|Key(known, _)| known == name) else {
            return Err(error(alias, &path, "there is no such key", meant(prefix, name, keys)));
        };
        match (holds, value) {
            (Holds::Keys(keys), Value::Table(inner)) => check_keys(alias, &format!("{path}."), keys, inner)?,
            (Holds::Text | Holds::Time, Value::String(_)) | (Holds::Switch, Value::Boolean(_)) => {}
            (Holds::Number, Value::Integer(number)) if u32::try_from(*number).is_ok() => {}
            (Holds::Number, Value::Integer(_)) => {
                return Err(error(alias, &path, "the number is too large or negative", holds.remedy(&path)));
            }
            // Not the value itself: it may be a URL that stands at the wrong key.
            _ => return Err(error(alias, &path, &format!("it is {}", kind(value)), holds.remedy(&path))),
        }
    }
    Ok(())
}

impl Holds {
    fn remedy(&self, path: &str) -> String {
        match self {
            Self::Text => format!("write a text in quotes: `{path} = \"..\"`"),
            Self::Time => format!("write a time in quotes, with its unit: `{path} = \"30s\"`"),
            Self::Number => format!("write a whole number: `{path} = 4`"),
            Self::Switch => format!("write `{path} = true` or `{path} = false`"),
            Self::Keys(keys) => {
                format!("give it keys of its own: `{path}.{}`", names(keys).join(&format!("`, `{path}.")))
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date or a time of day",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// What was probably meant: a key that is spelt alike, or one of this name in another table.
fn meant(prefix: &str, name: &str, keys: &[Key]) -> String {
    let known = names(keys);
    let near = nearest(name, &known).map(|near| format!("{prefix}{near}"));
    let elsewhere = || {
        DATABASE.iter().find_map(|Key(table, holds)| match holds {
            Holds::Keys(keys) if names(keys).contains(&name) => Some(format!("{table}.{name}")),
            _ => names(DATABASE).contains(&name).then(|| name.to_owned()),
        })
    };
    let list = format!("the keys here are `{}`", known.join("`, `"));
    match near.or_else(elsewhere) {
        Some(meant) => format!("did you mean `{meant}`? ({list})"),
        None => format!("remove it ({list})"),
    }
}

fn names(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().map(|Key(name, _)| *name).collect()
}

/// The environment variable of a database's URL.
fn variable(alias: &Alias) -> String {
    match alias.as_str() {
        "default" => "DATABASE_URL".to_owned(),
        alias => format!("DATABASE_URL_{}", mask(alias).to_uppercase()),
    }
}

fn error(alias: &Alias, key: &str, problem: &str, remedy: String) -> Error {
    // A name may be a URL that stands where it shouldn't.
    let (alias, key) = (mask(alias.as_str()).into(), mask(key));
    Error::Config { alias: Some(alias), key: Some(key), problem: problem.to_owned(), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::databases::DatabaseConfig;

    fn problem(text: &str) -> String {
        let table: Table = text.parse().expect("TOML");
        check(&Alias::from("orders"), &table).expect_err("a wrong configuration").to_string()
    }

    #[test]
    fn an_unknown_key_is_told_with_its_alias_and_what_was_meant() {
        for (text, parts) in [
            ("urll = 'a.db'", ["key `urll`", "did you mean `url`?"]),
            ("url = 'a.db'\npol = 1", ["key `pol`", "did you mean `pool`?"]),
            ("url = 'a.db'\npool.maxsize = 1", ["key `pool.maxsize`", "did you mean `pool.max_size`?"]),
            ("url = 'a.db'\nmax_size = 1", ["key `max_size`", "did you mean `pool.max_size`?"]),
            (
                "url = 'a.db'\npool.busy_timeout = '1s'",
                ["key `pool.busy_timeout`", "did you mean `sqlite.busy_timeout`?"],
            ),
            ("url = 'a.db'\nsqlite.url = 'b.db'", ["key `sqlite.url`", "did you mean `url`?"]),
            (
                "url = 'a.db'\ncolour = 'red'",
                ["key `colour`", "`url`, `pool`, `sqlite`, `prepare_repeated`, `same_as`"],
            ),
        ] {
            let told = problem(text);
            for part in parts.into_iter().chain(["database `orders`"]) {
                assert!(told.contains(part), "{part} is missing in: {told}");
            }
        }
    }

    #[test]
    fn a_value_of_another_type_is_told_with_its_key_and_what_to_write() {
        for (text, parts) in [
            ("url = 5", ["key `url`", "it is a whole number", "`url = \"..\"`"]),
            ("url = 'a.db'\npool = 'big'", ["key `pool`", "it is a text", "`pool.max_size`"]),
            ("url = 'a.db'\npool.max_size = 'ten'", ["key `pool.max_size`", "it is a text", "`pool.max_size = 4`"]),
            ("url = 'a.db'\npool.max_size = -1", ["key `pool.max_size`", "negative", "`pool.max_size = 4`"]),
            ("url = 'a.db'\npool.min_idle = 1.5", ["key `pool.min_idle`", "fraction", "whole number"]),
            ("url = 'a.db'\npool.idle_timeout = 5", ["key `pool.idle_timeout`", "a whole number", "\"30s\""]),
            ("url = 'a.db'\nsqlite.foreign_keys = 1", ["key `sqlite.foreign_keys`", "a whole number", "= false"]),
            ("url = 'a.db'\nprepare_repeated = []", ["key `prepare_repeated`", "a list", "= true"]),
            ("url = 'a.db'\nsqlite = 1979-05-27", ["key `sqlite`", "a date", "`sqlite.journal_mode`"]),
        ] {
            let told = problem(text);
            for part in parts.into_iter().chain(["database `orders`"]) {
                assert!(told.contains(part), "{part} is missing in: {told}");
            }
        }
    }

    #[test]
    fn a_missing_url_is_told_with_the_variable_that_would_give_it() {
        let told = problem("pool.max_size = 1");
        assert!(told.contains("key `url`: it is missing") && told.contains("`DATABASE_URL_ORDERS`"), "{told}");
    }

    #[test]
    fn every_key_that_is_known_here_is_one_of_the_configuration_and_the_other_way_round() {
        let mut table = Table::new();
        fill(DATABASE, &mut table);
        check(&Alias::DEFAULT, &table).expect("all keys");
        // Serde refuses a key that it doesn't know.
        let config = table.try_into::<DatabaseConfig>().expect("all keys");
        let pool = format!("{:?} {:?}", config.pool, config.sqlite);
        assert!(config.prepare_repeated.is_some() && !pool.contains("None"), "{pool}");
    }

    fn fill(keys: &[Key], table: &mut Table) {
        for Key(name, holds) in keys {
            let value = match holds {
                Holds::Text => Value::String("wal".to_owned()),
                Holds::Time => Value::String("1s".to_owned()),
                Holds::Number => Value::Integer(1),
                Holds::Switch => Value::Boolean(true),
                Holds::Keys(keys) => {
                    let mut inner = Table::new();
                    fill(keys, &mut inner);
                    Value::Table(inner)
                }
            };
            table.insert((*name).to_owned(), value);
        }
    }
}
