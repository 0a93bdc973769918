//! The shapes of functions that can be a scope. Compiled, not run.

use std::fmt::Display;

use multidb::prelude::*;

#[derive(Model)]
#[diesel(table_name = crate::schema::accounts)]
#[model(app = "bank")]
pub struct Account;

pub mod ledger {
    use multidb::prelude::*;

    #[derive(Model)]
    #[model(app = "ledger", table = "old_entries", no_relations)]
    pub struct Entry;

    #[derive(Model)]
    pub struct Tagged<'a, T: ?Sized, const N: usize>(pub &'a T);
}

#[derive(Debug)]
pub struct BankError;

impl From<multidb::Error> for BankError {
    fn from(_: multidb::Error) -> Self {
        Self
    }
}

type BankResult<T> = Result<T, BankError>;

fn touch(_conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
    if by > 0 { Ok(by) } else { Ok(0) }
}

/// The documentation stays, and so do other attributes.
///
/// # Errors
///
/// Where `touch` fails.
#[must_use = "the id is new"]
#[transactional(Account)]
pub fn plain(#[conn] conn: &mut SqliteConn, id: i64) -> Result<i64, BankError> {
    let id = touch(conn, id)?;
    Ok(id)
}

#[transactional]
fn bare(#[conn] conn: &mut SqliteConn) -> BankResult<i64> {
    Ok(touch(conn, 1)?)
}

#[transactional(using = "orders", propagation = requires_new)]
fn alias(#[conn] conn: &mut SqliteConn) -> Result<i64, Box<dyn std::error::Error>> {
    Ok(touch(conn, 1)?)
}

#[commit_on_success(app = "bank", propagation = nested)]
fn app() -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
    Ok(bare().map_err(|_| "failed")?)
}

#[transactional(Account, ledger::Entry)]
fn several(
    #[conn(ledger::Entry)] entries: &mut SqliteConn,
    cents: i64,
    #[conn(Account)] accounts: &mut SqliteConn,
) -> Result<i64, BankError> {
    Ok(touch(accounts, -cents)? + touch(entries, cents)?)
}

#[transactional(Account, ledger::Entry)]
fn no_connection(cents: i64) -> Result<(), BankError> {
    several(cents)?;
    plain(cents).map(drop)
}

#[transactional(Account)]
fn early(#[conn] mut conn: &mut SqliteConn, mut left: i64) -> Result<Option<i64>, BankError> {
    const LIMIT: i64 = 10;
    while left > 0 {
        left -= touch(conn, 1)?;
        if left == LIMIT {
            return Ok(None);
        }
    }
    conn = std::convert::identity(conn);
    touch(conn, left)?;
    Ok(Some(left))
}

#[transactional(ledger::Tagged<'static, str, 3>)]
fn patterns((a, b): (i64, i64), [first, ..]: [i64; 2], Pair { left, .. }: Pair) -> Result<i64, BankError> {
    Ok(a + b + first + left)
}

struct Pair {
    left: i64,
    #[expect(dead_code, reason = "patterns may leave fields out")]
    right: i64,
}

