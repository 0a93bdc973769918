//! PostgreSQL.

mod session;

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, Connection, SimpleConnection, TransactionManager};
use diesel::pg::{Pg, PgConnection, PgMetadataLookup};
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::query_builder::{CollectedQuery, MoveableBindCollector, QueryFragment};
use diesel::result::{ConnectionError, QueryResult};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

use super::backend::{Dialect, Names, collect};
use super::born::Born;
use super::characteristics::{Characteristics, Lock};
use super::check::{Shortcoming, number, text};
use super::control::{BRANCH_IDLE_LIMIT, CROSS_LOCK_WAIT, Control, Start, savepoint};
use super::own::{TextRow, Words, own_statements};
use super::settings::Settings;
use super::text::Syntax;
use crate::databases::conninfo;

/// PostgreSQL: the backend of [`PgConn`](crate::PgConn).
#[derive(Debug, Clone, Copy)]
pub enum Postgres {}

/// For a transaction that was begun inside another one: lock waits end after 5 s where they would never end. The odd
/// number tells this limit from one of the user's.
const LIMIT_LOCKS: &str = "SELECT pg_catalog.set_config('lock_timeout', '5001ms', true) WHERE \
                           pg_catalog.current_setting('lock_timeout') OPERATOR(pg_catalog.=) '0'";
/// A body may have deferred a constraint, or have lowered `synchronous_commit`.
const DECIDE: &str = "SET CONSTRAINTS ALL IMMEDIATE; SELECT pg_catalog.set_config('synchronous_commit', 'on', true) WHERE \
                      pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) ANY (ARRAY['off', 'local', \
                      'remote_write'])";
/// Takes that limit away again.
const FREE_LOCKS: &str = "SELECT pg_catalog.set_config('lock_timeout', '0', true) WHERE \
                          pg_catalog.current_setting('lock_timeout') OPERATOR(pg_catalog.=) '5001ms'";
/// A write that is committed only where it is replicated. `statement_timeout` doesn't end a COMMIT's wait for a standby, but
/// does within a DO. The COMMIT then succeeds all the same, and only the time tells.
const CONFIRM: [&str; 3] = [
    "SET statement_timeout = '2s'",
    "DO $$ BEGIN SET LOCAL synchronous_commit = 'on'; \
     UPDATE multidb_meta SET environment = environment; COMMIT; IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) \
     (pg_catalog.statement_timestamp() OPERATOR(pg_catalog.+) interval '2s') THEN RAISE EXCEPTION 'no standby has confirmed a write'; END IF; END $$",
    "RESET statement_timeout",
];

/// What a transaction can't hold that is to be prepared, by the server's words, and what to do.
const UNPREPARED: &[(&str, &str)] = &[
    ("NOTIFY", "send NOTIFY after the commit, from `on_commit`, and LISTEN on a connection of its own"),
    ("WITH HOLD", "declare the cursor WITHOUT HOLD, and read it before the scope ends"),
    ("temporary", "use an ordinary table, or a scope of its own for temporary ones (`propagation = requires_new`)"),
    ("snapshot", "export the snapshot in a scope of its own (`propagation = requires_new`)"),
    ("locks", "take one kind of advisory lock on an object: that of the transaction, by `pg_advisory_xact_lock`"),
];

/// What to do about anything else.
const ALONE: &str =
    "do that in a scope of its own (`propagation = requires_new`), or after the commit, from `on_commit`";

/// The library's own tables.
const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// A network that drops packets closes no connection, and the system would wait for two hours. Such a connection fails after a
/// minute: whoever waits on it is told, and its pool isn't emptied by the next ones.
const SILENCE: [&str; 4] =
    ["keepalives_idle=30", "keepalives_interval=10", "keepalives_count=3", "tcp_user_timeout=60000"];

