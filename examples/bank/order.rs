//! From a line to an order, or to the reason why it is none.

use std::num::IntErrorKind;
use std::str;

use csv::{ReaderBuilder, StringRecord, Terminator, Trim};

use crate::error::BankError;
use crate::reason::{Reason, Shown};

const COLUMNS: [&str; 3] = ["from", "to", "cents"];

/// What a line asks for.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub from: i64,
    pub to: i64,
    pub cents: i64,
}

/// Whether the line is the header, which only the first line of a file may be.
pub fn is_header(line: &[u8]) -> bool {
    str::from_utf8(line).is_ok_and(|line| record(line).is_ok_and(|record| record.iter().eq(COLUMNS)))
}

impl Order {
    /// Reads a line on its own, so that an open quote can't swallow the lines after it.
    ///
    /// Of several faults the first of this order is named: the bytes, the quotes, the number of columns, each field
    /// from the left, the amount, the two accounts. What only the database knows is checked in the transfer.
    pub fn parse(line: &[u8]) -> Result<Self, BankError> {
        let line = str::from_utf8(line).map_err(|error| Reason::NotUtf8(error.valid_up_to() + 1))?;
        // The parser takes the end of its input for the closing quote. A quote in a number is a fault in any case.
        if line.matches('"').count() % 2 != 0 {
            return Err(Reason::UnbalancedQuote.into());
        }
        let record = record(line)?;
        if record.len() < COLUMNS.len() {
            return Err(Reason::TooFewColumns(record.len()).into());
        }
        if record.len() > COLUMNS.len() {
            return Err(Reason::TooManyColumns(record.len()).into());
        }
        let [from, to, cents] = [number(&record, 0)?, number(&record, 1)?, number(&record, 2)?];
        if cents <= 0 {
            return Err(Reason::NotPositive(cents).into());
        }
        if from == to {
            return Err(Reason::SameAccount(from).into());
        }
        Ok(Self { from, to, cents })
    }
}

fn record(line: &str) -> Result<StringRecord, csv::Error> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        // A lone carriage return would otherwise end the record, and what is behind it would be lost unseen.
        .terminator(Terminator::Any(b'\n'))
        .buffer_capacity(line.len().max(1))
        .from_reader(line.as_bytes());
    let mut record = StringRecord::new();
    reader.read_record(&mut record)?;
    Ok(record)
}

fn number(record: &StringRecord, at: usize) -> Result<i64, Reason> {
    let (column, field) = (COLUMNS[at], &record[at]);
    field.parse::<i64>().map_err(|error| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
            Reason::NumberTooLarge { column, value: Shown::new(field) }
        }
        _ => Reason::NotANumber { column, value: Shown::new(field) },
    })
}
