//! Queries that give rows.

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;

use super::conn::Conn;
use super::cursor::{Stream, StreamRow};
use crate::connection::gate::Proof;
use crate::connection::link::{is_raw_sql, type_name};

/// What a statement's type proves. A read is Diesel's SELECT without a locking clause and without raw SQL.
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
    let reads = name.starts_with(SELECT) && !name.contains("::locking_clause::LockingClause<") && !is_raw_sql(name);
    if reads { Proof::Read } else { Proof::None }
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
        self.run(|link| {
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