/// The URL, or the words that libpq takes in its place, with limits for a silent network, unless it names some itself.
fn noticing_silence(url: &str) -> Cow<'_, str> {
    let names = |name: &str| name.starts_with("keepalives") || name == "tcp_user_timeout";
    let Some((_, address)) = url.split_once("://").filter(|_| !conninfo::is_conninfo(url)) else {
        let words = conninfo::words(url).unwrap_or_default();
        if words.is_empty() || words.into_iter().any(|word| names(&url[word.name])) {
            return url.into();
        }
        // In front of them, since a backslash at the end would take what follows for its own.
        return format!("{} {url}", SILENCE.join(" ")).into();
    };
    // As libpq reads it: a password may hold a question mark.
    let user_ends = address.find(['@', '/']).filter(|at| address[*at..].starts_with('@')).map_or(0, |at| at + 1);
    let Some((_, parameters)) = address[user_ends..].split_once('?') else {
        return format!("{url}?{}", SILENCE.join("&")).into();
    };
    if parameters.split('&').any(|parameter| names(parameter.split('=').next().unwrap_or_default())) {
        return url.into();
    }
    let separator = if parameters.is_empty() || parameters.ends_with('&') { "" } else { "&" };
    format!("{url}{separator}{}", SILENCE.join("&")).into()
}

/// The cluster and the database in it: a copy that was made by a dump has others.
macro_rules! server {
    () => {
        "pg_catalog.concat((SELECT system_identifier FROM pg_catalog.pg_control_system()), '/', (SELECT oid FROM \
         pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))"
    };
}

/// The timeline, which a promotion ends.
macro_rules! incarnation {
    () => {
        "(CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE \
         pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END)"
    };
}

impl Dialect for Postgres {
    type Native = Pg;
    type Raw = PgConnection;
    type Binds = <RawBytesBindCollector<Pg> as MoveableBindCollector<Pg>>::BindData;

    const NATIVE: Pg = Pg;
    const NAMES: Names = Names { backend: "PostgreSQL", handle: "PgConn" };
    const LOCAL_LOCK_LIMIT: Option<[&str; 2]> = Some([LIMIT_LOCKS, FREE_LOCKS]);
    const SYNTAX: Syntax = Syntax::Postgres;
    // Undone again: it would leave all constraints immediate, and nothing but that knows which of them were.
    #[cfg(feature = "testing")]
    const CHECK_DEFERRED: &str = "SAVEPOINT multidb_check; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO SAVEPOINT \
                                  multidb_check; RELEASE SAVEPOINT multidb_check; ";
    // `SET TRANSACTION READ WRITE` is refused once a query has taken a snapshot.
    const KEEPS_READ_ONLY: Option<&str> = Some("SELECT 1");
    const DEFERS_RELEASE: bool = true;
    const LOCK_LIMIT: Option<[&str; 2]> = Some([
        "SELECT pg_catalog.set_config('lock_timeout', '5s', false) WHERE pg_catalog.current_setting('lock_timeout') \
         OPERATOR(pg_catalog.=) '0'",
        "RESET lock_timeout",
    ]);

    const WORDS: Words = Words {
        now: "CAST(EXTRACT(EPOCH FROM pg_catalog.clock_timestamp()) AS BIGINT)",
        insert_new: ["INSERT INTO", "ON CONFLICT DO NOTHING"],
        now_committed: "",
        text: "CAST(? AS pg_catalog.text)",
        if_written: "WHERE pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL",
        numbered: true,
    };
    const IDENTITY: [&str; 3] = [
        concat!(
            "SELECT pg_catalog.concat(database_id, '|', environment, '|', incarnation, '|', server) AS a, pg_catalog.concat(",
            server!(),
            ", '|fsync=', pg_catalog.current_setting('fsync'), '|full_page_writes=', \
             pg_catalog.current_setting('full_page_writes')) AS b, ",
            incarnation!(),
            " AS c FROM multidb_meta"
        ),
        concat!(
            "{insert} multidb_meta (id, database_id, environment, server, incarnation, forgotten_up_to) SELECT 1, {text}, \
             {text}, ",
            server!(),
            ", ",
            incarnation!(),
            ", '' {or_nothing}"
        ),
        concat!(
            "UPDATE multidb_meta SET environment = ?, server = ",
            server!(),
            ", incarnation = CASE WHEN pg_catalog.starts_with(incarnation, ",
            incarnation!(),
            ") THEN incarnation ELSE pg_catalog.left(pg_catalog.concat(",
            incarnation!(),
            ", '<', incarnation), 62) END"
        ),
    ];
    const INCARNATIONS_GROW: bool = true;
    const DURABLE: &[(&str, &str)] = &[("fsync", "on"), ("full_page_writes", "on")];
    const PROBE: &str = "BEGIN ISOLATION LEVEL read committed READ WRITE; SET LOCAL lock_timeout = '{wait}s'";
    const LEVELS_CAN_BE_READ_ONLY: bool = true;

