//! Which statements are proven to read only.

use diesel::dsl::{avg, case_when, count, count_star, exists, max, not, now, sql};
use diesel::expression::{AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate};
use diesel::prelude::*;
use diesel::query_builder::{AsQuery, AstPass, QueryFragment};
use diesel::sql_types::{BigInt, Bool, Text};

use super::*;

diesel::table! { items (id) { id -> BigInt, name -> Text, owner -> Nullable<BigInt>, } }
diesel::table! { owners (id) { id -> BigInt, name -> Text, } }
diesel::joinable!(items -> owners (owner));
diesel::allow_tables_to_appear_in_same_query!(items, owners);

diesel::define_sql_function! { fn sneak(x: BigInt) -> BigInt; }

/// An expression as users write them, which may hold any SQL.
macro_rules! sneaky {
    ($name:ident) => {
        #[derive(Debug, Clone, Copy, ::diesel::query_builder::QueryId)]
        pub struct $name;

        impl ::diesel::expression::Expression for $name {
            type SqlType = ::diesel::sql_types::BigInt;
        }
        impl<DB: ::diesel::backend::Backend> ::diesel::query_builder::QueryFragment<DB> for $name {
            fn walk_ast<'b>(
                &'b self,
                mut out: ::diesel::query_builder::AstPass<'_, 'b, DB>,
            ) -> ::diesel::result::QueryResult<()> {
                out.push_sql("sneak(7)");
                Ok(())
            }
        }
        impl<QS> ::diesel::expression::SelectableExpression<QS> for $name {}
        impl<QS> ::diesel::expression::AppearsOnTable<QS> for $name {}
        impl<G> ::diesel::expression::ValidGrouping<G> for $name {
            type IsAggregate = ::diesel::expression::is_aggregate::Never;
        }
    };
}
/// Names that a user's crate may have too.
mod diesel_names {
    pub mod diesel {
        pub mod expression {
            pub mod functions {
                use ::diesel::sql_types::BigInt;

                #[diesel::declare_sql_function]
                extern "SQL" {
                    fn creep(x: BigInt) -> BigInt;
                }
            }
        }
    }

    pub mod items {
        pub mod columns {
            sneaky!(Sneaky);
        }
    }
}

sneaky!(Plain);

/// Its SQL is not known by its type.
#[derive(Debug, Clone, Copy)]
struct Nameless;

impl Expression for Nameless {
    type SqlType = BigInt;
}
impl QueryId for Nameless {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}
impl<DB: diesel::backend::Backend> QueryFragment<DB> for Nameless {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql("sneak(8)");
        Ok(())
    }
}
impl<QS> SelectableExpression<QS> for Nameless {}
impl<QS> AppearsOnTable<QS> for Nameless {}
impl<G> ValidGrouping<G> for Nameless {
    type IsAggregate = is_aggregate::Never;
}

#[cfg(feature = "sqlite")]
type Native = diesel::sqlite::Sqlite;
#[cfg(all(feature = "postgres", not(feature = "sqlite")))]
type Native = diesel::pg::Pg;
#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
type Native = diesel::mysql::Mysql;

#[derive(Queryable, Selectable)]
#[diesel(table_name = items)]
#[expect(dead_code, reason = "never loaded")]
struct Item {
    id: i64,
    name: String,
    #[diesel(embed)]
    named: Named,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = items)]
#[expect(dead_code, reason = "never loaded")]
struct Named {
    name: String,
}

/// Selects by an expression that its name doesn't show.
macro_rules! hiding {
    ($name:ident, $expression:expr, $type:ty) => {
        #[derive(Queryable, Selectable)]
        #[diesel(table_name = items)]
        #[expect(dead_code, reason = "never loaded")]
        struct $name {
            id: i64,
            #[diesel(select_expression = $expression)]
            #[diesel(select_expression_type = $type)]
            found: i64,
        }
    };
}
hiding!(ByFunction, sneak(items::id), sneak<items::id>);
hiding!(ByText, sql::<BigInt>("sneak(1)"), diesel::expression::SqlLiteral<BigInt>);
hiding!(ByType, Plain, Plain);
hiding!(ByNameless, Nameless, Nameless);
hiding!(BySum, items::id + items::id, diesel::dsl::Add<items::id, items::id>);

