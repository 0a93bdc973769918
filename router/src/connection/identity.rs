//! What a database says of itself: the row of `multidb_meta`, and what its server is now.

use data_encoding::BASE32HEX_NOPAD;
use diesel::result::QueryResult;

use super::backend::Dialect;
use super::born::Born;
use crate::transaction_id::{DATABASE_ID_LENGTH, Home};

/// What a database is, as its own table and its server say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id, and of which environment and incarnation it is now. No incarnation: this is no primary.
    pub database_id: Box<str>,
    /// The environment that it was installed or adopted in.
    pub environment: Box<str>,
    /// The server that it was installed or adopted on.
    pub known_server: Box<str>,
    /// The incarnation that it was installed or adopted in, and those that an operator has replaced by it, the last one first.
    pub adopted: Box<str>,
    /// Whether a later incarnation is the greater one.
    pub grows: bool,
    /// The server that it is on.
    pub server: Box<str>,
    /// The server's incarnation; `None` where this is no primary.
    pub incarnation: Option<Box<str>>,
    /// A setting with which a commit could be lost, its value, and the value that it needs.
    pub shortcoming: Option<(Box<str>, Box<str>, &'static str)>,
}

impl Identity {
    /// Whether this is the server that it was installed or adopted on. Otherwise it is a copy, or was restored.
    pub fn is_known_server(&self) -> bool {
        self.known_server == self.server
    }

    /// The part of an id that leads here; `None` where this is no primary.
    pub(crate) fn home(&self) -> Option<Home> {
        let incarnation = self.incarnation.clone()?;
        Some(Home { environment: self.environment.clone(), database_id: self.database_id.clone(), incarnation })
    }
}

/// The environment of a database that was installed without naming one.
pub const ENVIRONMENT: &str = "default";

/// Says what the database is, if nobody has before.
pub fn install<B: Dialect>(raw: &mut B::Raw, born: &Born, environment: &str) -> QueryResult<()> {
    let mut database_id = BASE32HEX_NOPAD.encode(uuid::Uuid::new_v4().as_bytes());
    // Drawn at random, and long enough that no two databases of one application get the same.
    database_id.truncate(DATABASE_ID_LENGTH);
    B::execute_own(raw, born, B::IDENTITY[1], &[&database_id, environment]).map(drop)
}

/// The first setting that is not what it must be.
fn shortcoming<'a, B: Dialect>(
    settings: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<(Box<str>, Box<str>, &'static str)> {
    let mut wrong = settings.filter_map(|(name, value)| {
        let (_, should) = B::DURABLE.iter().find(|(known, should)| *known == name && *should != value)?;
        Some((name.into(), value.into(), *should))
    });
    wrong.next()
}

/// What separates what stands in one column.
const SEPARATOR: char = '|';

/// Asks a connection. The first column holds what is stored, the others what the server says.
pub fn ask<B: Dialect>(raw: &mut B::Raw, born: &Born) -> QueryResult<Identity> {
    let row = B::load_own(raw, born, B::IDENTITY[0], &[])?.into_iter().next().ok_or(diesel::result::Error::NotFound)?;
    let stored = row.a.unwrap_or_default();
    let mut parts = stored.split(SEPARATOR).map(Box::from);
    let mut next = || parts.next().unwrap_or_default();
    let server = row.b.unwrap_or_default();
    let mut told = server.split(SEPARATOR);
    let server = told.next().unwrap_or_default().into();
    let settings = told.filter_map(|setting| setting.split_once('='));
    Ok(Identity {
        shortcoming: shortcoming::<B>(settings),
        database_id: next(),
        environment: next(),
        adopted: next(),
        grows: B::INCARNATIONS_GROW,
        known_server: next(),
        server,
        incarnation: row.c.map(Box::from),
    })
}
