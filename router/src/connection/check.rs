//! What has to be right on a server before transactions over several databases can be trusted.

use super::own::TextRow;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortcoming {
    /// The setting, the table, or what else it is about.
    pub setting: String,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub wanted: String,
    /// What may happen otherwise.
    pub why: &'static str,
}

impl Shortcoming {
    /// One of them.
    pub fn new(
        setting: impl Into<String>,
        found: impl Into<String>,
        wanted: impl Into<String>,
        why: &'static str,
    ) -> Self {
        Self { setting: setting.into(), found: found.into(), wanted: wanted.into(), why }
    }
}

/// The text of a row's first column.
pub fn text(row: &TextRow) -> &str {
    row.a.as_deref().unwrap_or_default()
}

/// The text of a row's second column as a number; 0 where it is none.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub fn number(row: &TextRow) -> u64 {
    row.b.as_deref().and_then(|number| number.parse().ok()).unwrap_or(0)
}