fn selected<T: SelectableHelper<Native>>() -> diesel::dsl::AsSelect<T, Native> {
    T::as_select()
}

fn proof<T: QueryId>(_query: &T) -> Proof {
    proof_of::<T>()
}

macro_rules! prove {
    ($expected:ident: $($query:expr),+ $(,)?) => {
        $(assert_eq!(proof(&$query.as_query()), Proof::$expected, "{}", stringify!($query));)+
    };
}

#[test]
fn ordinary_queries_are_reads() {
    let other = diesel::alias!(items as other);
    let of_other = || items::owner.eq(owners::id.nullable());
    prove! { Read:
        items::table,
        items::table.find(1),
        items::table.select((items::id, items::name)).filter(items::id.gt(1).and(items::name.like("a%"))),
        items::table.select(max(items::id)),
        items::table.count(),
        items::table.select(count_star()),
        items::table.group_by(items::name).select((items::name, count(items::id), avg(items::id).is_null())),
        items::table.group_by(items::name).select(items::name).having(count(items::id).gt(1)),
        items::table.order((items::id.desc(), items::name)).limit(1).offset(2),
        items::table.distinct(),
        items::table.filter(items::id.eq_any([1, 2])),
        items::table.filter(items::id.ne_all(vec![1, 2]).or(items::owner.is_null())),
        items::table.filter(items::id.eq_any(owners::table.select(owners::id))),
        items::table.filter(exists(owners::table.filter(of_other()))),
        items::table.filter(not(items::id.between(1, 2))),
        items::table.inner_join(owners::table),
        items::table.left_join(owners::table).select((items::id, owners::name.nullable())),
        items::table.inner_join(owners::table.on(of_other().and(owners::name.eq("a")))),
        other.filter(other.field(items::id).eq(1)).select(other.field(items::name)),
        other,
        items::table.inner_join(other.on(other.field(items::id).eq(items::id))).select(items::id),
        items::table.select(selected::<Item>()),
        items::table.filter(items::id.eq_any([1])).select((selected::<Item>(), items::id)),
        items::table.select(selected::<BySum>()),
        items::table.select(case_when(items::id.eq(1), items::name).otherwise("none")),
        items::table.select(items::id + items::id * 2),
        items::table.select(items::id.cast::<Text>()),
        diesel::select(now),
        diesel::select(exists(items::table.filter(items::name.eq("a")))),
        diesel::select(1_i64.into_sql::<BigInt>()),
        items::table.select(items::id).union(owners::table.select(owners::id)),
        items::table.select(items::id).except_all(owners::table.select(owners::id)).limit(1),
        items::table.select(items::id.nullable()).filter(items::name.eq_any(owners::table.select(owners::name))),
        diesel::select(items::table.select(items::name).single_value().is_null()),
    }
}

#[test]
fn what_is_not_known_to_read_only_proves_nothing() {
    use diesel_names::diesel::expression::functions::creep;
    use diesel_names::items::columns::Sneaky;
    let boxed =
        || -> Box<dyn BoxableExpression<items::table, Native, SqlType = Bool>> { Box::new(sneak(items::id).eq(1)) };
    prove! { None:
        items::table.select(sneak(items::id)),
        items::table.filter(sneak(items::id).eq(1)),
        items::table.filter(items::id.eq(sneak(1))),
        items::table.order(sneak(items::id)),
        items::table.group_by(sneak(items::id)).select(count_star()),
        items::table.select(max(sneak(items::id))),
        items::table.inner_join(owners::table.on(sneak(items::id).eq(1))).select(items::id),
        items::table.filter(exists(owners::table.filter(sneak(owners::id).eq(1)))),
        items::table.filter(items::id.eq_any(owners::table.select(sneak(owners::id)))),
        items::table.select(items::id).union(owners::table.select(sneak(owners::id))),
        diesel::select(sneak(5)),
        diesel::select(exists(items::table.select(sneak(items::id)))),
        diesel::select(creep(5)),
        items::table.select(Sneaky),
        items::table.select(Plain),
        items::table.filter(items::id.eq(Nameless)),
        items::table.select(selected::<ByFunction>()),
        items::table.select(selected::<ByText>()),
        items::table.select(selected::<ByType>()),
        items::table.select(selected::<ByNameless>()),
        items::table.filter(items::id.eq_any([1])).select(selected::<ByNameless>()),
        items::table.filter(sql::<Bool>("sneak(id)")),
        items::table.select(sql::<BigInt>("sneak(id)")),
        items::table.select(items::id).into_boxed::<Native>(),
        items::table.filter(boxed()),
        items::table.filter(items::id.eq_any(owners::table.select(owners::id).into_boxed::<Native>())),
        diesel::sql_query("SELECT 1"),
        items::table.for_update(),
        items::table.for_share().skip_locked(),
    }
}

