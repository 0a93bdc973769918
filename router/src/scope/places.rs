//! The places of functions with `once`: two of one name would share their keys.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::site::Function;

/// The place of a function, and a hash of its text: what a macro makes several of stands in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    file: &'static str,
    line: u32,
    column: u32,
    text: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The name and place of the function that a key belongs to.
#[derive(Debug)]
pub(super) struct Owner {
    name: String,
    /// None if the user has named it: a name may stand in several places.
    place: Option<Place>,
    remedy: &'static str,
}

impl Owner {
    /// An annotated function. `path` is the name of a closure's type in it: the function's whole path, with the types of a
    /// method and of a generic function.
    ///
    /// Only functions inside of functions can have one path. That of such a one has the hash of its text in it, since another
    /// process may know the other one alone.
    pub(super) fn function(path: &str, function: &Function) -> Self {
        let (column, text) = function.text();
        let name =
            if is_inside(path, function.module()) { format!("{path}{TEXT}{text:016x}") } else { path.to_owned() };
        let place = Place { file: function.file(), line: function.line(), column, text };
        Self { name, place: Some(place), remedy: "rename one of them" }
    }

    /// A closure: its label, or else the function that it stands in.
    pub(super) fn closure(path: &str, label: Option<&'static str>, at: &'static Location<'static>) -> Self {
        let place = Place { file: at.file(), line: at.line(), column: at.column(), text: 0 };
        let path = path.trim_end_matches("::{{closure}}");
        Self {
            name: label.unwrap_or(path).to_owned(),
            place: label.is_none().then_some(place),
            remedy: "give each scope a `label` of its own",
        }
    }

    /// The name, unless a function in another place has it.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub(super) fn name(self) -> Result<String> {
        /// Grows to the number of functions with `once` in the program.
        static PLACES: Mutex<BTreeMap<String, Place>> = Mutex::new(BTreeMap::new());
        let Some(place) = self.place else { return Ok(self.name) };
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        match places.get(&self.name) {
            Some(known) if *known == place => Ok(self.name),
            Some(known) => {
                let problem = format!(
                    "`once` stands in {place} and in {known}, both in a function `{}`, so that they would share their keys",
                    self.name
                );
                Err(Error::config(problem, self.remedy))
            }
            None => {
                places.insert(self.name.clone(), place);
                Ok(self.name)
            }
        }
    }
}

/// What the hash of a text follows in a name.
const TEXT: char = '#';

/// Whether two names differ in nothing but the text of the function.
pub(super) fn differ_in_text(one: &str, other: &str) -> bool {
    one.split_once(TEXT).zip(other.split_once(TEXT)).is_some_and(|((one, _), (other, _))| one == other)
}

/// Whether a function of this path stands inside of another one. Only the case of the letters distinguishes a function
/// from the type of a method. A mistake has two forms: the place alone is compared, or an edit gives the keys up.
fn is_inside(path: &str, module: &str) -> bool {
    let within = path.strip_prefix(module).and_then(|rest| rest.strip_prefix("::")).unwrap_or_default();
    let (outer, types) = within.split_once('<').unwrap_or((within, ">"));
    let mut outer: Vec<&str> = outer.split("::").filter(|name| !name.is_empty()).collect();
    // Types at the end are those of the function itself.
    if types.ends_with('>') {
        outer.pop();
    }
    outer.iter().any(|name| !name.starts_with(|first: char| first.is_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_inside_of_a_function_is_known_by_its_path() {
        for inside in [
            "a::b::f::pay",
            "a::b::f::{{closure}}::pay",
            "a::b::f::Card::pay",
            "a::b::f::Bank<i32>::pay",
            "a::b::f<i32>::pay",
        ] {
            assert!(is_inside(inside, "a::b"), "{inside}");
        }
        for other in [
            "a::b::pay",
            "a::b::pay<i32>",
            "a::b::Bank<i32>::pay<i64>",
            "a::b::Card::pay",
            "a::b::Bank<a::f::T>::pay",
            "a::b::<impl a::c::Card>::pay",
            "<a::c::Card as a::Pay>::pay",
        ] {
            assert!(!is_inside(other, "a::b"), "{other}");
        }
    }
}