    fn lacks(characteristics: &Characteristics) -> Option<&'static str> {
        match characteristics.lock {
            Lock::Usual => None,
            Lock::Immediate => Some("immediate"),
            Lock::Exclusive => Some("exclusive"),
        }
    }

    fn born(raw: &mut PgConnection) -> QueryResult<Born> {
        session::born(raw)
    }

    fn step_in(raw: &mut PgConnection, born: &Born, local: bool) -> QueryResult<TextRow> {
        session::step_in(raw, born, local)
    }

    fn step_out(raw: &mut PgConnection, _born: &Born, before: &TextRow, local: bool) -> QueryResult<()> {
        session::step_out(raw, before, local)
    }

    const FIRE: &str = "SET CONSTRAINTS ALL IMMEDIATE";

    fn put_back(raw: &mut PgConnection, born: &Born) -> QueryResult<Option<String>> {
        session::put_back(raw, born)
    }

    fn make_in(raw: &mut PgConnection, born: &Born) -> QueryResult<()> {
        session::make_in(raw, born)
    }

    fn connect(settings: &Settings) -> Result<PgConnection, ConnectionError> {
        PgConnection::establish(&noticing_silence(&settings.url))
    }

    fn write(control: Control<'_>, sql: &mut String) {
        let written = match control {
            Control::Begin(start) => begin(start, sql),
            Control::Across(name) => across(name, sql),
            Control::Narrow { to, .. } => {
                let read_only = if to.read_only { "SET TRANSACTION READ ONLY" } else { "" };
                let separator = if to.read_only && to.timeout.is_some() { "; " } else { "" };
                write!(sql, "{read_only}{separator}").and_then(|()| limit_statements(to.timeout, sql))
            }
            // The end of a level undoes READ ONLY, and ROLLBACK TO undoes everything.
            Control::Widen { undone: true, .. } => Ok(()),
            Control::Widen { to, .. } if to.timeout.is_some() => limit_statements(to.timeout, sql),
            Control::Widen { .. } => sql.write_str("SET LOCAL statement_timeout TO DEFAULT"),
            Control::Savepoint(level) => write!(sql, "SAVEPOINT {}", savepoint(level)),
            Control::Release(level) => write!(sql, "RELEASE SAVEPOINT {}", savepoint(level)),
            Control::RollbackTo(level) => write!(sql, "ROLLBACK TO SAVEPOINT {}", savepoint(level)),
            Control::Decide(_) => sql.write_str(DECIDE),
            Control::Commit(_) => sql.write_str("COMMIT"),
            Control::Rollback(_) => sql.write_str("ROLLBACK"),
            // A bare PREPARE of an aborted transaction answers success and rolls back; a RESET there fails. This one also
            // takes a role back that a trigger has left: the server lets only that role finish the branch.
            Control::Prepare(gid) => write!(sql, "RESET ROLE; PREPARE TRANSACTION {}", gid.postgres()),
            Control::CommitPrepared(gid) => write!(sql, "COMMIT PREPARED {}", gid.postgres()),
            Control::RollbackPrepared(gid) => write!(sql, "ROLLBACK PREPARED {}", gid.postgres()),
        };
        written.expect("a String takes everything");
    }

    #[inline]
    fn fixed(control: Control<'_>) -> Option<&'static str> {
        match control {
            Control::Begin(start)
                if start.characteristics.is_plain() && !start.lock_limit && start.across.is_none() =>
            {
                Some("BEGIN")
            }
            Control::Commit(_) => Some("COMMIT"),
            _ => None,
        }
    }

    fn begins_at_once(start: &Start) -> bool {
        !start.lock_limit && start.across.is_none() && start.characteristics.limits.timeout.is_none()
    }

    fn refresh(raw: &mut PgConnection) {
        // A COPY that fails after its first row ends like a complete one, as Diesel reads it. COMMIT of the aborted
        // transaction would then answer success. Any statement makes Diesel ask; a failure of this one is what it sees.
        let _ = raw.batch_execute("SELECT 1");
    }

    fn alive(raw: &mut PgConnection) -> bool {
        // Diesel asks libpq after most statements, but not where preparing a query has failed. So it is made to ask once
        // more: an empty text is refused by Diesel, does nothing on the server, and may stand in an aborted transaction.
        let _ = raw.batch_execute("");
        AnsiTransactionManager::transaction_manager_status_mut(raw).transaction_depth().is_ok()
    }

    // Its commits don't wait for a standby, which nothing could end: `confirm` does, with a limit.
    const SURVEY: &str = "SET synchronous_commit = 'local'; SET lock_timeout = '5s'";

    fn confirm(raw: &mut PgConnection, born: &Born) -> QueryResult<()> {
        let asked = "SELECT pg_catalog.current_setting('synchronous_standby_names') AS a, NULL AS b, NULL AS c";
        if Self::ask(raw, asked, &[])?.iter().all(|row| text(row).is_empty()) {
            return Ok(());
        }
        raw.batch_execute(CONFIRM[0])?;
        let confirmed = raw.batch_execute(&Self::WORDS.write(born, 0, CONFIRM[1]));
        raw.batch_execute(CONFIRM[2])?;
        confirmed
    }

    fn prepared(raw: &mut PgConnection) -> QueryResult<Vec<(String, String)>> {
        let asked = "SELECT gid AS a, NULL AS b, NULL AS c FROM pg_catalog.pg_prepared_xacts WHERE database = \
                     pg_catalog.current_database() AND pg_catalog.starts_with(gid, 'm1_')";
        let found = Self::ask(raw, asked, &[])?.into_iter().filter_map(|row| row.a);
        Ok(found.filter_map(|gid| gid.split_once(':').map(|(global, branch)| (global.into(), branch.into()))).collect())
    }

    fn shortcomings(raw: &mut PgConnection, born: &Born, settings: &Settings) -> QueryResult<Vec<Shortcoming>> {
        let mut found = Vec::new();
        // As a new session has them: this one may have its own.
        let asked = "SELECT name AS a, reset_val AS b, NULL AS c FROM pg_catalog.pg_settings WHERE name IN ('fsync', 'full_page_writes', \
                     'lc_messages', 'max_prepared_transactions', 'server_version_num', 'synchronous_commit')";
        for row in Self::ask(raw, asked, &[])? {
            let value = row.b.clone().unwrap_or_default();
            let english = ["en", "C", "POSIX"].iter().any(|begin| value.starts_with(begin)) || value.is_empty();
            let (wanted, why) = match text(&row) {
                "max_prepared_transactions" if number(&row) < u64::from(settings.pool.max_size) => {
                    (format!("at least {}, the size of the pool (then restart)", settings.pool.max_size), PREPARES)
                }
                "synchronous_commit" if value == "off" => ("`on`".into(), DURABILITY),
                "server_version_num" if number(&row) < OLDEST => (format!("{OLDEST} or newer"), VERSION),
                "lc_messages" if !english => ("`en_US.UTF-8` (`ALTER ROLE .. SET lc_messages`)".into(), LANGUAGE),
                name if Self::DURABLE.iter().any(|(durable, should)| *durable == name && *should != value) => {
                    ("`on`".into(), DURABILITY)
                }
                _ => continue,
            };
            found.push(Shortcoming::new(text(&row), format!("`{value}`"), wanted, why));
        }
        let asked = "SELECT relname::pg_catalog.text AS a, NULL AS b, NULL AS c FROM pg_catalog.pg_class WHERE \
                     pg_catalog.starts_with(relname, 'multidb_') AND relkind = 'r' AND relnamespace = (SELECT oid FROM \
                     pg_catalog.pg_namespace WHERE nspname = $1) AND NOT (pg_catalog.has_table_privilege(oid, 'SELECT') \
                     AND pg_catalog.has_table_privilege(oid, 'INSERT') AND pg_catalog.has_table_privilege(oid, 'UPDATE') \
                     AND pg_catalog.has_table_privilege(oid, 'DELETE'))";
        for row in Self::ask(raw, asked, &[born.schema.as_deref().unwrap_or_default()])? {
            let wanted = "granted SELECT, INSERT, UPDATE and DELETE to this role";
            found.push(Shortcoming::new(text(&row), "not granted", wanted, PRIVILEGES));
        }
        Ok(found)
    }

    fn prepares(raw: &mut PgConnection) -> QueryResult<Option<bool>> {
        let asked = "SELECT pg_catalog.current_setting('max_prepared_transactions') AS a, NULL AS b, NULL AS c";
        let found = Self::ask(raw, asked, &[])?;
        Ok(found.first().and_then(|row| row.a.as_deref()).map(|most| most != "0"))
    }

    fn finds_leftover(raw: &mut PgConnection) -> bool {
        // libpq knows of the transaction, Diesel doesn't: the two disagree, and Diesel takes the connection for broken.
        !Self::alive(raw)
    }

    // Not a savepoint: within one `pg_export_snapshot` is refused, for one.
    fn mark(number: u64) -> Cow<'static, str> {
        format!("SET LOCAL multidb.mark = '{number}'").into()
    }

    fn is_marked(raw: &mut PgConnection, number: u64) -> QueryResult<bool> {
        let asked = "SELECT pg_catalog.current_setting('multidb.mark', true) AS a, NULL AS b, NULL AS c";
        Ok(Self::ask(raw, asked, &[])?.iter().any(|row| text(row) == number.to_string()))
    }

    // As DISCARD ALL, but for the prepared statements, which Diesel knows by their names. The settings are Diesel's own.
    fn renewal(_settings: &Settings) -> Option<String> {
        let sql = "RESET SESSION AUTHORIZATION; RESET ALL; SET TIME ZONE 'UTC'; SET CLIENT_ENCODING TO 'UTF8'; CLOSE ALL; UNLISTEN *; \
                   SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";
        Some(sql.into())
    }

    fn commit_may_have_happened(_message: &str) -> bool {
        false
    }

    fn not_prepared(message: &str) -> Option<&'static str> {
        // The keyword is the same in every language; the texts about its limits have it in small letters.
        if !message.contains("PREPARE") {
            return None;
        }
        let known = UNPREPARED.iter().find(|(words, _)| message.contains(words));
        Some(known.map_or(ALONE, |(_, remedy)| remedy))
    }

    own_statements!(Pg, PgConnection, ());

    fn collect_binds<T: QueryFragment<Pg>>(raw: &mut PgConnection, statement: &T) -> QueryResult<Self::Binds> {
        let lookup: &mut dyn PgMetadataLookup = raw;
        collect(statement, lookup, &Pg)
    }

    fn execute_prepared(raw: &mut PgConnection, sql: String, binds: Self::Binds) -> QueryResult<usize> {
        raw.execute_returning_count(&CollectedQuery::new(sql, true, binds))
    }
}

