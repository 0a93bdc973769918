//! The name of one transaction.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE32HEX_NOPAD;
use uuid::Uuid;

use crate::error::{Error, Result};

/// What the long form begins with: the format, so that a later one can be told apart.
pub(crate) const FORMAT: &str = "m1";
/// The longest environment tag, in bytes.
pub(crate) const ENVIRONMENT_LIMIT: usize = 8;
/// How many letters a database's own id has.
pub(crate) const DATABASE_ID_LENGTH: usize = 12;
/// How many letters an incarnation has.
pub(crate) const INCARNATION_LENGTH: usize = 8;
/// How many letters a UUID has in base 32.
const UUID_LENGTH: usize = 26;

/// Names one transaction, for logs and for asking about it later.
///
/// It is a version 7 UUID, so ids sort by the time they were made. One of 32 hexadecimal digits says nothing more. The long
/// form `m1_environment_database_incarnation_uuid` also says which database holds the decision about it: so
/// [`status`](crate::status) can tell later what became of it. Two ids are equal if their UUIDs are, whatever their form.
#[derive(Debug, Clone)]
pub struct TransactionId {
    uuid: Uuid,
    home: Option<Arc<Home>>,
}

/// The database that holds the decision about a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Home {
    /// Tells copies of a database apart: production's from that of a test system.
    pub(crate) environment: Box<str>,
    /// The database's own id, from its table `multidb_meta`.
    pub(crate) database_id: Box<str>,
    /// Which of its lives it was named in: a failover begins another one.
    pub(crate) incarnation: Box<str>,
}

impl TransactionId {
    pub(crate) fn new() -> Self {
        Self { uuid: Uuid::now_v7(), home: None }
    }

    /// The same transaction, whose decision is on this database.
    pub(crate) fn at(&self, home: Home) -> Self {
        Self { uuid: self.uuid, home: Some(Arc::new(home)) }
    }

    /// How long ago it was made, by this machine's clock.
    pub(crate) fn age(&self) -> Duration {
        let made = self.uuid.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
        let made = UNIX_EPOCH + Duration::new(made.0, made.1);
        SystemTime::now().duration_since(made).unwrap_or_default()
    }

    pub(crate) fn home(&self) -> Option<&Home> {
        self.home.as_deref()
    }

    /// The UUID in letters that sort like it.
    pub(crate) fn uuid_letters(&self) -> String {
        BASE32HEX_NOPAD.encode(self.uuid.as_bytes())
    }

    /// Reads the long form.
    fn long(text: &str) -> Option<Self> {
        let mut parts = text.split('_');
        let mut next = || parts.next();
        let (format, environment, database_id, incarnation, uuid) = (next()?, next()?, next()?, next()?, next()?);
        let letters = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let fits = format == FORMAT
            && (1..=ENVIRONMENT_LIMIT).contains(&environment.len())
            && database_id.len() == DATABASE_ID_LENGTH
            && incarnation.len() == INCARNATION_LENGTH
            && uuid.len() == UUID_LENGTH
            && [environment, database_id, incarnation].into_iter().all(letters)
            && parts.next().is_none();
        let bytes = BASE32HEX_NOPAD.decode(uuid.as_bytes()).ok().filter(|_| fits)?;
        let home =
            Home { environment: environment.into(), database_id: database_id.into(), incarnation: incarnation.into() };
        Some(Self { uuid: Uuid::from_slice(&bytes).ok()?, home: Some(Arc::new(home)) })
    }
}

/// Tells the name of a transaction from that of a branch, which MySQL writes together.
#[cfg(feature = "mysql")]
pub(crate) fn split_global(data: &str) -> Option<(String, String)> {
    let before_uuid = data.match_indices('_').nth(3)?.0 + 1;
    let (global, branch) = data.split_at_checked(before_uuid + UUID_LENGTH)?;
    TransactionId::long(global)?;
    Some((global.to_owned(), branch.to_owned()))
}

impl PartialEq for TransactionId {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}

impl Eq for TransactionId {}

impl PartialOrd for TransactionId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TransactionId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uuid.cmp(&other.uuid)
    }
}

impl Hash for TransactionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.home {
            None => self.uuid.simple().fmt(f),
            Some(home) => {
                let Home { environment, database_id, incarnation } = &**home;
                write!(f, "{FORMAT}_{environment}_{database_id}_{incarnation}_{}", self.uuid_letters())
            }
        }
    }
}

impl FromStr for TransactionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let short = || (text.len() == 32).then(|| Uuid::parse_str(text).ok()).flatten();
        let read = Self::long(text).or_else(|| short().map(|uuid| Self { uuid, home: None }));
        read.ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            Error::config(
                format!("`{}` is no transaction id", shown.escape_debug()),
                "give the id as the error or the log printed it",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home { environment: "prod".into(), database_id: "0123456789AB".into(), incarnation: "0000000A".into() }
    }

    #[test]
    fn an_id_is_read_back_as_it_was_printed() {
        let id = TransactionId::new();
        assert_eq!(id.to_string().parse::<TransactionId>().expect("its own text"), id);
        let long = id.at(home());
        let read = long.to_string().parse::<TransactionId>().expect("its own text");
        assert_eq!((&read, read.home()), (&id, Some(&home())));
        let other = TransactionId::new().to_string();
        for bad in ["x y", "", "abc", &other[1..], &long.to_string()[1..], &format!("{long}_x"), &format!("{long}é")] {
            assert!(bad.parse::<TransactionId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_long_form_fits_into_an_xa_id() {
        let longest = Home { environment: "x".repeat(ENVIRONMENT_LIMIT).into(), ..home() };
        assert_eq!(TransactionId::new().at(longest).to_string().len(), 60);
    }

    #[test]
    fn the_letters_of_ids_sort_by_their_time() {
        let ids: Vec<TransactionId> = (0..1000).map(|_| TransactionId::new()).collect();
        let letters: Vec<String> = ids.iter().map(TransactionId::uuid_letters).collect();
        assert!(ids.is_sorted() && letters.is_sorted());
    }
}
