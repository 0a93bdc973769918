//! `databases.toml` and the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use super::across::Across;
use super::builder::DatabasesBuilder;
use super::conninfo::is_conninfo;
use super::database::Kind;
use super::keys;
use super::named::Named;
use super::url::{instead_of, kind_of, mask};
use crate::alias::Alias;
use crate::connection::settings::{PoolSettings, SqliteSettings};
use crate::error::{Error, Result};

/// One database as it stands in the configuration.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    #[serde(skip, default = "unnamed")]
    pub(super) alias: Alias,
    #[serde(skip)]
    pub(super) kind: Option<Kind>,
    /// The variable of the environment, if nothing else names the database.
    #[serde(skip)]
    pub(super) named: Option<Named>,
    url: String,
    /// The pool.
    #[serde(default)]
    pub pool: PoolConfig,
    /// The session, on SQLite.
    #[serde(default)]
    pub sqlite: SqliteConfig,
    /// Whether UPDATEs and upserts are kept prepared from their second use on; on unless set. Switch it off behind a
    /// pooler that can't keep prepared statements.
    #[serde(default)]
    pub prepare_repeated: Option<bool>,
    /// The alias of the same database under another URL, with another user, say: a scope on both has the connection of that
    /// one.
    #[serde(default)]
    pub same_as: Option<String>,
}

/// A pool, in r2d2's words. Times are texts such as `"250ms"`, `"30s"`, `"10m"`, `"1h"`, or `"never"`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// The most connections; 10 unless set.
    #[serde(default)]
    pub max_size: Option<u32>,
    /// How many idle connections are kept ready; 0 unless set.
    #[serde(default)]
    pub min_idle: Option<u32>,
    /// How long a checkout waits; 30 s unless set.
    #[serde(default)]
    pub connection_timeout: Option<String>,
    /// After which time an idle connection is closed; 10 minutes unless set.
    #[serde(default)]
    pub idle_timeout: Option<String>,
    /// After which time a connection is replaced; 30 minutes unless set.
    #[serde(default)]
    pub max_lifetime: Option<String>,
}

/// The session of a SQLite connection.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// `delete`, `truncate`, `persist` or `wal`; the file stays as it is unless set.
    #[serde(default)]
    pub journal_mode: Option<String>,
    /// How long to wait for a lock; 5 s unless set.
    #[serde(default)]
    pub busy_timeout: Option<String>,
    /// `normal`, `full` or `extra`; SQLite's default unless set.
    #[serde(default)]
    pub synchronous: Option<String>,
    /// Whether foreign keys are checked; on unless set.
    #[serde(default)]
    pub foreign_keys: Option<bool>,
}

