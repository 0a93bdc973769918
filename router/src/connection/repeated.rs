//! Which statement texts a connection keeps prepared beyond those that Diesel keeps.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// How many statement texts a connection keeps prepared beyond those that Diesel keeps.
pub const REPEATED_LIMIT: usize = 256;

/// Which statement texts are worth keeping prepared.
#[derive(Default)]
pub struct Repeated {
    hasher: RandomState,
    seen: HashSet<u64>,
    kept: HashSet<Box<str>>,
}

impl Repeated {
    /// Whether this text is kept.
    pub fn keeps(&self, sql: &str) -> bool {
        self.kept.contains(sql)
    }

    /// Whether this text, which is not kept, was seen before and there is room for it, so that it is kept from now on.
    pub fn admits(&mut self, sql: &str) -> bool {
        if self.kept.len() >= REPEATED_LIMIT {
            return false;
        }
        let hash = self.hasher.hash_one(sql);
        if self.seen.remove(&hash) {
            self.kept.insert(sql.into());
            return true;
        }
        if self.seen.len() >= REPEATED_LIMIT {
            self.seen.clear();
        }
        self.seen.insert(hash);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_from_its_second_use_and_no_more_than_the_limit() {
        let mut repeated = Repeated::default();
        assert!(!repeated.admits("UPDATE a"));
        assert!(!repeated.keeps("UPDATE a"));
        assert!(repeated.admits("UPDATE a"));
        for n in 0..2 * REPEATED_LIMIT {
            let text = format!("UPDATE {n}");
            repeated.admits(&text);
            repeated.admits(&text);
        }
        assert_eq!(repeated.kept.len(), REPEATED_LIMIT);
        assert!(repeated.keeps("UPDATE a"));
        assert!(repeated.seen.len() <= REPEATED_LIMIT);
    }
}
