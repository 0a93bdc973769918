//! Scopes that run once for each key: idempotency keys with stored results.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::exact;
use super::open_scope::Scope;
use super::places::{Owner, differ_in_text};
use crate::connection::own::explained;
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::site::Function;

/// The longest key, in bytes.
pub const KEY_LIMIT: usize = 255;
/// The longest result that is stored, in bytes of its text.
pub const RESULT_LIMIT: usize = 1 << 20;
/// How long keys should be kept: [`forget_once`] takes it as an argument.
pub const ONCE_RETENTION: Duration = Duration::from_hours(30 * 24);

/// What `once` takes: a key, or a key and the body of the request, whose hash is compared where the key is used again.
///
/// A key is text or a number. It belongs to the function that used it first: its whole path, and the types of a method or of a
/// generic function. A function that is renamed gives its keys up: they answer with an error. So does one that stands inside of
/// another function, once its text is edited: two of these may have one path. The key of a closure belongs to the label of its
/// scope, or without one to the function around it. If a path, or a closure without a label, is met in two places, the second one
/// is [`Error::Config`]. A key lives in the database of the scope's first model.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no key for `once`",
    label = "not a key",
    note = "give a `&str`, a `String`, a whole number or a `Uuid`, or `(key, &body)` where `body` is `Serialize`"
)]
pub trait OnceKey {
    /// The key.
    fn key(&self) -> Cow<'_, str>;

    /// The hash of the body, or nothing where there is none.
    ///
    /// # Errors
    /// [`Error::Config`] where the body can't be written as JSON.
    fn body(&self) -> Result<String> {
        Ok(String::new())
    }
}

macro_rules! texts {
    ($($text:ty),*) => {$(
        impl OnceKey for $text {
            fn key(&self) -> Cow<'_, str> {
                Cow::Borrowed(self)
            }
        }
    )*};
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl OnceKey for $number {
            fn key(&self) -> Cow<'_, str> {
                Cow::Owned(self.to_string())
            }
        }
    )*};
}

texts!(str, String, Cow<'_, str>);
numbers!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, uuid::Uuid);

impl<K: OnceKey + ?Sized> OnceKey for &K {
    fn key(&self) -> Cow<'_, str> {
        (**self).key()
    }

    fn body(&self) -> Result<String> {
        (**self).body()
    }
}

impl<K: OnceKey, B: Serialize> OnceKey for (K, B) {
    fn key(&self) -> Cow<'_, str> {
        self.0.key()
    }

    fn body(&self) -> Result<String> {
        let unreadable = |error: serde_json::Error| {
            Error::config(format!("the body of a `once` key can't be hashed: {error}"), "give one that is plain data")
        };
        // Through a value, whose maps have an order.
        let mut value = serde_json::to_value(&self.1).map_err(unreadable)?;
        value.sort_all_objects();
        let mut text = serde_json::to_string(&value).map_err(unreadable)?;
        // If JSON has one text for several bodies, another text follows. All other bodies keep the hash that they have had.
        if let Some(beyond) =
            exact::beyond_json(&self.1).map_err(<serde_json::Error as serde::ser::Error>::custom).map_err(unreadable)?
        {
            text.push('\n');
            text.push_str(&beyond);
        }
        let mut hash = String::with_capacity(64);
        for byte in Sha256::digest(text) {
            write!(hash, "{byte:02x}").expect("a String takes everything");
        }
        Ok(hash)
    }
}

/// A `Result` whose `Ok` can be stored and read back.
#[diagnostic::on_unimplemented(
    message = "the result of a `once` scope is stored, and the `Ok` of `{Self}` can't be",
    label = "its `Ok` must be `Serialize` and `DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or return an id in place of the row"
)]
pub trait Stored: Sized {
    /// The value as text, from which it is read back as it is; `None` for an `Err`.
    ///
    /// # Errors
    /// That of the value's own `Serialize`; or the text gives another value, or none.
    fn text(&self) -> Option<Result<String, String>>;
    /// The value that was stored.
    ///
    /// # Errors
    /// Where it was stored by another version of the program, whose value was another.
    fn read(text: &str) -> Result<Self, String>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned, E> Stored for Result<T, E> {
    fn text(&self) -> Option<Result<String, String>> {
        self.as_ref().ok().map(exact::write)
    }

    fn read(text: &str) -> Result<Self, String> {
        exact::read(text).map(Ok)
    }
}

/// A key that a scope claims, and how its result is stored.
pub struct Once<R> {
    key: String,
    body: String,
    function: String,
    text: fn(&R) -> Option<Result<String, String>>,
    read: fn(&str) -> Result<R, String>,
}

/// What claiming a key has found.
pub enum Claim<R> {
    /// Nobody has used it.
    New,
    /// A call with this result.
    Done(R),
}

const INSERT: &str = "{insert} multidb_once (id, function, body, created) VALUES (?, ?, ?, {now}) {or_nothing}";
const SELECT: &str = "SELECT function AS a, body AS b, result AS c FROM multidb_once WHERE id = ? {now_committed}";
const UPDATE: &str = "UPDATE multidb_once SET result = ? WHERE id = ?";
const DELETE: &str = "DELETE FROM multidb_once WHERE created < {now} - ";

impl<R: Stored> Once<R> {
    /// A key for `function`.
    ///
    /// # Errors
    /// [`Error::Config`] for a key that is empty, too long or holds a NUL, and for a body that can't be hashed.
    pub fn new(key: &(impl OnceKey + ?Sized), function: String) -> Result<Self> {
        let (key, body) = (key.key().into_owned(), key.body()?);
        let problem = match key.len() {
            0 => "is empty".to_owned(),
            1..=KEY_LIMIT if key.contains('\0') => "holds a NUL".to_owned(),
            1..=KEY_LIMIT => return Ok(Self { key, body, function, text: R::text, read: R::read }),
            long => format!("has {long} bytes, and {KEY_LIMIT} is the most"),
        };
        Err(Error::config(format!("the `once` key of `{function}` {problem}"), "give the id of the request, say"))
    }
}

impl<R> Once<R> {
    /// The same as a key of this function, of which it knows the path.
    pub(super) fn owned_by(self, function: &Function) -> Result<Self> {
        Ok(Self { function: Owner::function(&self.function, function).name()?, ..self })
    }

