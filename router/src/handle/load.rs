//! Queries that give rows.

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::row::IntoOwnedRow;

use super::conn::Conn;
use super::cursor::{Stream, StreamRow};
use super::row::OwnedIter;

/// A loading mode that copies all rows first, so that other statements may run while they are read:
/// `query.load_iter::<Account, OwnedRows>(conn)`.
#[derive(Debug, Clone, Copy)]
pub struct OwnedRows;

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
        self.run(|link| LoadConnection::<DefaultLoadingMode>::load(link.raw(), source))
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
                Stream::open(self, source)
            }
        }
    };
}

streaming!("sqlite", crate::Sqlite, DefaultLoadingMode);
streaming!("mysql", crate::Mysql, DefaultLoadingMode);
streaming!("postgres", crate::Postgres, diesel::pg::PgRowByRowLoadingMode);

#[cfg(feature = "sqlite")]
impl LoadConnection<OwnedRows> for Conn<crate::Sqlite> {
    type Cursor<'conn, 'query> = OwnedIter<Self::Row<'conn, 'query>>;
    type Row<'conn, 'query> = <<diesel::SqliteConnection as LoadConnection>::Row<'conn, 'query> as IntoOwnedRow<
        'conn,
        diesel::sqlite::Sqlite,
    >>::OwnedRow;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Self::Cursor<'conn, 'query>>
    where
        T: Query + QueryFragment<Self::Backend> + QueryId + 'query,
        Self::Backend: QueryMetadata<T::SqlType>,
    {
        self.run(|link| {
            let mut names = None;
            let cursor = LoadConnection::<DefaultLoadingMode>::load(link.raw(), source)?;
            let rows = cursor.map(|row| Ok(row?.into_owned(&mut names))).collect::<QueryResult<Vec<_>>>()?;
            Ok(OwnedIter::new(rows))
        })
    }
}

/// PostgreSQL's and MySQL's rows own their values.
macro_rules! owned {
    ($feature:literal, $backend:ty, $raw:ty) => {
        #[cfg(feature = $feature)]
        impl LoadConnection<OwnedRows> for Conn<$backend> {
            type Cursor<'conn, 'query> = OwnedIter<Self::Row<'conn, 'query>>;
            type Row<'conn, 'query> = <$raw as LoadConnection>::Row<'conn, 'query>;

            fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Self::Cursor<'conn, 'query>>
            where
                T: Query + QueryFragment<Self::Backend> + QueryId + 'query,
                Self::Backend: QueryMetadata<T::SqlType>,
            {
                self.run(|link| {
                    let cursor = LoadConnection::<DefaultLoadingMode>::load(link.raw(), source)?;
                    Ok(OwnedIter::new(cursor.collect::<QueryResult<Vec<_>>>()?))
                })
            }
        }
    };
}

owned!("mysql", crate::Mysql, diesel::MysqlConnection);
owned!("postgres", crate::Postgres, diesel::PgConnection);
