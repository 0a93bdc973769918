//! Functions whose handle fits every backend.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{AnyConn, Error, atomic, atomic_many, connection, scope, transactional};

use super::*;

#[transactional(Item)]
fn put_any(#[conn] conn: &mut AnyConn, id: i64, value: i64) -> Result<(), Error> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(value))).execute(conn)?;
    Ok(())
}

fn sum(conn: &mut AnyConn) -> QueryResult<i64> {
    Ok(items::table.select(items::value).load::<i64>(conn)?.into_iter().sum())
}

#[test]
fn one_function_works_on_every_backend() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put_any(1, 10).unwrap();
    put_any(2, 20).unwrap();
    let run = atomic::<Item>().run(|conn: &mut AnyConn| {
        assert_eq!(conn.alias(), &"default");
        diesel::update(items::table.find(1)).set(items::value.eq(items::value + 1)).execute(conn)?;
        diesel::delete(items::table.filter(items::value.eq(20))).execute(conn)?;
        // The same transaction, by another handle.
        assert_eq!(items::table.count().get_result(&mut connection::<Item, H>()?), Ok(1_i64));
        let rows: Vec<Item> = items::table.load_iter::<(i64, i64), _>(conn)?.map(row).collect();
        assert_eq!(rows, [Item { id: 1, value: 11 }]);
        Ok::<_, Mishap>(sum(conn)?)
    });
    assert_eq!(run.unwrap(), 11);
    assert_eq!(fixture.rows("default"), [(1, 11)]);
}

fn row(read: QueryResult<(i64, i64)>) -> Item {
    let (id, value) = read.unwrap();
    Item { id, value }
}

#[test]
fn its_rules_are_those_of_the_handle_inside() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put_any(1, 10).unwrap();
    // A refused statement dooms.
    let run = atomic::<Item>().run(|_: &mut AnyConn| {
        put_any(2, 20)?;
        connection::<Item, AnyConn>()?.batch_execute("INSERT INTO items VALUES (1, 1)").unwrap_err();
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    // Raw control statements are refused.
    let run = atomic::<Item>().run(|conn: &mut AnyConn| {
        let refused = diesel::sql_query("COMMIT").execute(conn).map_err(Error::from);
        assert!(matches!(refused, Err(Error::TransactionControl { .. })), "{refused:?}");
        let refused = conn.batch_execute("ROLLBACK").map_err(Error::from);
        assert!(matches!(refused, Err(Error::TransactionControl { .. })), "{refused:?}");
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)));
    // A read is proven one through the wrapper, and a write is refused.
    let run = atomic::<Item>().run(|_: &mut AnyConn| {
        atomic::<Item>().read_only().run(|conn: &mut AnyConn| {
            assert_eq!(sum(conn)?, 10);
            let refused = diesel::delete(items::table).execute(conn).map_err(Error::from);
            assert!(matches!(refused, Err(Error::ReadOnly { .. })), "{refused:?}");
            Err::<(), _>(Mishap::OnPurpose)
        })
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)), "{run:?}");
    let pending = atomic::<Item>().manual().run(|conn: &mut AnyConn| sum(conn).map_err(Error::from));
    assert_eq!(pending.unwrap(), 10, "a lone read is no pending work");
    assert_eq!((fixture.rows("default"), in_use(&databases, "default")), (vec![(1, 10)], 0));
}

#[test]
fn diesels_transaction_on_it_is_a_level_and_a_panic_undoes_it() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|conn: &mut AnyConn| {
        put_any(1, 10)?;
        let inner: Result<(), Mishap> = conn.transaction(|_| {
            assert_eq!(scope::depth(), 2);
            put_any(2, 20)?;
            Err(Mishap::OnPurpose)
        });
        assert!(matches!(inner, Err(Mishap::OnPurpose)));
        conn.transaction(|_| put_any(3, 30)).map_err(Mishap::from)
    });
    run.unwrap();
    let mut conn = connection::<Item, AnyConn>().unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        conn.transaction(|_| -> Result<(), Error> {
            put_any(4, 40)?;
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!((fixture.rows("default"), in_use(&databases, "default")), (vec![(1, 10), (3, 30)], 0));
}

#[test]
fn it_is_the_handle_of_any_model_of_a_scope() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases().with_router(Together);
    let _entered = databases.enter();
    let run = atomic_many::<(Item, Record)>().run(|scope| {
        let mut conn = scope.conn::<Record, AnyConn>()?;
        sum(&mut conn).map_err(Error::from)
    });
    assert_eq!(run.unwrap(), 0);
}

/// Both models on one database.
struct Together;

impl multidb::Router for Together {}

#[test]
fn a_panic_in_its_transaction_rolls_back_and_leaves_nothing_open() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let panics = |conn: &mut AnyConn| {
        let run = || -> Result<(), Error> { conn.transaction(|_| put(1, 10).map(|()| panic!("on purpose"))) };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    };
    let mut outside = connection::<Item, AnyConn>().unwrap();
    panics(&mut outside);
    // The handle lives on, and what is called now commits by itself.
    put(2, 20).unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20)]);
    let run = atomic::<Item>().run(|conn: &mut AnyConn| {
        panics(conn);
        put(3, 30)
    });
    run.unwrap();
    drop(outside);
    assert_eq!(fixture.rows("default"), [(2, 20), (3, 30)]);
    assert_eq!(in_use(&databases, "default"), 0);
}
