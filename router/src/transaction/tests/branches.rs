//! Transactions with two branches: their levels fail together.

use diesel::connection::{Instrumentation, InstrumentationEvent};

use super::*;

/// The claims on one backend.
macro_rules! backend {
    ($name:ident, $feature:literal, $raw:ident, $handle:ident, $mode:ty, $fresh:expr) => {
        #[cfg(feature = $feature)]
        mod $name {
            use super::*;

            type Raw = diesel::$raw;
            type H = crate::$handle;

            /// Two databases `a` and `b` of one backend, with an empty table each.
            struct Pair {
                databases: Databases,
                urls: [String; 2],
                _folder: tempfile::TempDir,
            }

            fn pair() -> Option<Pair> {
                let folder = tempfile::tempdir().expect("a folder");
                let fresh: fn(&std::path::Path, &str) -> Option<(Option<(String, String)>, String)> = $fresh;
                let mut urls = Vec::new();
                for name in ["a", "b"] {
                    let (create, url) = fresh(folder.path(), name)?;
                    if let Some((server, create)) = create {
                        Raw::establish(&server).expect("the server").batch_execute(&create).expect("a fresh database");
                    }
                    let table = "CREATE TABLE items (id BIGINT PRIMARY KEY)";
                    Raw::establish(&url).expect("the database").batch_execute(table).expect("a table");
                    urls.push(url);
                }
                let urls: [String; 2] = urls.try_into().expect("two");
                let configs = ["a", "b"].into_iter().zip(&urls);
                let builder = configs.fold(Databases::builder(), |builder, (alias, url)| {
                    let mut config = DatabaseConfig::new(alias, url.clone());
                    config.pool.max_size = Some(1);
                    builder.database(config)
                });
                Some(Pair { databases: builder.build().expect("both databases"), urls, _folder: folder })
            }

            impl Pair {
                fn rows(&self, at: usize) -> Vec<i64> {
                    let observer = &mut Raw::establish(&self.urls[at]).expect("the database");
                    items::table.select(items::id).order(items::id).load(observer).expect("its rows")
                }

                /// Every connection that was opened is back in its pool, and so outside of any transaction.
                fn all_are_back(&self) {
                    for database in self.databases.iter() {
                        let state = database.pool_state();
                        assert_eq!(state.connections, 1, "{}: discarded", database.alias());
                        assert_eq!(state.idle_connections, 1, "{}: still out", database.alias());
                    }
                }
            }

            fn put(at: usize, id: i64) -> Result<usize, Error> {
                let conn = &mut handle::<H>(at);
                Ok(diesel::insert_into(items::table).values(items::id.eq(id)).execute(conn)?)
            }

            #[test]
            fn a_level_that_fails_is_undone_on_every_branch() {
                let Some(pair) = pair() else { return };
                let outer = both(&pair.databases, &Start::default());
                put(0, 1).expect("in a");
                let inner = nest(SITE, Kind::Scope, Limits::NONE).expect("a level");
                put(0, 2).expect("in a");
                put(1, 3).expect("in b, whose transaction begins inside the level");
                leave(inner, Verdict::Undo).expect("undone");
                put(1, 4).expect("in b");
                let kept = nest(SITE, Kind::Scope, Limits::NONE).expect("a level");
                put(1, 5).expect("in b");
                put(0, 6).expect("in a");
                leave(kept, Verdict::Keep).expect("kept");
                leave(outer, Verdict::Keep).expect("committed");
                assert_eq!((pair.rows(0), pair.rows(1)), (vec![1, 6], vec![4, 5]));
                pair.all_are_back();
            }

            #[test]
            fn a_refused_statement_on_one_branch_dooms_the_level_on_both() {
                let Some(pair) = pair() else { return };
                let outer = both(&pair.databases, &Start::default());
                put(0, 1).expect("in a");
                let inner = nest(SITE, Kind::Scope, Limits::NONE).expect("a level");
                put(1, 2).expect("in b");
                assert!(put(0, 1).is_err(), "a duplicate");
                assert!(matches!(put(1, 3), Err(Error::Doomed { .. })), "refused on the other branch as well");
                assert!(matches!(leave(inner, Verdict::Keep), Err(Error::Doomed { .. })));
                put(1, 4).expect("in b");
                leave(outer, Verdict::Keep).expect("committed");
                assert_eq!((pair.rows(0), pair.rows(1)), (vec![1], vec![4]));
                pair.all_are_back();
            }

            #[test]
            fn while_rows_of_one_branch_are_read_the_other_one_is_busy_too() {
                let Some(pair) = pair() else { return };
                let outer = both(&pair.databases, &Start::default());
                put(0, 1).expect("in a");
                put(1, 2).expect("in b");
                let mut conn = handle::<H>(0);
                let query = items::table.select(items::id);
                let mut reading = query.load_iter::<i64, $mode>(&mut conn).expect("rows");
                assert_eq!(reading.next().expect("a row").expect("read"), 1);
                assert!(matches!(put(1, 3), Err(Error::Busy { .. })));
                drop(reading);
                put(1, 4).expect("in b");
                leave(outer, Verdict::Keep).expect("committed");
                assert_eq!((pair.rows(0), pair.rows(1)), (vec![1], vec![2, 4]));
            }

            #[test]
            fn while_one_branch_commits_nothing_joins_the_other_one() {
                /// Writes into the other branch when it sees a COMMIT.
                struct Late(H);

                impl Instrumentation for Late {
                    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
                        if let InstrumentationEvent::StartQuery { query, .. } = event
                            && query.to_string().contains("COMMIT")
                        {
                            let late = diesel::insert_into(items::table).values(items::id.eq(9)).execute(&mut self.0);
                            assert!(matches!(late.map_err(Error::from), Err(Error::Closed { .. })));
                        }
                    }
                }

                let Some(pair) = pair() else { return };
                let outer = both(&pair.databases, &Start::default());
                put(0, 1).expect("in a");
                let mut conn = handle::<H>(1);
                conn.set_instrumentation(Late(handle::<H>(0)));
                put(1, 2).expect("in b");
                leave(outer, Verdict::Keep).expect("committed");
                assert_eq!((pair.rows(0), pair.rows(1)), (vec![1], vec![2]));
            }

            #[test]
            fn a_transaction_that_fails_is_undone_on_both_branches() {
                let Some(pair) = pair() else { return };
                let outer = both(&pair.databases, &Start::default());
                put(0, 1).expect("in a");
                put(1, 2).expect("in b");
                leave(outer, Verdict::Undo).expect("undone");
                assert_eq!((pair.rows(0), pair.rows(1)), (vec![], vec![]));
                pair.all_are_back();
            }
        }
    };
}

backend!(sqlite, "sqlite", SqliteConnection, SqliteConn, diesel::connection::DefaultLoadingMode, |folder, name| {
    let path = folder.join(format!("{name}.db"));
    Some((None, path.to_str().expect("a plain path").to_owned()))
});
backend!(postgres, "postgres", PgConnection, PgConn, diesel::pg::PgRowByRowLoadingMode, |_, _| {
    let server = servers::postgres_url()?;
    let name = fresh_name();
    let create = format!("CREATE SCHEMA {name}");
    Some((Some((server.to_owned(), create)), format!("{server}?options=-csearch_path%3D{name}")))
});
backend!(mysql, "mysql", MysqlConnection, MysqlConn, diesel::connection::DefaultLoadingMode, |_, _| {
    let server = servers::mysql_url()?;
    let name = fresh_name();
    let (address, _) = server.rsplit_once('/')?;
    Some((Some((server.to_owned(), format!("CREATE DATABASE {name}"))), format!("{address}/{name}")))
});
