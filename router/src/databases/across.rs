//! What the configuration says of transactions over several databases.

use toml::Value;

use super::registry::nearest;
use crate::error::{Error, Result};
use crate::transaction_id::ENVIRONMENT_LIMIT;

/// What becomes of a transaction that needs a second database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CrossDatabase {
    /// The database becomes a part of the transaction, which commits on both or on none.
    #[default]
    Enlist,
    /// It is an error, [`Error::NotAtomic`], also where the scope says `commit = best_effort`.
    Refuse,
}

/// What recovery does where a branch has committed and the database that held the decision has lost it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnLostHome {
    /// The other branches stay prepared until an operator has decided.
    #[default]
    Wait,
    /// The other branches are committed as well.
    Commit,
}

/// The keys that stand beside the databases.
#[derive(Debug, Clone, Default)]
pub(super) struct Across {
    pub(super) environment: Option<String>,
    pub(super) cross_database: CrossDatabase,
    pub(super) on_lost_home: OnLostHome,
}

/// Their names.
const KEYS: [&str; 3] = ["environment", "cross_database", "on_lost_home"];

impl Across {
    /// Whether this is one of the keys.
    pub(super) fn knows(key: &str) -> bool {
        KEYS.contains(&key)
    }

    /// The key that was probably meant.
    pub(super) fn meant(key: &str) -> Option<&'static str> {
        nearest(key, &KEYS)
    }

    /// Takes a key's value.
    pub(super) fn set(&mut self, key: &str, value: &Value) -> Result<()> {
        match (key, value.as_str()) {
            ("environment", Some(tag)) => self.set_environment(tag)?,
            ("cross_database", Some("enlist")) => self.cross_database = CrossDatabase::Enlist,
            ("cross_database", Some("refuse")) => self.cross_database = CrossDatabase::Refuse,
            ("on_lost_home", Some("wait")) => self.on_lost_home = OnLostHome::Wait,
            ("on_lost_home", Some("commit")) => self.on_lost_home = OnLostHome::Commit,
            ("environment", None) => return Err(wrong(key, "write a text such as `\"prod\"`")),
            ("cross_database", _) => return Err(wrong(key, "write `\"enlist\"` or `\"refuse\"`")),
            _ => return Err(wrong(key, "write `\"wait\"` or `\"commit\"`")),
        }
        Ok(())
    }

    pub(super) fn set_environment(&mut self, tag: &str) -> Result<()> {
        let fits = (1..=ENVIRONMENT_LIMIT).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !fits {
            return Err(wrong("environment", "write 1 to 8 letters and digits, such as `\"prod\"`"));
        }
        self.environment = Some(tag.into());
        Ok(())
    }
}

fn wrong(key: &str, remedy: &str) -> Error {
    let problem = "it has a value that it can't have".to_owned();
    Error::Config { alias: None, key: Some(key.into()), problem, remedy: remedy.into() }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::databases::Databases;

    #[test]
    fn the_keys_beside_the_databases_are_read_and_their_values_checked() {
        let built = |keys: &str| Databases::from_toml(&format!("{keys}\n[default]\nurl = \"a.db\"\n"))?.build_lazy();
        let databases =
            built("environment = \"prod\"\ncross_database = \"refuse\"\non_lost_home = \"commit\"").expect("good");
        assert_eq!(databases.environment(), Some("prod"));
        assert_eq!(databases.cross_database(), CrossDatabase::Refuse);
        assert!(databases.commits_on_lost_home());
        let plain = built("").expect("good");
        assert_eq!((plain.environment(), plain.cross_database()), (None, CrossDatabase::Enlist));
        assert!(!plain.commits_on_lost_home());
        for (wrong, told) in [
            ("environment = \"production\"", "`environment`"),
            ("environment = \"\"", "1 to 8 letters"),
            ("cross_database = true", "`\"enlist\"` or `\"refuse\"`"),
            ("on_lost_home = \"abort\"", "`\"wait\"` or `\"commit\"`"),
            ("enviroment = \"prod\"", "did you mean `environment`?"),
            ("colour = \"red\"", "`[colour]`"),
        ] {
            let text = built(wrong).expect_err(wrong).to_string();
            assert!(text.contains(told), "{wrong}: {text}");
        }
        let text = Databases::builder()
            .sqlite("default", "a.db")
            .environment("a b")
            .build_lazy()
            .expect_err("bad")
            .to_string();
        assert!(text.contains("`environment`"), "{text}");
    }
}
