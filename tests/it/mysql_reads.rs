//! A single read-only level, which MariaDB can't enforce: the handle refuses what is not proven a read.

use diesel::backend::Backend;
use diesel::connection::SimpleConnection;
use diesel::dsl::{exists, select, sql};
use diesel::expression::{AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool};
use multidb::{AnyConn, Error, MysqlConn, atomic};

use crate::mysql::*;

diesel::define_sql_function! { fn sneak(id: BigInt) -> BigInt; }

diesel::table! { sneaked (id) { id -> BigInt, } }

/// An expression as users write them.
#[derive(Debug, Clone, Copy, QueryId)]
struct Sneaky;

impl Expression for Sneaky {
    type SqlType = BigInt;
}
impl<DB: Backend> QueryFragment<DB> for Sneaky {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("sneak(7)");
        Ok(())
    }
}
impl<QS> SelectableExpression<QS> for Sneaky {}
impl<QS> AppearsOnTable<QS> for Sneaky {}
impl<G> ValidGrouping<G> for Sneaky {
    type IsAggregate = is_aggregate::Never;
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = items)]
#[expect(dead_code, reason = "never read")]
struct Hidden {
    #[diesel(select_expression = Sneaky)]
    #[diesel(select_expression_type = Sneaky)]
    id: i64,
}

/// Each way to call a function that writes.
fn sneaking(conn: &mut MysqlConn, way: usize) -> QueryResult<()> {
    let boxed: Box<dyn BoxableExpression<items::table, diesel::mysql::Mysql, SqlType = Bool>> =
        Box::new(sneak(items::id).gt(0));
    match way {
        0 => items::table.select(sneak(items::id)).load::<i64>(conn).map(drop),
        1 => items::table.select(sneak(items::id)).into_boxed().load::<i64>(conn).map(drop),
        2 => items::table.filter(boxed).select(items::id).load::<i64>(conn).map(drop),
        3 => items::table.select(Sneaky).load::<i64>(conn).map(drop),
        4 => items::table.select(Hidden::as_select()).load::<Hidden>(conn).map(drop),
        5 => items::table.filter(sql::<Bool>("sneak(id)")).select(items::id).load::<i64>(conn).map(drop),
        6 => select(exists(items::table.filter(sneak(items::id).gt(0)))).get_result::<bool>(conn).map(drop),
        7 => items::table.select(items::id).union(items::table.select(sneak(5))).load::<i64>(conn).map(drop),
        _ => select(sneak(7)).execute(conn).map(drop),
    }
}

#[test]
fn a_nested_read_only_level_refuses_what_is_not_proven_a_read() {
    let Some(fixture) = fixture() else { return };
    let create = "CREATE FUNCTION sneak(id BIGINT) RETURNS BIGINT MODIFIES SQL DATA BEGIN \
                  INSERT INTO sneaked VALUES (id); RETURN id; END";
    let mut observer = fixture.observer("default");
    observer.batch_execute("CREATE TABLE sneaked (id BIGINT)").unwrap();
    observer.batch_execute(create).unwrap();
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    for way in 0..9 {
        let run = atomic::<Item>().run(|_: &mut MysqlConn| {
            put(2, 20)?;
            atomic::<Item>().read_only().run(|conn: &mut MysqlConn| {
                let refused = sneaking(conn, way).map_err(Error::from);
                assert!(matches!(refused, Err(Error::ReadOnly { .. })), "{way}: {refused:?}");
                Ok::<_, Mishap>(())
            })
        });
        assert!(run.is_err(), "{way}");
        // The manual scope counts it as work.
        let run = atomic::<Item>().manual().run(|conn: &mut MysqlConn| {
            sneaking(conn, way)?;
            Ok::<_, Error>(())
        });
        assert!(matches!(run, Err(Error::PendingWork { .. })), "{way}: {run:?}");
        let sneaked = sneaked::table.select(sneaked::id).load::<i64>(&mut observer).unwrap();
        assert_eq!((fixture.rows("default"), sneaked), (vec![(1, 10)], vec![]), "{way}");
    }
}

#[test]
fn a_nested_read_only_level_reads_on_every_handle() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().run(|_: &mut MysqlConn| {
        put(2, 20)?;
        atomic::<Item>().read_only().run(|conn: &mut MysqlConn| {
            assert_eq!(items::table.select(Item::as_select()).filter(items::id.eq_any([1, 3])).load(conn)?.len(), 1);
            assert_eq!(items::table.group_by(items::value).select(items::value).load::<i64>(conn)?.len(), 2);
            Ok::<_, Mishap>(())
        })?;
        atomic::<Item>().read_only().run(|conn: &mut AnyConn| {
            assert_eq!(items::table.filter(items::id.gt(1)).select(items::id).load::<i64>(conn)?, [2]);
            Ok::<_, Mishap>(())
        })
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
}
