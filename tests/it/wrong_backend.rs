//! A handle that doesn't fit the backend of its database is refused before anything is sent.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]

use multidb::{Databases, Error, Handle, MysqlConn, PgConn, SqliteConn, atomic_on, connection_on};

fn databases() -> Databases {
    let builder =
        Databases::builder().sqlite("lite", "/nonexistent/x.db").postgres("pg", "postgres://nowhere.invalid/x");
    builder.mysql("my", "mysql://nowhere.invalid/x").build_lazy().unwrap()
}

fn refused<H: Handle>(alias: &'static str) -> bool {
    let inside = atomic_on(alias).run(|_: &mut H| Ok::<_, Error>(()));
    let outside = connection_on::<H>(alias).map(drop);
    let errors: Vec<String> = [inside, outside]
        .into_iter()
        .filter_map(Result::err)
        .map(|error| {
            assert!(matches!(&error, Error::WrongBackend { database, .. } if *database == alias), "{error}");
            assert!(error.is_config());
            error.to_string()
        })
        .collect();
    assert!(errors.iter().all(|text| text.contains(alias) && text.contains("Conn")), "{errors:?}");
    assert_ne!(errors.len(), 1, "inside and outside of scopes alike");
    errors.len() == 2
}

#[test]
fn each_handle_fits_its_own_backend_and_no_other() {
    let databases = databases();
    let _entered = databases.enter();
    assert_eq!(["lite", "pg", "my"].map(refused::<SqliteConn>), [false, true, true]);
    assert_eq!(["lite", "pg", "my"].map(refused::<PgConn>), [true, false, true]);
    assert_eq!(["lite", "pg", "my"].map(refused::<MysqlConn>), [true, true, false]);
    let state = databases.database("pg").unwrap().pool_state();
    assert_eq!(state.connections, 0);
}
