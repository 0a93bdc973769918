//! Copies of rows of SQLite.

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::row::IntoOwnedRow;
use diesel::sqlite::{Sqlite as Native, SqliteConnection};

use super::Copies;

/// A row of Diesel's cursor.
type Borrowed = <SqliteConnection as LoadConnection>::Row<'static, 'static>;

impl Copies<DefaultLoadingMode> for crate::Sqlite {
    type Copied = <Borrowed as IntoOwnedRow<'static, Native>>::OwnedRow;

    fn load_all<T>(raw: &mut SqliteConnection, source: T) -> QueryResult<Vec<Self::Copied>>
    where
        T: Query + QueryFragment<Native> + QueryId,
        Native: QueryMetadata<T::SqlType>,
    {
        let mut names = <Borrowed as IntoOwnedRow<'static, Native>>::Cache::default();
        // No step follows the last one, or a failed one: it would run the statement again.
        raw.load(source)?.map(|row| Ok(row?.into_owned(&mut names))).collect()
    }
}