#[test]
fn writes_are_writes() {
    assert_eq!(proof(&diesel::delete(items::table)), Proof::Write);
    assert_eq!(proof(&diesel::update(items::table).set(items::name.eq("a"))), Proof::Write);
    assert_eq!(proof(&diesel::insert_into(items::table).values(items::id.eq(1)).returning(items::id)), Proof::Write);
}

#[test]
fn what_may_give_rows_is_known_by_its_returning_clause() {
    fn may<T: QueryId>(_statement: &T) -> bool {
        may_give_rows::<T>()
    }
    assert!(!may(&diesel::delete(items::table)));
    assert!(!may(&diesel::update(items::table).set(items::name.eq("a"))));
    assert!(!may(&diesel::insert_into(items::table).values(items::id.eq(1))));
    assert!(!may(&items::table.as_query()), "nothing that is lost when it isn't read");
    assert!(may(&diesel::insert_into(items::table).values(items::id.eq(1)).returning(items::id)));
    assert!(may(&diesel::delete(items::table).returning(items::id)));
    assert!(may(&diesel::sql_query("DELETE FROM items")));
    assert!(may(&diesel::select(sneak(1))));
}

#[test]
fn what_a_name_says_is_not_believed_where_a_user_may_have_chosen_it() {
    let select = |part: &str| {
        format!(
            "diesel::query_builder::select_statement::SelectStatement<diesel::query_builder::from_clause::FromClause<\
             app::items::table>, diesel::query_builder::select_clause::SelectClause<{part}>>"
        )
    };
    let proven = |part: &str| prove(&select(part), "()") == Proof::Read;
    assert!(proven("app::items::columns::id"));
    assert!(proven("diesel::expression::bound::Bound<diesel::sql_types::Text, fn(app::A<u8>) -> app::B<u8>>"));
    for part in [
        "app::sneak::columns::id",
        "app::columns::id",
        "columns::id",
        "app::items::columns::id<app::Sneaky>",
        "app::diesel::expression::grouped::Grouped<app::items::columns::id>",
        "diesel::expression::grouped::Grouped<app::Sneaky>",
        "diesel::expression::bound::Bound<diesel::sql_types::Text, app::A<'<'>, app::Sneaky",
        "app::table<app::Sneaky>",
        "alloc::boxed::Box<dyn app::Sneaky>",
        "dyn diesel::query_builder::QueryFragment<app::Backend>",
        "diesel::expression::sql_literal::SqlLiteral<diesel::sql_types::BigInt>",
    ] {
        assert!(!proven(part), "{part}");
    }
    let wrapped = format!("app::SerializedQuery<{}, app::Conn>", select("app::items::columns::id"));
    assert_eq!(prove(&wrapped, "()"), Proof::None);
    assert_eq!(prove(&format!("app::Mine<{}>", select("app::items::columns::id")), "()"), Proof::None);
    let deep = "diesel::expression::grouped::Grouped<".repeat(100_000);
    assert!(!proven(&deep));
}

#[test]
fn a_proof_is_found_again_and_never_that_of_another_type() {
    for _ in 0..3 {
        for (name, expected) in [
            ("diesel::query_builder::select_statement::SelectStatement<app::items::table>", Proof::Read),
            ("diesel::query_builder::select_statement::SelectStatement<app::sneak>", Proof::None),
        ] {
            // The same name at as many places as there are memories, and more.
            for _ in 0..PROOFS_KEPT * 2 {
                let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
                assert_eq!(KNOWN.with(|known| known_of(known, name, "()").proof), expected);
                assert_eq!(KNOWN.with(|known| known_of(known, name, "()").proof), expected);
            }
        }
    }
}
