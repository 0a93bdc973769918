//! What a statement's type proves of it.
//!
//! A read is what Diesel's query builder made of parts that can only read, each of them named here. Whatever else stands in
//! a type may write: a function or an expression of the user's, a text, and a box, which hides what it holds.

use std::any::type_name;
use std::cell::Cell;

use diesel::query_builder::QueryId;

use crate::connection::gate::Proof;

/// For how many types of statements a thread remembers what they prove.
const PROOFS_KEPT: usize = 128;

/// How deep the parts of a statement may be nested. Deeper ones prove nothing.
const DEPTH_LIMIT: u32 = 512;

/// What the type `T` of a statement proves.
#[inline]
pub(super) fn proof_of<T: QueryId>() -> Proof {
    known_of::<T>().proof
}

/// Whether a statement may do more than its type tells: notify others, or change the session.
#[inline]
pub(super) fn is_unproven<T: QueryId>() -> bool {
    known_of::<T>().unproven
}

/// Whether a statement of the type `T` may give rows when it is executed: it writes and has a RETURNING clause, or nothing is
/// known of it.
#[inline]
pub(super) fn may_give_rows<T: QueryId>() -> bool {
    known_of::<T>().gives_rows
}

#[inline]
fn known_of<T: QueryId>() -> Known {
    KNOWN.with(|known| proven(known, type_name::<T>(), type_name::<T::QueryId>()))
}

/// What is known of the statement whose type and whose id have these names.
#[derive(Clone, Copy)]
struct Known {
    /// Where the names are, and how long: they stay there, and reading them each time would take longer.
    names: [(usize, usize); 2],
    proof: Proof,
    unproven: bool,
    gives_rows: bool,
}

/// What is known before anything is.
const NOTHING: Known = Known { names: [(0, 0); 2], proof: Proof::None, unproven: true, gives_rows: true };

thread_local! {
    static KNOWN: [Cell<Known>; PROOFS_KEPT] =
        const { [const { Cell::new(NOTHING) }; PROOFS_KEPT] };
}

#[inline]
fn proven(known: &[Cell<Known>; PROOFS_KEPT], name: &'static str, id: &'static str) -> Known {
    let names = [(name.as_ptr().addr(), name.len()), (id.as_ptr().addr(), id.len())];
    // Names are seldom shorter than this, and lie one behind the other.
    let place = &known[(names[0].0 >> 5) % PROOFS_KEPT];
    if place.get().names == names {
        return place.get();
    }
    let (proof, unproven) = prove(name, id);
    // A parameter that has its default isn't named.
    let gives_rows = match proof {
        Proof::Read => false,
        Proof::Write => name.contains("diesel::query_builder::returning_clause::ReturningClause<"),
        Proof::None => true,
    };
    let found = Known { names, proof, unproven, gives_rows };
    place.set(found);
    found
}

/// What a statement is proven to do, and whether it may do more than that.
#[cold]
fn prove(name: &str, id: &str) -> (Proof, bool) {
    const WRITES: [&str; 3] = [
        "diesel::query_builder::insert_statement::InsertStatement<",
        "diesel::query_builder::update_statement::UpdateStatement<",
        "diesel::query_builder::delete_statement::DeleteStatement<",
    ];
    let statement = statement_of(name);
    if WRITES.iter().any(|write| statement.starts_with(write)) {
        return (Proof::Write, hides_parts(statement));
    }
    if !SELECTS.iter().any(|select| statement.starts_with(select)) {
        return (Proof::None, true);
    }
    let mut reader = Reader::new(statement, false);
    let mut reads = reader.only_reads();
    if reads && reader.hidden {
        // What a `Selectable` selects stands in the id alone.
        let mut by_id = Reader::new(id, true);
        reads = by_id.only_reads() && by_id.lists == reader.lists;
    }
    (if reads && !reader.locks { Proof::Read } else { Proof::None }, !reads)
}

