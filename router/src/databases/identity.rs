//! Which aliases are one database.

use std::path::{Path, PathBuf};

use super::conninfo;
use super::database::{Database, Kind};
use super::url::is_private_memory;

/// What tells one database from another.
#[derive(PartialEq, Eq)]
enum Identity {
    /// A file, by its device and its number there.
    File(u64, u64),
    /// A file that is not there yet.
    Path(PathBuf),
    /// A server's database, by its whole URL: two that differ in a parameter may show different schemas.
    Url(String),
    /// The same by the words that libpq takes, in an order of ours.
    Words(Vec<(String, String)>),
    /// A database in memory that belongs to one connection.
    Own(usize),
}

/// For each database the index of the first one that is the same, be it by its identity or because the configuration says so. A scope on both has one connection and one transaction.
pub(super) fn same(databases: &[Database]) -> Vec<usize> {
    let identities: Vec<Identity> =
        databases.iter().enumerate().map(|(index, database)| identity(index, database)).collect();
    let first = |index: usize| identities.iter().position(|known| *known == identities[index]).unwrap_or(index);
    let named = |index: usize| {
        let named = databases[index].same_as.as_ref()?;
        databases.iter().position(|other| other.alias == *named)
    };
    let mut same: Vec<usize> = (0..databases.len()).map(first).collect();
    for index in 0..databases.len() {
        if let Some(other) = named(index) {
            // All that were the same as either are the same now.
            let (a, b) = (same[index].min(same[other]), same[index].max(same[other]));
            same.iter_mut().filter(|known| **known == b).for_each(|known| *known = a);
        }
    }
    same
}

fn identity(index: usize, database: &Database) -> Identity {
    let url = &database.driver.settings().url;
    if database.kind != Kind::Sqlite {
        let words = conninfo::is_conninfo(url).then(|| conninfo::sorted(url)).flatten();
        return words.map_or_else(|| Identity::Url(url.clone()), Identity::Words);
    }
    if is_private_memory(database.kind, url) {
        return Identity::Own(index);
    }
    match file_of(url) {
        None => Identity::Url(url.clone()),
        Some(path) => file(path).unwrap_or_else(|| Identity::Path(absolute(path))),
    }
}

/// The file of a SQLite database; `None` where it is in memory.
pub(crate) fn file_of(url: &str) -> Option<&Path> {
    if url.contains("mode=memory") || url.contains(":memory:") {
        return None;
    }
    // Only a URL has parameters: in a path a question mark is a letter.
    let path = url.strip_prefix("file:").map_or(url, |rest| rest.split_once('?').map_or(rest, |(path, _)| path));
    Some(Path::new(path))
}

#[cfg(unix)]
fn file(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(Identity::File(metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file(path: &Path) -> Option<Identity> {
    std::fs::canonicalize(path).ok().map(Identity::Path)
}

/// The path, with what is there of it resolved.
fn absolute(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    path.file_name().map_or_else(|| path.to_owned(), |name| folder.join(name))
}