impl DatabaseConfig {
    /// A database with default settings. The URL's scheme names the backend; without one it is the path of a SQLite file, or
    /// the words that libpq takes, such as `host=db dbname=bank`. A file of such a name is `./host=db`.
    pub fn new(alias: impl Into<Alias>, url: impl Into<String>) -> Self {
        Self {
            alias: alias.into(),
            kind: None,
            named: None,
            url: url.into(),
            pool: PoolConfig::default(),
            sqlite: SqliteConfig::default(),
            prepare_repeated: None,
            same_as: None,
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn kind(&self) -> Result<Kind> {
        let named = kind_of(&self.url).map_err(|problem| self.error(Some("url"), problem, instead_of(&self.url)))?;
        match self.kind {
            // Its user knows that it is a path.
            Some(Kind::Sqlite) if is_conninfo(&self.url) && mask(&self.url) == self.url => Ok(Kind::Sqlite),
            Some(kind) if kind != named && !(kind == Kind::Postgres && self.url.contains('=')) => Err(self.error(
                Some("url"),
                format!("it is a URL of the backend `{}`, not of `{}`", named.feature(), kind.feature()),
                format!("call `.{}(..)`, or correct the URL", named.feature()),
            )),
            Some(kind) => Ok(kind),
            None => Ok(named),
        }
    }

    pub(super) fn pool_settings(&self) -> Result<PoolSettings> {
        let defaults = PoolSettings::default();
        let pool = &self.pool;
        let max_size = pool.max_size.unwrap_or(defaults.max_size);
        let min_idle = pool.min_idle.unwrap_or(defaults.min_idle);
        if max_size == 0 {
            return Err(self.error(
                Some("pool.max_size"),
                "a pool of no connections serves nobody",
                "set it to 1 or more",
            ));
        }
        if min_idle > max_size {
            let problem = format!("{min_idle} is more than `pool.max_size`, {max_size}");
            return Err(self.error(Some("pool.min_idle"), problem, "lower it"));
        }
        let connection_timeout = self.time("pool.connection_timeout", pool.connection_timeout.as_ref())?;
        let idle_timeout = self.time("pool.idle_timeout", pool.idle_timeout.as_ref())?;
        let max_lifetime = self.time("pool.max_lifetime", pool.max_lifetime.as_ref())?;
        let connection_timeout = match connection_timeout {
            Some(None) => {
                let remedy = "give it a limit, such as \"30s\"";
                return Err(self.error(Some("pool.connection_timeout"), "a checkout may not wait for ever", remedy));
            }
            Some(Some(time)) => time,
            None => defaults.connection_timeout,
        };
        Ok(PoolSettings {
            max_size,
            min_idle,
            connection_timeout,
            idle_timeout: idle_timeout.unwrap_or(defaults.idle_timeout),
            max_lifetime: max_lifetime.unwrap_or(defaults.max_lifetime),
        })
    }

    pub(super) fn sqlite_settings(&self) -> Result<SqliteSettings> {
        let defaults = SqliteSettings::default();
        let sqlite = &self.sqlite;
        let busy_timeout = self.time("sqlite.busy_timeout", sqlite.busy_timeout.as_ref())?;
        Ok(SqliteSettings {
            busy_timeout: busy_timeout.flatten().unwrap_or(defaults.busy_timeout),
            journal_mode: self.choice(
                "sqlite.journal_mode",
                sqlite.journal_mode.as_ref(),
                // Not `memory` and `off`: a crash, or even a plain ROLLBACK, would leave half of a transaction.
                &["delete", "truncate", "persist", "wal"],
            )?,
            synchronous: self.choice(
                "sqlite.synchronous",
                sqlite.synchronous.as_ref(),
                &["normal", "full", "extra"],
            )?,
            foreign_keys: sqlite.foreign_keys.unwrap_or(defaults.foreign_keys),
            must_exist: None,
        })
    }

    pub(super) fn error(&self, key: Option<&str>, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Config {
            // Where the two arguments of `.postgres(..)` were swapped, this is a URL.
            alias: Some(mask(self.alias.as_str()).into()),
            key: key.map(str::to_owned),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// `None` where the key is not set, `Some(None)` where it is `"never"`.
    #[expect(clippy::option_option, reason = "not set and never are two things")]
    fn time(&self, key: &str, text: Option<&String>) -> Result<Option<Option<Duration>>> {
        let Some(text) = text else { return Ok(None) };
        if text == "never" {
            return Ok(Some(None));
        }
        let time = parse_time(text).ok_or_else(|| {
            self.error(
                Some(key),
                format!("`{}` is no time", mask(text)),
                "write it as \"250ms\", \"30s\", \"10m\" or \"1h\"",
            )
        })?;
        Ok(Some(Some(time)))
    }

    fn choice(&self, key: &str, text: Option<&String>, among: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(text) = text else { return Ok(None) };
        let found = among.iter().find(|choice| choice.eq_ignore_ascii_case(text));
        found.copied().map(Some).ok_or_else(|| {
            let problem = format!("`{}` is not accepted", mask(text));
            self.error(Some(key), problem, format!("write one of `{}`", among.join("`, `")))
        })
    }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("alias", &mask(self.alias.as_str()))
            .field("url", &mask(&self.url))
            .field("pool", &self.pool)
            .field("sqlite", &self.sqlite)
            .finish_non_exhaustive()
    }
}

// A URL may stand at a wrong key, so no text is shown as it is.
impl fmt::Debug for PoolConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolConfig")
            .field("max_size", &self.max_size)
            .field("min_idle", &self.min_idle)
            .field("connection_timeout", &self.connection_timeout.as_deref().map(mask))
            .field("idle_timeout", &self.idle_timeout.as_deref().map(mask))
            .field("max_lifetime", &self.max_lifetime.as_deref().map(mask))
            .finish()
    }
}

impl fmt::Debug for SqliteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteConfig")
            .field("journal_mode", &self.journal_mode.as_deref().map(mask))
            .field("busy_timeout", &self.busy_timeout.as_deref().map(mask))
            .field("synchronous", &self.synchronous.as_deref().map(mask))
            .field("foreign_keys", &self.foreign_keys)
            .finish()
    }
}

