//! The name of a database.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The longest alias, in bytes.
pub(crate) const ALIAS_LIMIT: usize = 63;

/// The name under which an application knows one of its databases, such as `default` or `orders`.
///
/// Django calls this a database alias, Spring a data source name, Rails a connection name. An alias holds either a
/// `&'static str` or a shared string, so that cloning one, or returning one from a router, allocates nothing.
#[derive(Clone)]
pub struct Alias(Text);

#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Alias {
    /// The alias that answers for every model on which no router has an opinion.
    pub const DEFAULT: Alias = Alias(Text::Static("default"));

    /// The alias as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Static(text) => text,
            Text::Shared(text) => text,
        }
    }

    /// Why this can't be the name of a database, if it can't.
    ///
    /// Aliases stand in environment variables, in file names and in the ids of transactions, so they are kept plain.
    pub(crate) fn objection(&self) -> Option<&'static str> {
        let text = self.as_str();
        if text.is_empty() {
            return Some("it is empty");
        }
        if text.len() > ALIAS_LIMIT {
            return Some("it is longer than 63 bytes");
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        if !text.bytes().all(plain) {
            return Some("it may hold lower-case letters, digits, `_` and `-` only");
        }
        None
    }
}

impl From<&'static str> for Alias {
    fn from(text: &'static str) -> Self {
        Alias(Text::Static(text))
    }
}

impl From<String> for Alias {
    fn from(text: String) -> Self {
        Alias(Text::Shared(text.into()))
    }
}

impl From<&Alias> for Alias {
    fn from(alias: &Alias) -> Self {
        alias.clone()
    }
}

impl PartialEq for Alias {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Alias {}

impl PartialEq<str> for Alias {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Alias {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialOrd for Alias {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alias {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Alias {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for Alias {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_and_a_shared_alias_of_one_text_are_equal() {
        assert_eq!(Alias::from("orders"), Alias::from(String::from("orders")));
        assert_ne!(Alias::from("orders"), Alias::from("order"));
    }

    #[test]
    fn names_that_would_not_fit_elsewhere_are_objected_to() {
        for bad in ["", "Orders", "or ders", "ordérs", "a.b", "a/b"] {
            assert!(Alias::from(bad).objection().is_some(), "{bad:?} was let through");
        }
        assert!(Alias::from("x".repeat(64)).objection().is_some());
        for good in ["default", "orders-2", "a_b", "9"] {
            assert_eq!(Alias::from(good).objection(), None, "{good:?} was refused");
        }
    }
}
