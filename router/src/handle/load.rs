//! Queries that give rows.

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;

use super::conn::Conn;
use super::cursor::{Stream, StreamRow};
use crate::connection::gate::Proof;
use crate::connection::link::{is_raw_sql, type_name};

/// Whether a query calls a function that the user has declared: nothing is known of what that does.
fn calls_declared_function(type_name: &str) -> bool {
    // `define_sql_function!` makes a module `.._utils`; Diesel's own functions are made by it too.
    type_name.match_indices("_utils::").any(|(at, _)| {
        let start = type_name[..at].rfind(|letter: char| !letter.is_alphanumeric() && !matches!(letter, '_' | ':'));
        !type_name[start.map_or(0, |before| before + 1)..].starts_with("diesel::")
    })
}

/// What a statement's type proves. A read is Diesel's SELECT without a locking clause, without raw SQL and without functions of
/// the user's.
pub(super) fn proof_of<T>() -> Proof {
    const SELECT: &str = "diesel::query_builder::select_statement::";
    const WRITES: [&str; 3] = [
        "diesel::query_builder::insert_statement::",
        "diesel::query_builder::update_statement::",
        "diesel::query_builder::delete_statement::",
    ];
    let name = type_name::<T>();
    if WRITES.iter().any(|write| name.starts_with(write)) {
        return Proof::Write;
    }
    let reads = name.starts_with(SELECT)
        && !name.contains("::locking_clause::LockingClause")
        && !is_raw_sql(name)
        && !calls_declared_function(name);
    if reads { Proof::Read } else { Proof::None }
}

/// Whether a statement may do more than its type tells: notify others, or change the session.
pub(super) fn is_unproven<T>() -> bool {
    let name = type_name::<T>();
    let hides_parts = name.contains("Boxed") || name.contains("dyn ");
    proof_of::<T>() == Proof::None || hides_parts || is_raw_sql(name) || calls_declared_function(name)
}

/// PostgreSQL's default cursor has received all rows before the first is read, and borrows nothing.
#[cfg(feature = "postgres")]
impl LoadConnection<DefaultLoadingMode> for Conn<crate::Postgres> {
    type Cursor<'conn, 'query> = <diesel::PgConnection as LoadConnection<DefaultLoadingMode>>::Cursor<'conn, 'query>;
    type Row<'conn, 'query> = <diesel::PgConnection as LoadConnection<DefaultLoadingMode>>::Row<'conn, 'query>;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Self::Cursor<'conn, 'query>>
    where
        T: Query + QueryFragment<Self::Backend> + QueryId + 'query,
        Self::Backend: QueryMetadata<T::SqlType>,
    {
        self.weigh(proof_of::<T>)?;
        let unproven = self.is_to_be_noted::<T>();
        self.run(|link| {
            if unproven {
                link.note_unproven();
            }
            link.admit_query(&source)?;
            LoadConnection::<DefaultLoadingMode>::load(link.raw(), source)
        })
    }
}

macro_rules! streaming {
    ($feature:literal, $backend:ty, $mode:ty) => {
        #[cfg(feature = $feature)]
        impl LoadConnection<$mode> for Conn<$backend> {
            type Cursor<'conn, 'query> = Stream<'conn, 'query, $backend, $mode>;
            type Row<'conn, 'query> = StreamRow<'conn, 'query, $backend, $mode>;

            fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Self::Cursor<'conn, 'query>>
            where
                T: Query + QueryFragment<Self::Backend> + QueryId + 'query,
                Self::Backend: QueryMetadata<T::SqlType>,
            {
                self.weigh(proof_of::<T>)?;
                Stream::open(self, source)
            }
        }
    };
}

streaming!("sqlite", crate::Sqlite, DefaultLoadingMode);
streaming!("mysql", crate::Mysql, DefaultLoadingMode);
streaming!("postgres", crate::Postgres, diesel::pg::PgRowByRowLoadingMode);

#[cfg(test)]
mod tests {
    use diesel::prelude::*;

    use super::*;

    diesel::table! { items (id) { id -> BigInt, name -> Text, } }

    diesel::define_sql_function! { fn sneak(x: diesel::sql_types::BigInt) -> diesel::sql_types::BigInt; }

    fn proof<T>(_query: &T) -> Proof {
        proof_of::<T>()
    }

    #[test]
    fn a_read_is_proven_by_its_type_and_a_function_of_the_users_proves_nothing() {
        use diesel::dsl::{count, max, sql};
        assert_eq!(proof(&items::table.filter(items::id.eq(1)).select(max(items::id))), Proof::Read);
        assert_eq!(proof(&items::table.group_by(items::name).select((items::name, count(items::id)))), Proof::Read);
        assert_eq!(proof(&items::table.select(sneak(items::id))), Proof::None);
        assert_eq!(proof(&diesel::select(sneak(5))), Proof::None);
        assert_eq!(proof(&items::table.filter(sql::<diesel::sql_types::Bool>("sneak(id)"))), Proof::None);
        assert_eq!(proof(&items::table.for_update()), Proof::None);
        assert_eq!(proof(&items::table.for_share().skip_locked()), Proof::None);
        assert_eq!(proof(&diesel::delete(items::table)), Proof::Write);
        assert_eq!(proof(&diesel::update(items::table).set(items::name.eq("a"))), Proof::Write);
        assert_eq!(
            proof(&diesel::insert_into(items::table).values(items::id.eq(1)).returning(items::id)),
            Proof::Write
        );
    }
}
