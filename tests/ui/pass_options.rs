//! Every key, on the shapes of functions that can have it. Compiled, not run.

use std::error::Error as StdError;
use std::fmt::Display;

use multidb::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Model)]
#[model(app = "bank")]
pub struct Account;

#[derive(Debug)]
pub struct BankError;

impl From<multidb::Error> for BankError {
    fn from(_: multidb::Error) -> Self {
        Self
    }
}

type BankResult<T> = Result<T, BankError>;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    id: String,
    cents: i64,
}

/// Can't be cloned.
#[derive(Serialize)]
struct Wagon(Vec<i64>);

fn touch(_conn: &mut SqliteConn, by: i64) -> Result<i64, multidb::Error> {
    if by > 0 { Ok(by) } else { Ok(0) }
}

fn consume<T>(_: T) -> i64 {
    1
}

#[transactional(
    Account,
    isolation = serializable,
    read_only,
    deferrable,
    timeout = "500ms",
    label = "report",
    retry = 1_000,
    hook_errors = returned,
    propagation = requires_new
)]
fn report(#[conn] conn: &mut SqliteConn) -> BankResult<i64> {
    Ok(touch(conn, 1)?)
}

#[transactional(Account, isolation = read_uncommitted, immediate, verify_commit, timeout = "2m")]
fn immediate() -> BankResult<()> {
    Ok(())
}

#[transactional(Account, isolation = repeatable_read, exclusive, timeout = "576h")]
fn exclusive() -> BankResult<()> {
    Ok(())
}

#[derive(Model)]
#[model(app = "ledger")]
pub struct Entry;

#[transactional(Account, Entry, commit = best_effort, retry = 3, timeout = "5s", propagation = requires_new)]
fn in_parts(#[conn(Entry)] conn: &mut SqliteConn) -> BankResult<i64> {
    Ok(touch(conn, 1)?)
}

#[transactional(Account, Entry, acknowledge = decided, verify_commit, retry = 3)]
fn at_the_decision(#[conn(Entry)] conn: &mut SqliteConn) -> BankResult<i64> {
    Ok(touch(conn, 1)?)
}

#[commit_manually(Account, Entry, acknowledge = applied)]
fn by_hand() -> BankResult<()> {
    Ok(())
}

#[commit_manually(Account, Entry, commit = best_effort)]
fn in_parts_by_hand() -> BankResult<()> {
    Ok(())
}

#[transactional(Account, commit = atomic, verify_commit)]
fn whole() -> BankResult<()> {
    Ok(())
}

#[commit_manually(Account, isolation = read_committed, timeout = "1h", verify_commit)]
fn manual() -> BankResult<()> {
    Ok(())
}

#[transactional(Account, propagation = mandatory, read_only)]
fn inside() -> BankResult<()> {
    Ok(())
}

/// The documentation stays, and so do other attributes.
///
/// # Errors
///
/// Where `touch` fails.
#[must_use = "the id is new"]
#[transactional(Account, retry = 3)]
pub fn by_value(#[conn] conn: &mut SqliteConn, order: Order, mut left: i64, note: String) -> Result<i64, BankError> {
    left -= touch(conn, order.cents)?;
    Ok(left + consume(note) + consume(order))
}

#[transactional(Account, retry = 3)]
fn patterns(
    (a, mut b): (i64, String),
    [first, ..]: [i64; 2],
    Order { cents, .. }: Order,
    _: Wagon,
    &(c, _): &(i64, i64),
    ref whole @ (d, _): (i64, i64),
) -> Result<i64, BankError> {
    b.push('!');
    Ok(a + first + cents + c + d + whole.1 + consume(b))
}