fn begin(start: &Start, sql: &mut String) -> fmt::Result {
    sql.write_str("BEGIN")?;
    let Characteristics { isolation, deferrable, limits, .. } = start.characteristics;
    if let Some(isolation) = isolation {
        write!(sql, " ISOLATION LEVEL {}", isolation.sql())?;
    }
    if limits.read_only {
        sql.write_str(" READ ONLY")?;
    }
    if deferrable {
        sql.write_str(" DEFERRABLE")?;
    }
    if limits.timeout.is_some() {
        sql.write_str("; ")?;
        limit_statements(limits.timeout, sql)?;
    }
    if let Some(joint) = &start.across {
        sql.write_str("; ")?;
        return across(&joint.name, sql);
    }
    if start.lock_limit { write!(sql, "; {LIMIT_LOCKS}") } else { Ok(()) }
}

/// The limits of a branch, never looser than the user's own, and the name that a wait graph shows.
fn across(name: &str, sql: &mut String) -> fmt::Result {
    let limit = |setting: &str, limit: u64, sql: &mut String| {
        write!(
            sql,
            "pg_catalog.set_config('{setting}', CASE WHEN pg_catalog.current_setting('{setting}')::interval \
             OPERATOR(pg_catalog.>=) '1ms' AND pg_catalog.current_setting('{setting}')::interval OPERATOR(pg_catalog.<=) \
             '{limit}s' THEN pg_catalog.current_setting('{setting}') ELSE '{limit}s' END, true), "
        )
    };
    sql.write_str("SELECT ")?;
    limit("lock_timeout", CROSS_LOCK_WAIT.as_secs(), sql)?;
    limit("idle_in_transaction_session_timeout", BRANCH_IDLE_LIMIT.as_secs(), sql)?;
    // The server cuts it to 63 bytes. Of the user's it holds a function's name alone.
    write!(sql, "pg_catalog.set_config('application_name', '{name}', true)")
}