fn unnamed() -> Alias {
    Alias::DEFAULT
}

/// The longest time that a configuration may name: a year.
const TIME_LIMIT: Duration = Duration::from_hours(24 * 366);

fn parse_time(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let time = match unit.trim() {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3_600)?),
        _ => return None,
    };
    (time <= TIME_LIMIT).then_some(time)
}

pub(super) fn from_file(path: &Path) -> Result<DatabasesBuilder> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::config(
            format!("`{}` can't be read: {error}", mask(&path.to_string_lossy())),
            "create it with a table `[default]` that holds a `url`, or give the right path",
        )
    })?;
    let mut tables = parse(&text)?;
    let databases = tables.iter().filter(|(_, value)| value.is_table());
    let file_has: Arc<[String]> = databases.map(|(alias, _)| alias.clone()).collect();
    let variables = overlay(&mut tables, environment())?;
    build(tables, |alias| {
        let variable = variables.get(alias).filter(|_| !file_has.iter().any(|known| known == alias))?;
        Some(Named { variable: Arc::clone(variable), file_has: Some(Arc::clone(&file_has)) })
    })
}

pub(super) fn from_toml(text: &str) -> Result<DatabasesBuilder> {
    build(parse(text)?, |_| None)
}

pub(super) fn from_env() -> Result<DatabasesBuilder> {
    let mut tables = Table::new();
    let variables = overlay(&mut tables, environment())?;
    build(tables, |alias| Some(Named { variable: Arc::clone(variables.get(alias)?), file_has: None }))
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn parse(text: &str) -> Result<Table> {
    text.parse::<Table>().map_err(|error| {
        // Only the message: the rest of the error quotes the line, and the line may hold a password.
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Error::config(format!("line {line} is not TOML: {}", error.message()), "correct the line")
    })
}

/// `named` gives the variable of a database that nothing else names.
fn build(tables: Table, named: impl Fn(&str) -> Option<Named>) -> Result<DatabasesBuilder> {
    let mut builder = DatabasesBuilder::default();
    for (alias, value) in tables {
        let Value::Table(table) = value else {
            if Across::knows(&alias) {
                builder.across.set(&alias, &value)?;
                continue;
            }
            let meant =
                Across::meant(&alias).map_or_else(String::new, |key| format!("did you mean `{key}`? Otherwise "));
            let alias = mask(&alias);
            return Err(Error::Config {
                alias: None,
                key: Some(alias.clone()),
                problem: "it stands outside of any database".into(),
                remedy: format!("{meant}put it below a table such as `[default]`, or write `[{alias}]` with a `url`"),
            });
        };
        let named = named(&alias);
        builder = builder.database(DatabaseConfig { named, ..read(alias, table)? });
    }
    Ok(builder)
}

fn read(alias: String, table: Table) -> Result<DatabaseConfig> {
    let alias = Alias::from(alias);
    keys::check(&alias, &table)?;
    match DatabaseConfig::deserialize(table) {
        Ok(mut config) => {
            config.alias = alias;
            Ok(config)
        }
        // Not the error's text: it quotes values, and one may hold a password.
        Err(_) => Err(Error::Config {
            alias: Some(alias),
            key: None,
            problem: "it can't be read".into(),
            remedy: "correct its keys".into(),
        }),
    }
}

/// Puts what the environment says over the tables of the file. Gives a variable for each database that it names, that of the
/// URL if there is one.
fn overlay(
    tables: &mut Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<BTreeMap<String, Arc<str>>> {
    let mut names = BTreeMap::new();
    let mut set = |tables: &mut Table, name: &str, path: &[String], value: String| -> Result<()> {
        set(tables, name, path, value)?;
        if path.ends_with(&["url".to_owned()]) || !names.contains_key(&path[0]) {
            names.insert(path[0].clone(), Arc::from(name));
        }
        Ok(())
    };
    let mut variables: Vec<(String, String)> = environment.collect();
    // The more exact name wins, whatever order the environment has.
    variables.sort();
    for (name, value) in variables {
        if name == "DATABASE_URL" {
            set(tables, &name, &["default".into(), "url".into()], value)?;
        } else if let Some(alias) = name.strip_prefix("DATABASE_URL_") {
            set(tables, &name, &[alias.to_lowercase(), "url".into()], value)?;
        } else if let Some(path) = name.strip_prefix("MULTIDB_DATABASES__") {
            let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
            set(tables, &name, &path, value)?;
        } else if let Some(key) = name.strip_prefix("MULTIDB_").map(str::to_lowercase)
            && Across::knows(&key)
        {
            tables.insert(key, Value::String(value));
        }
    }
    Ok(names)
}

fn set(tables: &mut Table, variable: &str, path: &[String], value: String) -> Result<()> {
    let malformed = || {
        Error::config(
            format!("the environment variable `{variable}` names no key of a database"),
            "write it as `MULTIDB_DATABASES__ORDERS__URL` or `MULTIDB_DATABASES__ORDERS__POOL__MAX_SIZE`",
        )
    };
    let [tables_path @ .., key] = path else {
        return Err(malformed());
    };
    if tables_path.is_empty() || path.iter().any(String::is_empty) {
        return Err(malformed());
    }
    let mut table = tables;
    for name in tables_path {
        let entry = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(malformed)?;
    }
    let value = match (key.as_str(), value.parse::<i64>(), value.parse::<bool>()) {
        ("url", ..) => Value::String(value),
        (_, Ok(number), _) => Value::Integer(number),
        (_, _, Ok(boolean)) => Value::Boolean(boolean),
        _ => Value::String(value),
    };
    table.insert(key.clone(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str, environment: &[(&str, &str)]) -> Result<Vec<DatabaseConfig>> {
        let mut tables = parse(text)?;
        overlay(&mut tables, environment.iter().map(|(name, value)| ((*name).into(), (*value).into())))?;
        tables.into_iter().map(|(alias, table)| read(alias, table.as_table().cloned().expect("a table"))).collect()
    }

    #[test]
    fn the_environment_overrides_the_file_and_the_exact_name_the_short_one() {
        let configs = read_all(
            "[default]\nurl = \"a.db\"\n[orders]\nurl = \"o.db\"\n",
            &[
                ("MULTIDB_DATABASES__ORDERS__URL", "postgres://exact/o"),
                ("DATABASE_URL_ORDERS", "postgres://short/o"),
                ("MULTIDB_DATABASES__ORDERS__POOL__MAX_SIZE", "3"),
                ("DATABASE_URL_AUDIT", "audit.db"),
                ("HOME", "/root"),
            ],
        )
        .expect("a good configuration");
        let urls: Vec<(&str, &str)> = configs.iter().map(|c| (c.alias.as_str(), c.url.as_str())).collect();
        assert_eq!(urls, [("audit", "audit.db"), ("default", "a.db"), ("orders", "postgres://exact/o")]);
        assert_eq!(configs[2].pool.max_size, Some(3));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_alias_and_key() {
        for text in ["[orders]\nurl = \"o.db\"\nurll = 1\n", "[orders]\nurl = \"o.db\"\n[orders.pool]\nmaxsize = 1\n"] {
            let error = read_all(text, &[]).expect_err("an unknown key").to_string();
            assert!(error.contains("`orders`") && (error.contains("urll") || error.contains("maxsize")), "{error}");
        }
    }

    #[test]
    fn a_password_is_in_no_error_of_the_configuration() {
        let bad_line = read_all("[a]\nurl = \"postgres://me:s3cret@h/d\" oops\n", &[]).expect_err("bad TOML");
        assert!(!format!("{bad_line} {bad_line:?}").contains("s3cret"), "{bad_line:?}");
        let config = DatabaseConfig::new("a", "oracle://me:s3cret@h/d");
        let bad_scheme = config.kind().expect_err("an unknown scheme");
        assert!(!format!("{config:?} {bad_scheme} {bad_scheme:?}").contains("s3cret"), "{bad_scheme:?}");
    }

    #[test]
    fn times_are_read_with_their_unit_and_not_without() {
        assert_eq!(parse_time("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_time("10m"), Some(Duration::from_mins(10)));
        for bad in ["", "5", "s", "-5s", "5 weeks", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(parse_time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn pools_that_could_not_work_are_refused() {
        let mut config = DatabaseConfig::new("a", "a.db");
        config.pool.max_size = Some(0);
        assert!(config.pool_settings().is_err());
        config.pool.max_size = Some(2);
        config.pool.min_idle = Some(3);
        assert!(config.pool_settings().is_err());
        config.pool.min_idle = Some(1);
        config.pool.connection_timeout = Some("never".into());
        assert!(config.pool_settings().is_err());
    }
}