/// Whether a write may call what the user has declared, or holds what its type doesn't name.
fn hides_parts(statement: &str) -> bool {
    let texts = ["Boxed", "dyn ", "::sql_query::", "::SqlLiteral<"].iter().any(|part| statement.contains(part));
    // `define_sql_function!` makes a module `.._utils`; Diesel's own functions are made by it too.
    let declared = statement.match_indices("_utils::").any(|(at, _)| {
        let start = statement[..at].rfind(|letter: char| !is_of_path(letter));
        !statement[start.map_or(0, |before| before + 1)..].starts_with("diesel::")
    });
    texts || declared
}

/// The name of a statement's type without what Diesel's `MultiConnection` wraps around it.
fn statement_of(name: &str) -> &str {
    const WRAPPER: &str = "::multi_connection_impl::connection::SerializedQuery<";
    match name.split_once(WRAPPER) {
        Some((path, wrapped)) if path.chars().all(is_of_path) => wrapped.trim_start_matches('&'),
        _ => name.trim_start_matches('&'),
    }
}

fn is_of_path(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | ':')
}

const SELECTS: [&str; 2] = [
    "diesel::query_builder::select_statement::SelectStatement<",
    "diesel::query_builder::combination_clause::CombinationClause<",
];

/// Parts of a query that are as harmless as the parts that they hold. A name that ends with `::` stands for all that is in
/// the module.
const HARMLESS: &[&str] = &[
    COMPARISONS,
    "diesel::expression::assume_not_null::AssumeNotNull",
    "diesel::expression::case_when::",
    "diesel::expression::cast::",
    "diesel::expression::count::",
    "diesel::expression::exists::Exists",
    "diesel::expression::functions::",
    "diesel::expression::grouped::Grouped",
    "diesel::expression::not::",
    "diesel::expression::nullable::Nullable",
    "diesel::expression::operators::",
    "diesel::expression::ops::numeric::",
    "diesel::pg::expression::array::",
    "diesel::pg::expression::array_comparison::",
    "diesel::pg::expression::date_and_time::",
    "diesel::pg::expression::functions::",
    "diesel::pg::expression::operators::",
    "diesel::pg::query_builder::distinct_on::DistinctOnClause",
    "diesel::pg::query_builder::only::Only",
    "diesel::pg::query_builder::tablesample::",
    "diesel::pg::types::",
    "diesel::query_builder::combination_clause::",
    "diesel::query_builder::distinct_clause::",
    "diesel::query_builder::from_clause::",
    "diesel::query_builder::group_by_clause::",
    "diesel::query_builder::having_clause::",
    "diesel::query_builder::limit_clause::",
    "diesel::query_builder::limit_offset_clause::LimitOffsetClause",
    "diesel::query_builder::locking_clause::",
    "diesel::query_builder::offset_clause::",
    "diesel::query_builder::order_clause::",
    "diesel::query_builder::select_clause::",
    "diesel::query_builder::select_statement::SelectStatement",
    "diesel::query_builder::where_clause::NoWhereClause",
    "diesel::query_builder::where_clause::WhereClause",
    "diesel::query_dsl::positional_order_dsl::",
    "diesel::query_source::joins::",
    "diesel::sql_types::",
    "diesel::sqlite::expression::functions::",
    "diesel::sqlite::expression::operators::",
    "diesel::sqlite::types::",
];

const COMPARISONS: &str = "diesel::expression::array_comparison::";

/// The same of those whose further parameters only say what type they have in SQL.
const TYPED: &[&str] = &[
    "diesel::expression::coerce::Coerce",
    "diesel::expression::subselect::Subselect",
    "diesel::pg::expression::array::ArrayLiteral",
    "diesel::pg::expression::array::ArraySubselect",
];

/// Parts that hold values, or nothing but names: whatever type these have, nothing of it is SQL.
const SEALED: &[&str] = &[
    MANY,
    "diesel::expression::bound::Bound",
    "diesel::query_source::aliasing::alias::Alias",
    "diesel::query_source::aliasing::aliased_field::AliasedField",
    SELECT_BY,
];

/// FOR UPDATE and its like, which a read has not.
const LOCKS: &str = "diesel::query_builder::locking_clause::LockingClause";

/// The values of `eq_any`, which have `()` for an id.
const MANY: &str = "diesel::expression::array_comparison::Many";

/// What a `Selectable` of the user's selects. Its name doesn't say what that is.
const SELECT_BY: &str = "diesel::expression::select_by::SelectBy";

