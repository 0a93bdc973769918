//! Rows that were copied out of their connection.

use diesel::result::QueryResult;

/// The rows of a query that was read with [`OwnedRows`](crate::OwnedRows).
#[derive(Debug)]
pub struct OwnedIter<R>(std::vec::IntoIter<R>);

impl<R> OwnedIter<R> {
    pub(super) fn new(rows: Vec<R>) -> Self {
        Self(rows.into_iter())
    }
}

impl<R> Iterator for OwnedIter<R> {
    type Item = QueryResult<R>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}