#[transactional(ledger::Tagged<'a, T, N>)]
fn generic<'a, T, F, const N: usize>(item: &'a T, make: F) -> Result<(&'a T, i64), BankError>
where
    T: Display + ?Sized,
    F: FnOnce(&str) -> i64,
{
    Ok((item, make(&item.to_string())))
}

#[transactional(Account)]
fn any_handle<H: multidb::Handle>(
    #[conn] _conn: &mut H,
    use_it: impl FnOnce() -> i64,
) -> Result<i64, BankError> {
    Ok(use_it())
}

#[transactional(Account)]
fn lifetimes<'a>(#[conn] conn: &'a mut SqliteConn, name: &'a str, other: &str) -> Result<&'a str, BankError> {
    touch(conn, i64::try_from(other.len()).unwrap_or(0))?;
    Ok(name)
}

#[transactional(Account)]
fn elided(names: &[String]) -> Result<&str, BankError> {
    names.first().map(String::as_str).ok_or(BankError)
}

#[transactional(Account)]
fn opaque(#[conn] conn: &mut SqliteConn, ids: &[i64]) -> Result<impl Iterator<Item = i64>, BankError> {
    let by = touch(conn, 1)?;
    Ok(ids.iter().map(move |id| id + by))
}

#[transactional(Account)]
fn items_first(#[conn] conn: &mut SqliteConn) -> Result<i64, BankError> {
    use std::cmp::max;
    fn inner(n: i64) -> i64 {
        max(n, 1)
    }
    Ok(inner(touch(conn, 1)?))
}

#[transactional(Account)]
fn one_expression(id: i64) -> Result<i64, BankError> {
    plain(id)
}

#[transactional(Account)]
fn conditional(
    #[cfg(not(any()))] id: i64,
    #[cfg(any())] id: &str,
    #[expect(unused_variables, reason = "attributes move with the parameter")]
    #[conn]
    conn: &mut SqliteConn,
) -> Result<i64, BankError> {
    Ok(id)
}

#[cfg(any())]
#[transactional(Nowhere)]
fn left_out() -> Result<(), BankError> {
    Ok(())
}

/// # Safety
///
/// The pointer is valid.
#[transactional(Account)]
unsafe fn raw(#[conn] conn: &mut SqliteConn, id: *const i64) -> Result<i64, BankError> {
    // SAFETY: the caller's promise.
    let id = unsafe { *id };
    Ok(touch(conn, id)?)
}

#[transactional(Account)]
fn inner_attributes() -> Result<(), BankError> {
    #![expect(clippy::unreadable_literal, reason = "to see that inner attributes stay")]
    if 1234567 > 0 { Ok(()) } else { Err(BankError) }
}

trait Service {
    fn balance(&self, id: i64) -> Result<i64, BankError>;

    #[transactional(Account)]
    fn provided(&self, #[conn] conn: &mut SqliteConn, id: i64) -> Result<i64, BankError> {
        Ok(self.balance(id)? + touch(conn, id)?)
    }
}

#[derive(Model)]
struct Counter {
    count: i64,
    names: Vec<String>,
}

impl Service for Counter {
    #[transactional(Self)]
    fn balance(&self, #[conn(Self)] conn: &mut SqliteConn, id: i64) -> Result<i64, BankError> {
        Ok(touch(conn, id)? + self.count)
    }
}

impl Counter {
    #[transactional(Self)]
    fn add(&mut self, #[conn] conn: &mut SqliteConn, by: i64) -> Result<&mut i64, BankError> {
        self.count += touch(conn, by)?;
        Ok(&mut self.count)
    }

    #[transactional(Self)]
    fn names(&self, #[conn] conn: &mut SqliteConn) -> Result<impl Iterator<Item = &str>, BankError> {
        touch(conn, 1)?;
        Ok(self.names.iter().map(String::as_str))
    }

    #[transactional(Self)]
    fn into_names(mut self: Box<Self>, #[conn] conn: &mut SqliteConn) -> Result<Vec<String>, BankError> {
        self.count = touch(conn, 1)?;
        self.names.push(self.count.to_string());
        Ok(self.names)
    }

    #[transactional(Self)]
    fn consumed(self) -> Result<Self, BankError> {
        Ok(self)
    }
}

macro_rules! scopes {
    ($($name:ident($model:ty, $conn:ident: $handle:ty) $body:block)*) => {$(
        #[transactional($model)]
        fn $name(#[conn] $conn: $handle) -> BankResult<i64> $body
    )*};
}

scopes! {
    from_a_macro(Account, conn: &mut SqliteConn) { Ok(touch(conn, 1)?) }
}

fn main() {
    if std::env::args().count() > 1_000 {
        calls().expect("never called");
    }
}

/// Every shape as its users call it.
fn calls() -> Result<(), Box<dyn std::error::Error>> {
    let word = String::from("word");
    let number = 1;
    let mut counter = Counter {
        count: 0,
        names: Vec::new(),
    };
    plain(1).and_then(no_connection).ok();
    alias()?;
    app().map_err(|error| error.to_string())?;
    early(1).ok();
    patterns((1, 2), [3, 4], Pair { left: 5, right: 6 }).ok();
    generic::<str, _, 3>(&word, |text| i64::from(text.is_empty())).ok();
    any_handle::<SqliteConn>(|| 1).ok();
    lifetimes(&word, "other").ok();
    elided(&counter.names).ok();
    opaque(&[1]).map(Iterator::count).ok();
    items_first().and_then(one_expression).and_then(conditional).ok();
    inner_attributes().ok();
    // SAFETY: it points to a number.
    unsafe { raw(&raw const number) }.ok();
    counter.add(1).map(|count| *count += 1).ok();
    counter.names().map(Iterator::count).ok();
    counter.provided(1).ok();
    counter
        .consumed()
        .map(Box::new)
        .and_then(Counter::into_names)
        .ok();
    from_a_macro().ok();
    Ok(())
}
