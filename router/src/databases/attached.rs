//! Several SQLite files in one transaction: pools whose connections hold all of them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::database::{Driver, Kind};
use super::registry::Databases;
use super::url::is_private_memory;
use crate::connection::attached::{FILES_LIMIT, File, in_memory, in_wal_mode, refusal};
use crate::connection::settings::Settings;
use crate::error::Result;

/// The most connections of a pool of several files. A transaction that writes locks all of them, so more connections only
/// wait for each other.
pub const ATTACHED_POOL_SIZE: u32 = 4;
/// For how many sets of files the pools are kept. One more closes the idle connections of the set that was not asked for
/// longest.
pub const ATTACHED_SETS_LIMIT: usize = 32;

/// The pools that were made so far, the one that was asked for last at the end.
#[derive(Default)]
pub(super) struct Sets(Mutex<Vec<Set>>);

struct Set {
    /// The databases, each by the first index that is the same database.
    key: Vec<usize>,
    order: Vec<usize>,
    driver: Arc<dyn Driver>,
}

impl Sets {
    /// The pools that are kept at this moment.
    #[cfg(feature = "testing")]
    pub(super) fn drivers(&self) -> Vec<Arc<dyn Driver>> {
        let sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sets.iter().map(|set| Arc::clone(&set.driver)).collect()
    }

    fn find(&self, key: &[usize]) -> Option<(Arc<dyn Driver>, Vec<usize>)> {
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = sets.iter().position(|set| set.key == key)?;
        sets[at..].rotate_left(1);
        sets.last().map(|set| (Arc::clone(&set.driver), set.order.clone()))
    }

    fn keep(&self, set: Set) {
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = if sets.len() >= ATTACHED_SETS_LIMIT { Some(sets.remove(0)) } else { None };
        sets.push(set);
        drop(sets);
        // Closing connections takes a while, and nobody should wait for it.
        drop(dropped);
    }
}

impl Databases {
    /// A driver whose connections hold all these SQLite files, and their indices in the order in which it holds them: the
    /// first is `main`, the others are attached as `multidb_1`, `multidb_2` and so on.
    ///
    /// The order is that of their paths, so that every transaction over them locks them in the same order, in whatever
    /// process. Databases that are the same count once, by the first index. What is one file by then has its own driver.
    ///
    /// # Errors
    /// [`Error::NotAtomic`](crate::Error::NotAtomic) where a commit could be kept in part. Nothing is kept of that: when
    /// the files have changed it may be asked again.
    pub(crate) fn attached(&self, indices: &[usize]) -> Result<(Arc<dyn Driver>, Vec<usize>)> {
        let mut key: Vec<usize> = indices.iter().map(|index| self.registry().same[*index]).collect();
        key.sort_unstable();
        key.dedup();
        if let [only] = key[..] {
            return Ok((Arc::clone(&self.at(only).driver), key));
        }
        let sets = &self.registry().attached;
        if let Some(found) = sets.find(&key) {
            return Ok(found);
        }
        // Not under the lock, since it opens files. Where two do it at once, one of the two pools is dropped unused.
        let (driver, order) = self.attach(&key)?;
        if let Some(found) = sets.find(&key) {
            return Ok(found);
        }
        sets.keep(Set { key, order: order.clone(), driver: Arc::clone(&driver) });
        Ok((driver, order))
    }

    fn attach(&self, key: &[usize]) -> Result<(Arc<dyn Driver>, Vec<usize>)> {
        self.refuse_unfit(key)?;
        let paths = Kind::Sqlite.driver(self.settings_of(key))?.inspect()?;
        // SQLite gives whole paths, with all links resolved.
        let mut found: Vec<(PathBuf, usize)> = paths.into_iter().zip(key.iter().copied()).collect();
        found.sort();
        if let Some([(path, one), (_, other)]) = found.array_windows().find(|[a, b]| a.0 == b.0) {
            let (one, other) = (self.at(*one).alias(), self.at(*other).alias());
            let reason =
                format!("`{one}` and `{other}` are one file ({}), which would wait for itself", path.display());
            let remedies = format!("write `same_as = \"{one}\"` for `{other}` in the configuration");
            return Err(refusal(&self.files_of(key), reason, remedies));
        }
        let order: Vec<usize> = found.into_iter().map(|(_, index)| index).collect();
        Ok((Kind::Sqlite.driver(self.settings_of(&order))?, order))
    }

    /// Refuses what can be told without opening a file.
    fn refuse_unfit(&self, key: &[usize]) -> Result<()> {
        let files = self.files_of(key);
        for (file, index) in files.iter().zip(key) {
            let (database, alias) = (self.at(*index), &file.alias);
            if !database.is_sqlite() {
                let reason = format!("`{alias}` is {}, and only SQLite files share a connection", database.backend());
                return Err(refusal(&files, reason, "leave it out of the set".to_owned()));
            }
            if is_private_memory(Kind::Sqlite, &file.url) {
                return Err(in_memory(&files, file));
            }
            if let Some(error) = database.without_file() {
                return Err(error);
            }
            if file.journal_mode == Some("wal") {
                return Err(in_wal_mode(&files, file, &file.url));
            }
            if database.driver().settings().is_rolled_back() {
                let reason = format!("the work of this test on `{alias}` is rolled back, by a connection of its own");
                return Err(refusal(&files, reason, "let the test commit: `testing::committed`".to_owned()));
            }
        }
        if files.len() > FILES_LIMIT {
            let reason = format!("they are {} files, and one transaction takes {FILES_LIMIT}", files.len());
            return Err(refusal(&files, reason, "do the work in parts, or keep more of it in one file".to_owned()));
        }
        Ok(())
    }

    fn files_of(&self, order: &[usize]) -> Vec<File> {
        let file = |index: &usize| {
            let settings = self.at(*index).driver().settings();
            let (alias, url) = (settings.alias.clone(), settings.url.clone());
            let right_of_way = Arc::clone(&settings.right_of_way);
            File { alias, url, journal_mode: settings.sqlite.journal_mode, right_of_way }
        };
        order.iter().map(file).collect()
    }

    /// What a pool of all these files is made from. What a connection has once is the narrower of what they ask for.
    fn settings_of(&self, order: &[usize]) -> Settings {
        let all = || order.iter().map(|index| self.at(*index).driver().settings());
        let mut settings = all().next().expect("at least one file").clone();
        settings.files = self.files_of(order);
        // What each file gets; whatever sets the session of the first one again must not set it lower.
        settings.sqlite.synchronous = Some("extra");
        settings.alias = all().map(|one| one.alias.as_str()).collect::<Vec<_>>().join("+").into();
        for one in all() {
            let (pool, sqlite) = (&mut settings.pool, &mut settings.sqlite);
            pool.max_size = pool.max_size.min(one.pool.max_size).min(ATTACHED_POOL_SIZE);
            pool.connection_timeout = pool.connection_timeout.min(one.pool.connection_timeout);
            sqlite.busy_timeout = sqlite.busy_timeout.min(one.sqlite.busy_timeout);
            sqlite.foreign_keys |= one.sqlite.foreign_keys;
            settings.prepare_repeated &= one.prepare_repeated;
        }
        #[cfg(feature = "testing")]
        if let Some(test) = &mut settings.test {
            for other in all().skip(1).filter_map(|one| one.test.as_ref()) {
                test.undeclared |= other.undeclared;
                test.more_faults.push(Arc::clone(&other.faults));
            }
        }
        // Opened when first needed.
        settings.pool.min_idle = 0;
        settings
    }
}