/// The server's limit for a single statement, until the transaction ends.
fn limit_statements(timeout: Option<Duration>, sql: &mut String) -> fmt::Result {
    let Some(timeout) = timeout else { return Ok(()) };
    // 0 would be no limit, and the server takes no more than this.
    let milliseconds = timeout.as_millis().clamp(1, i32::MAX.unsigned_abs().into());
    write!(sql, "SET LOCAL statement_timeout = {milliseconds}")
}

/// The oldest version that tells whether a transaction has written.
const OLDEST: u64 = 130_000;
const PREPARES: &str = "a transaction over several databases needs one for each that is under way";
const VERSION: &str = "older ones don't tell whether a transaction has written";
const LANGUAGE: &str = "the class of some errors is found by their English texts, and without it nothing is retried";
const DURABILITY: &str = "a confirmed commit could be lost by a crash, on one database alone";
const PRIVILEGES: &str = "the decision about a transaction could not be written or cleaned";

/// Whether migrations that must run outside of a transaction can be kept apart too.
const LOCKS_ALWAYS: bool = true;

/// Keeps others from running migrations at the same time, for a minute at most.
fn lock_schema(raw: &mut PgConnection) -> QueryResult<()> {
    raw.batch_execute(
        "SET lock_timeout = '60s'; SELECT pg_advisory_lock(hashtext('multidb'), hashtext(current_schema()))",
    )
}

