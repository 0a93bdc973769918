//! Values as text, exactly: what `once` stores.
//!
//! JSON has one `null` for `None`, `Some(None)`, `Some(())` and a number that is none. RON has a text for each, but can't write
//! a field or variant whose serde name is no identifier (`"in progress"`, `"@type"`), nor `serde_json::Number` with
//! `arbitrary_precision`, and loses an empty struct in a tagged enum. So the text is JSON with words for what JSON lacks.

mod read;
mod text;
mod write;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::value::Error as Unfit;

/// What a text of this format begins with. JSON, which was stored before, never does.
const FORMAT: &str = "once1:";

/// A value, as its `Serialize` describes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Tree {
    None,
    Some(Box<Tree>),
    Unit,
    Bool(bool),
    /// With the name of its type, which is empty in a tree that was read.
    Int(i128, &'static str),
    /// More than `i128` holds.
    Big(u128),
    /// The bits of an `f64`, since NaN equals nothing.
    Float(u64, &'static str),
    Char(char),
    Text(String),
    Bytes(Vec<u8>),
    /// What may be a set, whose order is new each time.
    Seq(Vec<Tree>),
    Tuple(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
    /// A value of a type with a name, which is compared but not stored: a renamed type reads what was stored before.
    Named(&'static str, Box<Tree>),
}

/// The text of a value, from which it can be read back exactly as it is.
///
/// # Errors
/// That of the value's own `Serialize`; or the text reads back as another value, or as none.
pub(super) fn write<T: Serialize + DeserializeOwned>(value: &T) -> Result<String, String> {
    let tree = Tree::of(value).map_err(|error| format!("can't be written: {error}"))?;
    let mut text = FORMAT.to_owned();
    tree.write(&mut text);
    let back: T = read(&text).map_err(|error| format!("can't be read back: {error}"))?;
    let again = Tree::of(&back).map_err(|error| format!("can't be written again: {error}"))?;
    if tree.means(&again) {
        return Ok(text);
    }
    Err("is read back as another value: the `Serialize` and `Deserialize` of its type don't fit each other, as in an \
         untagged enum whose variants look the same"
        .to_owned())
}

/// The value of a text that [`write`] gave, or of the JSON that was stored before.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    match text.strip_prefix(FORMAT) {
        Some(text) => text::parse(text).and_then(T::deserialize).map_err(|error| error.to_string()),
        None => serde_json::from_str(text).map_err(|error| error.to_string()),
    }
}

/// A text that differs for values of the same JSON; `None` if the JSON is enough.
pub(super) fn beyond_json<T: Serialize>(value: &T) -> Result<Option<String>, String> {
    let mut tree = Tree::of(value).map_err(|error| error.to_string())?;
    if !tree.is_beyond_json() {
        return Ok(None);
    }
    tree.sort(false);
    let mut text = String::new();
    tree.write(&mut text);
    Ok(Some(text))
}

impl Tree {
    fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, Unfit> {
        value.serialize(write::Writer)
    }

    /// Whether both are one value, whatever order maps and sets give.
    fn means(&self, other: &Self) -> bool {
        self == other || {
            let (mut one, mut other) = (self.clone(), other.clone());
            one.sort(true);
            other.sort(true);
            one == other
        }
    }

    /// Gives maps an order, and what may be a set too.
    fn sort(&mut self, sets: bool) {
        match self {
            Self::Some(inner) | Self::Named(_, inner) => inner.sort(sets),
            Self::Tuple(items) => {
                for item in items {
                    item.sort(sets);
                }
            }
            Self::Seq(items) => {
                for item in &mut *items {
                    item.sort(sets);
                }
                if sets {
                    items.sort();
                }
            }
            Self::Map(entries) => {
                for (key, value) in &mut *entries {
                    key.sort(sets);
                    value.sort(sets);
                }
                entries.sort();
            }
            _ => {}
        }
    }

    /// Whether JSON writes it as `null`.
    fn is_null(&self) -> bool {
        match self {
            Self::None | Self::Unit => true,
            Self::Float(bits, _) => !f64::from_bits(*bits).is_finite(),
            Self::Some(inner) | Self::Named(_, inner) => inner.is_null(),
            _ => false,
        }
    }

    /// Whether JSON writes another value of its type in the same way.
    fn is_beyond_json(&self) -> bool {
        match self {
            Self::Some(inner) => inner.is_null() || inner.is_beyond_json(),
            Self::Float(..) => self.is_null(),
            Self::Named(_, inner) => inner.is_beyond_json(),
            Self::Seq(items) | Self::Tuple(items) => items.iter().any(Self::is_beyond_json),
            Self::Map(entries) => entries.iter().any(|(key, value)| key.is_beyond_json() || value.is_beyond_json()),
            _ => false,
        }
    }
}