#[transactional(Account, retry = 3)]
fn odd_names((r#type,): (i64,), (_0,): (i64,), unit: (), r#match: String) -> Result<i64, BankError> {
    let () = unit;
    Ok(r#type + consume(r#match))
}

#[transactional(Account, retry = 3)]
fn shared(#[conn] conn: &mut SqliteConn, wagon: &Wagon, mut rest: &[i64], say: &dyn Display) -> BankResult<String> {
    while let [first, others @ ..] = rest {
        touch(conn, *first)?;
        rest = others;
    }
    if wagon.0.is_empty() {
        return Err(BankError);
    }
    Ok(format!("{say}"))
}

#[transactional(Account, retry = 3)]
fn unused(
    _wagon: Wagon,
    #[expect(unused_variables, reason = "to see that it moves along")] cents: i64,
) -> BankResult<()> {
    Ok(())
}

#[transactional(Account, retry = 3)]
fn in_a_format(cents: i64, names: Vec<String>) -> Result<String, Box<dyn StdError>> {
    let text = format!("{cents}");
    let [name] = <[String; 1]>::try_from(names).map_err(|_| "not one")?;
    Ok(text + &name)
}

#[transactional(Account, retry = 3)]
fn generic<'a, T, F, const N: usize>(item: &'a T, make: F, many: [String; N]) -> Result<(&'a T, i64), BankError>
where
    T: Display + ?Sized,
    F: FnOnce(&str) -> i64 + Clone,
{
    Ok((item, make(&item.to_string()) + consume(many)))
}

#[transactional(Account, retry = 3)]
fn lent(use_it: &impl Fn() -> i64, again: &(impl Fn() -> i64 + ?Sized)) -> Result<i64, BankError> {
    Ok(use_it() + again())
}

#[transactional(Account, retry = 3)]
fn elided(names: &[String]) -> Result<&str, BankError> {
    names.first().map(String::as_str).ok_or(BankError)
}

#[transactional(Account, retry = 3)]
fn opaque(#[conn] conn: &mut SqliteConn, ids: Vec<i64>) -> Result<impl Iterator<Item = i64>, BankError> {
    let by = touch(conn, 1)?;
    Ok(ids.into_iter().map(move |id| id + by))
}

#[transactional(Account, retry = 3)]
fn opaque_over<'a>(
    ids: &'a [i64],
    names: Option<Vec<&'a str>>,
) -> Result<impl Iterator<Item = i64> + use<'a>, BankError> {
    consume(names);
    Ok(ids.iter().copied())
}

#[transactional(Account, retry = 3)]
fn conditional(
    #[cfg(not(any()))] id: i64,
    #[cfg(any())] id: &str,
    #[cfg(any())] (id, other): (i64, String),
    #[cfg_attr(any(), cfg(any()))] (more, _): (i64, String),
    #[expect(unused_variables, reason = "attributes move with the parameter")]
    #[conn]
    conn: &mut SqliteConn,
) -> Result<i64, BankError> {
    Ok(id + more)
}

/// # Safety
///
/// The pointer is valid.
#[transactional(Account, retry = 3, once = 7)]
unsafe fn raw(#[conn] conn: &mut SqliteConn, id: *const i64) -> Result<i64, BankError> {
    // SAFETY: the caller's promise.
    let id = unsafe { *id };
    Ok(touch(conn, id)?)
}

#[transactional(Account, once = request)]
fn once_for_a_text(#[conn] conn: &mut SqliteConn, request: &str, cents: i64) -> Result<i64, BankError> {
    Ok(touch(conn, cents)?)
}

#[transactional(Account, once = (&order.id, &order))]
fn once_for_a_body(order: Order, wagon: Wagon) -> Result<Order, BankError> {
    consume(wagon);
    Ok(order)
}

#[transactional(Account, once = order.id.clone() + "-1", retry = 3, label = "pay")]
fn once_again(#[conn] conn: &mut SqliteConn, mut order: Order) -> Result<Order, Box<dyn StdError + Send + Sync>> {
    order.cents -= touch(conn, 1)?;
    if order.cents < 0 {
        Err("overdrawn")?;
    }
    Ok(order)
}

#[transactional(Account, once = (key, &(rest, "a")), retry = 3)]
fn once_for_a_part((key, rest, cents): (String, Vec<i64>, i64), Wagon(_): Wagon) -> Result<i64, BankError> {
    Ok(cents)
}

#[transactional(Account, once = *id + 1, retry = 3)]
fn once_for_a_number(Pair(id, other): Pair<&i64>) -> Result<(), BankError> {
    consume(other);
    Ok(())
}

#[derive(Clone, Copy)]
struct Pair<T>(T, T);

#[transactional(Account, once = key_of(request)?)]
fn once_for_what_may_fail(request: Option<&str>) -> Result<Option<String>, BankError> {
    Ok(request.map(str::to_owned))
}

fn key_of(request: Option<&str>) -> Result<String, BankError> {
    request.map(str::to_owned).ok_or(BankError)
}

#[transactional(Account, once = key)]
fn once_generic<'a, T: Serialize + for<'de> Deserialize<'de>>(key: &'a str, item: T) -> Result<T, BankError> {
    Ok(item)
}

#[transactional(Account, once = key, retry = 3)]
fn once_opaque(key: &str, cents: i64) -> Result<impl Serialize + for<'de> Deserialize<'de> + use<>, BankError> {
    Ok((cents, key.to_owned()))
}

