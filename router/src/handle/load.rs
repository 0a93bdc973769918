//! Queries that give rows.

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;

use super::conn::Conn;
use super::cursor::{Stream, StreamRow};
use super::proof::proof_of;
use crate::connection::gate::Proof;

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
            let question = link.admit_query(&source)?;
            let result = LoadConnection::<DefaultLoadingMode>::load(link.raw(), source);
            link.answered(question, result)
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
                let proof = proof_of::<T>();
                self.weigh(|| proof)?;
                if proof == Proof::Read { Stream::open(self, source) } else { Stream::copy(self, source) }
            }
        }
    };
}

streaming!("sqlite", crate::Sqlite, DefaultLoadingMode);
streaming!("mysql", crate::Mysql, DefaultLoadingMode);
streaming!("postgres", crate::Postgres, diesel::pg::PgRowByRowLoadingMode);
