//! Copies of rows of MySQL and MariaDB.
//!
//! Diesel's own rows have values of their own. But the names of their columns lie in the statement, which ends with its cursor.

use std::ops::Range;
use std::rc::Rc;

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::expression::QueryMetadata;
use diesel::mysql::{Mysql as Native, MysqlConnection, MysqlType, MysqlValue};
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::row::{Field, PartialRow, Row, RowIndex, RowSealed};

use super::Copies;

impl Copies<DefaultLoadingMode> for crate::Mysql {
    type Copied = CopiedRow;

    fn load_all<T>(raw: &mut MysqlConnection, source: T) -> QueryResult<Vec<CopiedRow>>
    where
        T: Query + QueryFragment<Native> + QueryId,
        Native: QueryMetadata<T::SqlType>,
    {
        let mut names = None;
        raw.load(source)?.map(|row| Ok(CopiedRow::of(&row?, &mut names))).collect()
    }
}

/// The names of the columns of a query, which its rows share.
type Names = Rc<[Option<String>]>;

/// A value, and its type as the server gives it.
type Value = (MysqlType, Box<[u8]>);

/// A row that has its own values.
#[derive(Debug)]
pub struct CopiedRow {
    names: Names,
    values: Box<[Option<Value>]>,
}

impl CopiedRow {
    fn of<'row>(row: &'row impl Row<'row, Native>, names: &mut Option<Names>) -> Self {
        let fields = || (0..row.field_count()).filter_map(|at| Row::get(row, at));
        let name = |field: &dyn Field<'row, Native>| field.field_name().map(str::to_owned);
        let names = names.get_or_insert_with(|| fields().map(|field| name(&field)).collect());
        let values = fields().map(|field| field.value().map(|value| (value.value_type(), value.as_bytes().into())));
        Self { names: Rc::clone(names), values: values.collect() }
    }
}

impl RowSealed for CopiedRow {}

impl<'row> Row<'row, Native> for CopiedRow {
    type Field<'field>
        = CopiedField<'field>
    where
        'row: 'field,
        Self: 'field;
    type InnerPartialRow = Self;

    fn field_count(&self) -> usize {
        self.values.len()
    }

    fn get<'field, I>(&'field self, index: I) -> Option<CopiedField<'field>>
    where
        'row: 'field,
        Self: RowIndex<I>,
    {
        let at = self.idx(index)?;
        Some(CopiedField { row: self, at })
    }

    fn partial_row(&self, range: Range<usize>) -> PartialRow<'_, Self> {
        PartialRow::new(self, range)
    }
}

impl RowIndex<usize> for CopiedRow {
    fn idx(&self, index: usize) -> Option<usize> {
        (index < self.values.len()).then_some(index)
    }
}

impl RowIndex<&str> for CopiedRow {
    fn idx(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|found| found.as_deref() == Some(name))
    }
}

/// A field of such a row.
#[derive(Debug)]
pub struct CopiedField<'row> {
    row: &'row CopiedRow,
    at: usize,
}

impl<'row> Field<'row, Native> for CopiedField<'row> {
    fn field_name(&self) -> Option<&str> {
        self.row.names.get(self.at)?.as_deref()
    }

    fn value(&self) -> Option<MysqlValue<'_>> {
        let (kind, bytes) = self.row.values.get(self.at)?.as_ref()?;
        Some(MysqlValue::new(bytes, *kind))
    }
}
