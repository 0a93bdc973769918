//! Several SQLite files on one connection: each handle reaches the file of its own database.

use diesel::SqliteConnection as Raw;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use multidb::{
    Databases, Error, Model, Route, RouteRequest, Router, SqliteConn, atomic_many, connection, transactional,
};

diesel::table! { accounts (id) { id -> BigInt, balance -> BigInt, } }
diesel::table! { entries (id) { id -> BigInt, cents -> BigInt, } }
diesel::allow_tables_to_appear_in_same_query!(accounts, entries);

#[derive(Model)]
#[diesel(table_name = accounts)]
#[model(app = "bank")]
struct Account;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable, Selectable, Identifiable, AsChangeset, Model)]
#[diesel(table_name = entries)]
#[model(app = "ledger")]
struct Entry {
    id: i64,
    cents: i64,
}

#[derive(Debug, QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

struct ByApp;

impl Router for ByApp {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        Route::to(if request.app() == "bank" { "bank" } else { "ledger" })
    }
}

/// The files `bank` and `ledger`, in this order on their connection.
struct Files {
    databases: Databases,
    folder: tempfile::TempDir,
}

/// What a folder's file holds is up to `bank` and `ledger`.
fn files(bank: &str, ledger: &str) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("{name}.db"));
    let databases = Databases::builder().sqlite("bank", path("bank")).sqlite("ledger", path("ledger"));
    let files = Files { databases: databases.router(ByApp).build().unwrap(), folder };
    files.observer("bank").batch_execute(bank).unwrap();
    files.observer("ledger").batch_execute(ledger).unwrap();
    files
}

const ACCOUNTS: &str = "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL);";
const ENTRIES: &str = "CREATE TABLE entries (id BIGINT PRIMARY KEY, cents BIGINT NOT NULL);";

impl Files {
    fn observer(&self, name: &str) -> Raw {
        Raw::establish(self.folder.path().join(format!("{name}.db")).to_str().unwrap()).unwrap()
    }

    /// The number that a query gives in one of the files.
    fn number(&self, name: &str, sql: &str) -> i64 {
        diesel::sql_query(sql).get_result::<Number>(&mut self.observer(name)).unwrap().n
    }

    /// The names of what is in a file.
    fn tables(&self, name: &str) -> Vec<String> {
        diesel::table! { sqlite_schema (name) { name -> Text, } }
        let names = sqlite_schema::table.select(sqlite_schema::name).filter(sqlite_schema::name.not_like("sqlite_%"));
        names.order(sqlite_schema::name).load(&mut self.observer(name)).unwrap()
    }
}

/// Runs a body with a handle on each, in one transaction.
fn both<T>(body: impl FnMut(&mut SqliteConn, &mut SqliteConn) -> Result<T, Error>) -> Result<T, Error> {
    let mut body = body;
    atomic_many::<(Account, Entry)>().run(|scope| {
        let (mut bank, mut ledger) = (scope.conn::<Account, SqliteConn>()?, scope.conn::<Entry, SqliteConn>()?);
        body(&mut bank, &mut ledger)
    })
}

#[transactional(Account, Entry)]
fn record(#[conn(Entry)] conn: &mut SqliteConn, id: i64) -> Result<usize, Error> {
    Ok(diesel::insert_into(entries::table).values((entries::id.eq(id), entries::cents.eq(0))).execute(conn)?)
}

