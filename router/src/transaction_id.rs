//! The name of one transaction.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest id that is read back, in bytes: the limit of an XA global id.
const ID_LIMIT: usize = 64;

/// Names one transaction, for logs and for asking about it later.
///
/// It is a version 7 UUID of 32 hexadecimal digits, so ids sort by the time they were made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(Arc<str>);

impl TransactionId {
    pub(crate) fn new() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string().into())
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TransactionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = text.len() <= ID_LIMIT && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if plain {
            Ok(Self(text.into()))
        } else {
            Err(Error::config(
                format!("`{}` is no transaction id", text.escape_debug()),
                "give the id as the error or the log printed it",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_as_it_was_printed() {
        let id = TransactionId::new();
        assert_eq!(id.to_string().parse::<TransactionId>().expect("its own text"), id);
        assert!("x y".parse::<TransactionId>().is_err());
    }
}