/// Reads the name of a statement's type.
struct Reader<'a> {
    rest: &'a str,
    /// The name is that of a [`QueryId`].
    is_id: bool,
    depth: u32,
    /// The modules whose table is a part of the query, and those of which a column is.
    tables: Vec<&'a str>,
    columns: Vec<&'a str>,
    /// Some of what is selected isn't in the name.
    hidden: bool,
    /// It locks rows.
    locks: bool,
    /// How many times values of `eq_any` stand in it.
    lists: u32,
}

impl<'a> Reader<'a> {
    fn new(name: &'a str, is_id: bool) -> Self {
        Self {
            rest: name,
            is_id,
            depth: 0,
            tables: Vec::new(),
            columns: Vec::new(),
            hidden: false,
            locks: false,
            lists: 0,
        }
    }

    /// Whether every part is known to read only.
    fn only_reads(&mut self) -> bool {
        // A column can be used with its table alone. So a module that only happens to have the name `columns` is none.
        self.part().is_some() && self.columns.iter().all(|module| self.tables.contains(module))
    }

    /// Reads one type. `None` if it isn't known to be harmless.
    fn part(&mut self) -> Option<()> {
        self.depth += 1;
        let known = self.depth < DEPTH_LIMIT && self.part_inside().is_some();
        self.depth -= 1;
        known.then_some(())
    }

    fn part_inside(&mut self) -> Option<()> {
        self.rest = self.rest.trim_start_matches([' ', '&']);
        if let Some(inside) = self.rest.strip_prefix('(') {
            self.rest = inside;
            // Many a type has no id of its own, and then `()` proves nothing; see `list`.
            return if self.is_id && inside.starts_with(')') { None } else { self.list(')', false) };
        }
        let end = self.rest.find(|letter| !is_of_path(letter)).unwrap_or(self.rest.len());
        let (path, rest) = self.rest.split_at(end);
        self.rest = rest;
        let arguments = rest.strip_prefix('<');
        match (arguments, path.rsplit_once("::")) {
            (None, _) if matches!(path, "true" | "false") => return Some(()),
            (None, Some((module, "table"))) => {
                self.tables.push(module);
                return Some(());
            }
            (None, Some((module, _))) if let Some(module) = module.strip_suffix("::columns") => {
                self.columns.push(module);
                return Some(());
            }
            _ => {}
        }
        self.hidden |= path == SELECT_BY;
        self.locks |= path == LOCKS;
        self.lists += u32::from(path == MANY);
        let Some(arguments) = arguments else { return is_in(HARMLESS, path).then_some(()) };
        self.rest = arguments;
        if is_in(SEALED, path) {
            self.skip()
        } else if is_in(TYPED, path) {
            self.part()?;
            self.skip()
        } else if is_in(HARMLESS, path) {
            self.list('>', path.starts_with(COMPARISONS))
        } else {
            None
        }
    }

    /// Reads types up to the end of their list. In an id, `with_values` lets `()` pass, and counts it.
    fn list(&mut self, end: char, with_values: bool) -> Option<()> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', ',']);
            if let Some(after) = self.rest.strip_prefix(end) {
                self.rest = after;
                return Some(());
            }
            match self.rest.strip_prefix("()") {
                Some(after) if self.is_id && with_values => {
                    self.rest = after;
                    self.lists += 1;
                }
                _ => self.part()?,
            }
        }
    }

    /// Passes over what is left of a list of parameters.
    fn skip(&mut self) -> Option<()> {
        let mut open = 1_u32;
        let mut last = ' ';
        for (at, letter) in self.rest.char_indices() {
            match letter {
                '<' => open += 1,
                // `fn(A) -> B`
                '>' if last == '-' => {}
                '>' => open -= 1,
                // A constant in a type may hold any letter.
                '\'' | '"' => return None,
                _ => {}
            }
            if open == 0 {
                self.rest = &self.rest[at + 1..];
                return Some(());
            }
            last = letter;
        }
        None
    }
}

fn is_in(names: &[&str], path: &str) -> bool {
    names.iter().any(|name| if name.ends_with("::") { path.starts_with(name) } else { path == *name })
}

#[cfg(test)]
mod tests;
