//! Why a line is rejected.

use thiserror::Error;

/// Each text begins with the reason's [`name`](Reason::name), so that a summary and its lines are found by one word.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Reason {
    #[error("line too long: more than {0} bytes")]
    LineTooLong(usize),
    #[error("not UTF-8 at byte {0}")]
    NotUtf8(usize),
    #[error("unbalanced quote")]
    UnbalancedQuote,
    #[error("too few columns: {0} instead of 3")]
    TooFewColumns(usize),
    #[error("too many columns: {0} instead of 3")]
    TooManyColumns(usize),
    #[error("not a number: `{column}` is {value}")]
    NotANumber { column: &'static str, value: Shown },
    #[error("number too large: `{column}` is {value}")]
    NumberTooLarge { column: &'static str, value: Shown },
    #[error("zero or negative amount: {0}")]
    NotPositive(i64),
    #[error("from and to are the same: account {0}")]
    SameAccount(i64),
    #[error("unknown account {0}")]
    UnknownAccount(i64),
    #[error("insufficient funds on account {0}")]
    InsufficientFunds(i64),
    #[error("balance too large on account {0}")]
    BalanceTooLarge(i64),
}

impl Reason {
    /// What the summary counts it as.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LineTooLong(_) => "line too long",
            Self::NotUtf8(_) => "not UTF-8",
            Self::UnbalancedQuote => "unbalanced quote",
            Self::TooFewColumns(_) => "too few columns",
            Self::TooManyColumns(_) => "too many columns",
            Self::NotANumber { .. } => "not a number",
            Self::NumberTooLarge { .. } => "number too large",
            Self::NotPositive(_) => "zero or negative amount",
            Self::SameAccount(_) => "from and to are the same",
            Self::UnknownAccount(_) => "unknown account",
            Self::InsufficientFunds(_) => "insufficient funds",
            Self::BalanceTooLarge(_) => "balance too large",
        }
    }
}

/// The most characters of a field that a message shows.
const SHOWN_LIMIT: usize = 40;

/// A field as a message shows it: quoted, since it may hold what a terminal would obey, and not at any length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    pub fn new(field: &str) -> Self {
        let mut shown: String = field.chars().take(SHOWN_LIMIT).collect();
        let dots = if shown.len() < field.len() { ".." } else { "" };
        shown = format!("{shown:?}{dots}");
        Self(shown)
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