trait Service {
    fn balance(&self, id: i64, order: Order) -> Result<i64, BankError>;
    fn pay(&self, order: Order) -> Result<String, BankError>;

    #[transactional(Account, retry = 3)]
    fn provided(&self, #[conn] conn: &mut SqliteConn, (id, order): (i64, Order)) -> Result<i64, BankError> {
        Ok(self.balance(id, order)? + touch(conn, id)?)
    }
}

#[derive(Model)]
struct Counter {
    count: i64,
    names: Vec<String>,
}

impl Service for Counter {
    #[transactional(Self, retry = 3)]
    fn balance(&self, #[conn(Self)] conn: &mut SqliteConn, mut id: i64, order: Order) -> Result<i64, BankError> {
        id += touch(conn, order.cents)?;
        Ok(id + self.count)
    }

    #[transactional(Self, once = (order.id.as_str(), &order), retry = 3)]
    fn pay(&self, order: Order) -> Result<String, BankError> {
        Ok(order.id)
    }
}

impl Counter {
    #[transactional(Self, retry = 3)]
    fn names(&self, #[conn] conn: &mut SqliteConn) -> Result<impl Iterator<Item = &str>, BankError> {
        touch(conn, 1)?;
        Ok(self.names.iter().map(String::as_str))
    }

    #[transactional(Self, once = "the first")]
    fn first(self) -> Result<Option<String>, BankError> {
        Ok(self.names.into_iter().next())
    }

    #[expect(clippy::needless_arbitrary_self_type, reason = "to see that it is taken for `&self`")]
    #[transactional(Self, retry = 3)]
    fn named<'a>(self: &'a Self, name: &'a str) -> Result<&'a str, BankError> {
        Ok(self.names.iter().find(|known| *known == name).map_or(name, String::as_str))
    }
}

macro_rules! scopes {
    ($($name:ident($model:ty, $arg:ident, $pat:pat => $ty:ty) $body:block)*) => {$(
        #[transactional($model, retry = 3, once = &$arg)]
        fn $name($arg: String, $pat: $ty) -> BankResult<String> $body
    )*};
}

scopes! {
    from_a_macro(Account, key, (a, b) => (String, i64)) { Ok(key + &a + &b.to_string()) }
}

fn main() {
    if std::env::args().count() > 1_000 {
        calls().expect("never called");
    }
}

/// Every shape as its users call it.
fn calls() -> Result<(), Box<dyn StdError>> {
    let (word, number) = (String::from("word"), 1);
    let order = || Order { id: String::from("a"), cents: 1 };
    let wagon = || Wagon(vec![1]);
    let counter = || Counter { count: 0, names: Vec::new() };
    report().ok();
    in_parts().ok();
    in_parts_by_hand().ok();
    whole().ok();
    immediate().and_then(|()| exclusive()).and_then(|()| manual()).ok();
    inside().ok();
    by_value(order(), 1, word.clone()).ok();
    patterns((1, word.clone()), [3, 4], order(), wagon(), &(1, 2), (3, 4)).ok();
    odd_names((5,), (6,), (), word.clone()).ok();
    shared(&wagon(), &[1], &word).ok();
    unused(wagon(), 1).ok();
    in_a_format(1, Vec::new())?;
    generic::<str, _, 1>(&word, |text| i64::from(text.is_empty()), [word.clone()]).ok();
    lent(&|| 1, &|| 2).ok();
    elided(&counter().names).ok();
    opaque(vec![1]).map(Iterator::count).ok();
    opaque_over(&[1], None).map(Iterator::count).ok();
    conditional(1, (2, word.clone())).ok();
    // SAFETY: it points to a number.
    unsafe { raw(&raw const number) }.ok();
    once_for_a_text("a", 1).ok();
    once_for_a_body(order(), wagon()).ok();
    once_again(order()).map_err(|error| error.to_string())?;
    once_for_a_part((word.clone(), Vec::new(), 1), wagon()).ok();
    once_for_a_number(Pair(&1, &2)).ok();
    once_for_what_may_fail(None).ok();
    once_generic("a", 1).ok();
    once_opaque("a", 1).map(drop).ok();
    let service = counter();
    service.provided((1, order())).ok();
    service.pay(order()).ok();
    service.names().map(Iterator::count).ok();
    service.named("a").ok();
    service.first().ok();
    from_a_macro(word, (String::new(), 1)).ok();
    Ok(())
}