/// Each way in which a handle sends a statement on `entries`.
fn touch(conn: &mut SqliteConn, way: usize) -> Result<(), Error> {
    let insert = diesel::insert_into(entries::table).values((entries::id.eq(7), entries::cents.eq(0)));
    let text = "INSERT INTO entries VALUES (7, 0)";
    match way {
        0 => insert.execute(conn).map(drop)?,
        1 => insert.returning(entries::id).get_result::<i64>(conn).map(drop)?,
        2 => diesel::sql_query(text).execute(conn).map(drop)?,
        3 => diesel::sql_query(format!("{text} RETURNING id AS n")).load::<Number>(conn).map(drop)?,
        4 => conn.batch_execute(text)?,
        5 => conn.batch_execute(&format!("CREATE TEMP TABLE IF NOT EXISTS t (a); SELECT ';'; {text}"))?,
        6 => entries::table.load::<Entry>(conn).map(drop)?,
        7 => entries::table.count().get_result::<i64>(conn).map(drop)?,
        8 => entries::table.into_boxed().load::<Entry>(conn).map(drop)?,
        9 => diesel::delete(entries::table).execute(conn).map(drop)?,
        10 => Entry { id: 1, cents: 9 }.save_changes::<Entry>(conn).map(drop)?,
        11 => conn.with_raw(|raw| Ok::<_, Error>(raw.batch_execute(text)?))?,
        12 => conn.with_raw(|raw| Ok::<_, Error>(entries::table.count().get_result::<i64>(raw).map(drop)?))?,
        13 => conn.transaction(|conn| insert.execute(conn).map(drop))?,
        14 => diesel::update(entries::table).set(entries::cents.eq(5)).execute(conn).map(drop)?,
        _ => conn.batch_execute("DROP TABLE entries")?,
    }
    Ok(())
}

const WAYS: usize = 16;

#[test]
fn a_table_that_only_another_file_has_is_refused_and_named() {
    let left_over = format!("{ACCOUNTS} {ENTRIES} INSERT INTO entries VALUES (1, 1)");
    let files = files(&left_over, "");
    let _entered = files.databases.enter();
    let error = record(7).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::OtherDatabase { .. }), "{text}");
    for part in ["`entries`", "`bank`", "`ledger`", "#[conn(Model)]"] {
        assert!(text.contains(part), "{text}");
    }
    for way in 0..WAYS {
        // Also where the error is swallowed.
        let run = both(|bank, ledger| {
            diesel::insert_into(accounts::table)
                .values((accounts::id.eq(i64::try_from(way).unwrap()), accounts::balance.eq(0)))
                .execute(bank)?;
            let refused = touch(ledger, way);
            assert!(matches!(refused, Err(Error::OtherDatabase { .. })), "{way}: {refused:?}");
            Ok(())
        });
        run.unwrap();
        assert_eq!(files.number("bank", "SELECT sum(id * 100 + cents) AS n FROM entries"), 101, "{way}");
    }
    assert_eq!(files.number("bank", "SELECT count(*) AS n FROM accounts"), i64::try_from(WAYS).unwrap());
    assert!(files.tables("ledger").is_empty());
}

#[test]
fn a_table_of_the_handles_own_file_is_used_in_every_way() {
    let files = files(ACCOUNTS, &format!("{ENTRIES} INSERT INTO entries VALUES (1, 1)"));
    let _entered = files.databases.enter();
    for way in 0..WAYS {
        let result = both(|_, ledger| {
            touch(ledger, way)?;
            Err::<(), _>(Error::Query(diesel::result::Error::RollbackTransaction))
        });
        let rolled_back = matches!(result, Err(Error::Query(diesel::result::Error::RollbackTransaction)));
        assert!(rolled_back, "{way}: {result:?}");
    }
    assert_eq!(files.number("ledger", "SELECT sum(id * 100 + cents) AS n FROM entries"), 101);
}

#[test]
fn a_table_is_made_in_the_file_of_its_handle_or_not_at_all() {
    let files = files(ACCOUNTS, ENTRIES);
    let _entered = files.databases.enter();
    let made = "CREATE TABLE notes (id BIGINT)";
    for sql in [
        made.to_owned(),
        format!("INSERT INTO entries VALUES (1, 1); {made}"),
        "CREATE TABLE notes AS SELECT 1".to_owned(),
    ] {
        let run = both(|_, ledger| {
            let refused = ledger.batch_execute(&sql).map_err(Error::from);
            let text = format!("{refused:?}");
            assert!(matches!(refused, Err(Error::OtherDatabase { .. })), "{text}");
            for part in ["CREATE TABLE notes", "bank", "ledger", "outside of the transaction"] {
                assert!(text.contains(part), "{text}");
            }
            Ok(())
        });
        run.unwrap();
        assert_eq!(
            (files.tables("bank"), files.tables("ledger")),
            (vec!["accounts".to_owned()], vec!["entries".to_owned()])
        );
    }
    assert_eq!(files.number("ledger", "SELECT count(*) AS n FROM entries"), 0, "the statement before it is undone");
    both(|bank, _| Ok(bank.batch_execute(made)?)).unwrap();
    assert_eq!(files.tables("bank"), ["accounts", "notes"]);
    connection::<Entry, SqliteConn>().unwrap().batch_execute("CREATE TABLE pages (id BIGINT)").unwrap();
    assert_eq!(files.tables("ledger"), ["entries", "pages"]);
}