fn unlock_schema(raw: &mut PgConnection) -> QueryResult<()> {
    raw.batch_execute("SELECT pg_advisory_unlock_all()")
}

#[cfg(test)]
mod tests {
    use super::noticing_silence;

    #[test]
    fn limits_for_a_silent_network_are_given_to_an_address_that_names_none() {
        let (words, query) = (super::SILENCE.join(" "), super::SILENCE.join("&"));
        for (url, expected) in [
            ("postgres://h/d", format!("postgres://h/d?{query}")),
            ("postgres://h/d?", format!("postgres://h/d?{query}")),
            ("postgres://h/d?sslmode=off", format!("postgres://h/d?sslmode=off&{query}")),
            ("postgres://h/d?sslmode=off&", format!("postgres://h/d?sslmode=off&{query}")),
            // A word that is no parameter's name.
            ("postgres://me:p?w@h/d", format!("postgres://me:p?w@h/d?{query}")),
            ("postgres://me:keepalives@h/d", format!("postgres://me:keepalives@h/d?{query}")),
            (
                "postgres://h/d?application_name=keepalives",
                format!("postgres://h/d?application_name=keepalives&{query}"),
            ),
            ("host=h password=a\\", format!("{words} host=h password=a\\")),
            ("host=h password='tcp_user_timeout=1'", format!("{words} host=h password='tcp_user_timeout=1'")),
        ] {
            assert_eq!(noticing_silence(url), expected);
        }
        for url in ["postgres://me:p?w@h/d?keepalives=0", "host=h tcp_user_timeout = 5", "bank", "host=h password=a b"]
        {
            assert_eq!(noticing_silence(url), url);
        }
    }
}