    /// Writes the key, unless it is there: the first statement of the scope. Waits for a call with the same key that is
    /// under way.
    pub(super) fn claim(&self, scope: &Scope<'_>) -> Result<Claim<R>> {
        let (slot, file) = scope.first_slot()?;
        slot.limit_locks(true)?;
        let inserted = slot.execute_own_in(file, INSERT, &[&self.key, &self.function, &self.body]);
        let inserted = inserted.map_err(|error| explained(error, slot.alias()))?;
        slot.limit_locks(false)?;
        if inserted == 1 {
            return Ok(Claim::New);
        }
        let found = slot.load_own_in(file, SELECT, &[&self.key])?;
        let Some(row) = found.into_iter().next() else {
            return Err(self.mismatch("was forgotten at this moment; make the call again"));
        };
        if row.a.as_deref() != Some(&self.function) {
            let by = row.a.unwrap_or_default();
            if differ_in_text(&by, &self.function) {
                return Err(self.mismatch(
                    "was used by a function of this name with another text before; the keys of a function inside of another \
                     one are those of its text, so move it out, or rename one of the two if there are two",
                ));
            }
            return Err(self.mismatch(format!("was used by `{by}` before; keys of different functions must differ")));
        }
        if row.b.as_deref() != Some(&self.body) {
            return Err(self.mismatch("was used with another body before; a new request needs a new key"));
        }
        let Some(text) = row.c else {
            return Err(self.mismatch("has no result, which no call leaves behind; look who has written the row"));
        };
        let stored = (self.read)(&text);
        stored.map(Claim::Done).map_err(|error| {
            self.mismatch(format!("has a stored result that this version of the program can't read: {error}"))
        })
    }

    /// Stores the result beside its key.
    pub(super) fn store(&self, scope: &Scope<'_>, returned: &R) -> Result<()> {
        let Some(text) = (self.text)(returned) else { return Ok(()) };
        // Once it is committed no repeat could be answered.
        let text = text.map_err(|error| self.mismatch(format!("has a result that {error}")))?;
        if text.len() > RESULT_LIMIT {
            let problem = format!("has a result of {} bytes, and {RESULT_LIMIT} is the most", text.len());
            return Err(self.mismatch(problem));
        }
        let (slot, file) = scope.first_slot()?;
        let stored = slot.execute_own_in(file, UPDATE, &[&text, &self.key]);
        match stored.map_err(|error| explained(error, slot.alias()))? {
            1 => Ok(()),
            _ => Err(self.mismatch("was taken away while the scope ran")),
        }
    }

    fn mismatch(&self, problem: impl Into<String>) -> Error {
        Error::OnceMismatch { key: self.key.clone(), function: self.function.clone(), problem: problem.into() }
    }
}

/// Deletes keys of `once` that are older than `retention`, in every database, and gives how many. A call that repeats one
/// of them afterwards is run again. Each database's own clock counts.
///
/// Nothing calls it by itself: run it now and then, with [`ONCE_RETENTION`] or what your callers may need.
///
/// # Errors
/// Those of the first database that fails.
pub fn forget_once(databases: &Databases, retention: Duration) -> Result<usize> {
    let mut deleted = 0;
    for database in databases.iter() {
        let sql = format!("{DELETE}{}", retention.as_secs());
        let done = database.driver().execute_own(&sql, &[]);
        deleted += done.map_err(|error| explained(error, database.alias()))?;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn keys_are_texts_and_numbers() {
        assert_eq!("a".key(), "a");
        assert_eq!(String::from("b").key(), "b");
        assert_eq!(7_i64.key(), "7");
        assert_eq!((&7_u64, &"body").key(), "7");
        assert_eq!("a".body().expect("no body"), "");
    }

    #[test]
    fn equal_bodies_have_one_hash_whatever_the_order_of_their_maps() {
        let forth: HashMap<&str, u32> = (0..20).map(|n| (["a", "b", "c", "d", "e"][n % 5], 1)).collect();
        let back: HashMap<&str, u32> = forth.iter().map(|(key, value)| (*key, *value)).collect();
        assert_eq!(("k", &forth).body().expect("a hash"), ("k", &back).body().expect("a hash"));
        assert_ne!(("k", 1).body().expect("a hash"), ("k", 2).body().expect("a hash"));
        // SHA-256 of `1`: what is stored today must be found by later versions.
        let hash = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
        assert_eq!(("k", 1).body().expect("a hash"), hash);
    }

    #[test]
    fn a_key_that_can_not_be_stored_is_refused() {
        type R = Result<(), Error>;
        let long = "x".repeat(KEY_LIMIT + 1);
        for bad in ["", "a\0b", &long] {
            assert!(Once::<R>::new(bad, "f".into()).is_err(), "{bad:?}");
        }
        assert!(Once::<R>::new(&long[1..], "f".into()).is_ok());
    }
}