#[test]
fn a_handle_has_the_alias_of_its_own_database() {
    let files = files(ACCOUNTS, ENTRIES);
    let _entered = files.databases.enter();
    both(|bank, ledger| {
        assert_eq!((bank.alias().as_str(), ledger.alias().as_str()), ("bank", "ledger"));
        assert_eq!(connection::<Entry, SqliteConn>()?.alias().as_str(), "ledger");
        assert_eq!(multidb::connection_on::<multidb::AnyConn>("bank")?.alias().as_str(), "bank");
        Ok(())
    })
    .unwrap();
}

#[test]
fn one_statement_over_both_files_is_refused_as_on_two_servers() {
    let files = files(ACCOUNTS, ENTRIES);
    let _entered = files.databases.enter();
    both(|bank, ledger| {
        let join = || accounts::table.inner_join(entries::table.on(entries::id.eq(accounts::id))).select(accounts::id);
        for conn in [bank, ledger] {
            let refused = join().load::<i64>(conn).map_err(Error::from);
            assert!(matches!(refused, Err(Error::OtherDatabase { .. })), "{refused:?}");
            let copied =
                conn.batch_execute("INSERT INTO entries SELECT id, balance FROM accounts").map_err(Error::from);
            assert!(matches!(copied, Err(Error::OtherDatabase { .. })), "{copied:?}");
            for all in ["ANALYZE", "REINDEX", "PRAGMA journal_mode = OFF"] {
                let refused = conn.batch_execute(all).map_err(Error::from);
                let is_refused = matches!(refused, Err(Error::OtherDatabase { .. } | Error::IneffectivePragma { .. }));
                assert!(is_refused, "{all}: {refused:?}");
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_belongs_to_no_file_is_used_through_each_handle() {
    let files = files(ACCOUNTS, &format!("{ENTRIES} CREATE VIRTUAL TABLE words USING fts5(word)"));
    let _entered = files.databases.enter();
    let texts = [
        "SELECT 1 AS n",
        "SELECT count(*) AS n FROM json_each('[1, 2]')",
        "SELECT count(*) AS n FROM pragma_database_list",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3) SELECT sum(n) AS n FROM c",
        "EXPLAIN SELECT 1",
    ];
    both(|bank, ledger| {
        for conn in [bank, ledger] {
            for text in texts {
                diesel::sql_query(text).execute(conn)?;
            }
            conn.batch_execute("CREATE TEMP TABLE some (id BIGINT); INSERT INTO some VALUES (1); DROP TABLE some")?;
            conn.batch_execute("PRAGMA busy_timeout = 1000; ; -- nothing\n")?;
        }
        Ok(())
    })
    .unwrap();
    both(|bank, ledger| {
        ledger.batch_execute("INSERT INTO words VALUES ('a'); INSERT INTO entries SELECT 1, 2 FROM words")?;
        let foreign = bank.batch_execute("SELECT * FROM words").map_err(Error::from);
        assert!(matches!(foreign, Err(Error::OtherDatabase { .. })), "{foreign:?}");
        Ok(())
    })
    .unwrap();
    assert_eq!(files.number("ledger", "SELECT count(*) AS n FROM entries"), 1);
}

#[test]
fn a_text_of_several_statements_runs_as_on_one_file() {
    let files = files(ACCOUNTS, ENTRIES);
    let _entered = files.databases.enter();
    let text = "/* first; */ CREATE TABLE log (line TEXT); -- then; this\n\
                CREATE TRIGGER logged AFTER INSERT ON accounts BEGIN INSERT INTO log VALUES ('a;b'); \
                INSERT INTO log VALUES (CASE NEW.id WHEN 1 THEN 'one;' ELSE 'other' END); END;\n\
                INSERT INTO accounts VALUES (1, 0); ; INSERT INTO [accounts] VALUES (2, 0)";
    both(|bank, _| Ok(bank.batch_execute(text)?)).unwrap();
    assert_eq!(files.number("bank", "SELECT count(*) AS n FROM log"), 4);
    let failing = "INSERT INTO accounts VALUES (3, 0); INSERT INTO accounts VALUES (1, 0)";
    let run = both(|bank, _| {
        assert!(bank.batch_execute(failing).is_err());
        Ok(())
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    for unfinished in
        ["CREATE TRIGGER late AFTER INSERT ON accounts BEGIN SELECT 1;", "SELECT 'a", "SELECT 1; NONSENSE"]
    {
        let run = both(|bank, _| Ok(bank.batch_execute(unfinished)?));
        assert!(matches!(run, Err(Error::Query(_))), "{run:?}");
    }
    assert_eq!(files.number("bank", "SELECT count(*) AS n FROM accounts"), 2);
}

#[test]
fn what_a_name_means_is_asked_again_when_it_may_have_changed() {
    let files = files(ACCOUNTS, ENTRIES);
    let _entered = files.databases.enter();
    record(1).unwrap();
    // Between two transactions, by another process.
    files.observer("ledger").batch_execute("ALTER TABLE entries RENAME TO old").unwrap();
    files.observer("bank").batch_execute(ENTRIES).unwrap();
    let refused = record(2);
    assert!(matches!(refused, Err(Error::OtherDatabase { .. })), "{refused:?}");
    assert_eq!(files.number("bank", "SELECT count(*) AS n FROM entries"), 0);
    files.observer("ledger").batch_execute("ALTER TABLE old RENAME TO entries").unwrap();
    files.observer("bank").batch_execute("DROP TABLE entries").unwrap();
    // Inside of one: by its own statements, by what is undone, and behind the handle.
    let run = both(|bank, ledger| {
        let put = |conn: &mut SqliteConn, id: i64| {
            let insert = diesel::insert_into(entries::table).values((entries::id.eq(id), entries::cents.eq(0)));
            insert.execute(conn).map_err(Error::from)
        };
        put(ledger, 3)?;
        ledger.batch_execute("ALTER TABLE entries RENAME TO old")?;
        bank.batch_execute(ENTRIES)?;
        assert!(matches!(put(ledger, 4), Err(Error::OtherDatabase { .. })));
        put(bank, 4)?;
        bank.with_raw(|raw| Ok::<_, Error>(raw.batch_execute("DROP TABLE entries")?))?;
        ledger.batch_execute("ALTER TABLE old RENAME TO entries")?;
        put(ledger, 5)?;
        let undone = bank.transaction(|bank| {
            bank.batch_execute("CREATE TABLE later (id BIGINT)")?;
            diesel::sql_query("INSERT INTO later VALUES (1)").execute(bank)?;
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        });
        assert!(undone.is_err());
        assert!(diesel::sql_query("INSERT INTO later VALUES (1)").execute(bank).is_err());
        Ok(())
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "there is no `later`: {run:?}");
    assert_eq!(files.number("ledger", "SELECT count(*) AS n FROM entries"), 1);
}

#[test]
fn more_texts_than_are_remembered_are_asked_about_again() {
    let files = files(ACCOUNTS, ENTRIES);
    let _entered = files.databases.enter();
    both(|_, ledger| {
        for id in 0..600 {
            ledger.batch_execute(&format!("INSERT INTO entries VALUES ({id}, 0)"))?;
        }
        let refused = ledger.batch_execute("DELETE FROM accounts").map_err(Error::from);
        assert!(matches!(refused, Err(Error::OtherDatabase { .. })), "{refused:?}");
        Ok(())
    })
    .unwrap();
    assert_eq!(files.number("ledger", "SELECT count(*) AS n FROM entries"), 600);
}
