//! The macros of [`multidb`](https://docs.rs/multidb): depend on that package, which exports them.
//!
//! - [`macro@transactional`] runs a function in a transaction on the database that its models are routed to;
//!   [`macro@commit_on_success`] and [`macro@commit_manually`] are Django's and Synnefo's older names for its
//!   two modes.
//! - [`macro@Model`] tells routers what a type is.
//!
//! The expansions know nothing of the library but the paths under `::multidb`.

mod args;
mod check;
mod expand;
mod function;
mod model;
mod words;

use proc_macro::TokenStream;

use args::{Args, Mode};
use function::Function;

/// Runs a function in a transaction: committed on `Ok`, rolled back on `Err` and on a panic.
///
/// Inside an open transaction the function is a level of it: when it fails, its own work is undone and nothing else.
///
/// ```ignore
/// #[transactional(Account)]
/// fn debit(#[conn] conn: &mut SqliteConn, id: i64, cents: i64) -> Result<(), BankError> {
///     diesel::update(accounts::table.find(id))
///         .set(accounts::balance.eq(accounts::balance - cents))
///         .execute(conn)?;
///     Ok(())
/// }
///
/// debit(1, 500)?; // callers never see a connection
/// ```
///
/// # Which database
///
/// | written | the database |
/// |---|---|
/// | `#[transactional(Account)]` | the one that the routers choose for the model |
/// | `#[transactional(Account, Entry)]` | theirs, which today must be one database |
/// | `#[transactional(app = "bank")]` | the one that the routers choose for the app |
/// | `#[transactional(using = "orders")]` | the one with this alias |
/// | `#[transactional]` | as with `app`, named by the first module below the crate, or the crate itself |
///
/// # Keys
///
/// - `propagation = ..`: what the scope does inside an open transaction, and outside.
///
///   | value | outside | inside |
///   |---|---|---|
///   | `nested` (default) | a transaction | a savepoint: a failure undoes this function alone |
///   | `join` | a transaction | no savepoint: a failure dooms what it joined |
///   | `durable` | a transaction | an error: `Ok` means committed |
///   | `requires_new` | a transaction | an independent transaction on another connection |
///   | `mandatory` | an error | as `join` |
///   | `supports` | autocommit | as `join` |
///   | `never` | autocommit | an error |
///   | `not_supported` | autocommit | autocommit on another connection |
/// - `mode = manual`: the function commits and rolls back by itself, with `multidb::scope::commit` and `rollback`.
/// - `hook_errors = reported` (the default) or `returned`: whether a hook that fails after the commit makes the function
///   return `Error::HookFailed`, which says that the work is committed.
/// - `databases = expr`: this registry in place of the entered or installed one; a `Databases` or a reference to one.
///
/// # The connection
///
/// `#[conn]` marks the parameter that the scope supplies. Callers don't pass it, and the documentation shows
/// the function without it. Where several models are listed, the mark says whose database it is:
///
/// ```ignore
/// #[transactional(Account, Entry)]
/// fn transfer(
///     #[conn(Account)] bank: &mut SqliteConn,
///     #[conn(Entry)] ledger: &mut PgConn,
///     cents: i64,
/// ) -> Result<(), BankError> {
///     // ..
/// }
/// ```
///
/// # What it goes on
///
/// Functions, methods, methods of trait impls and provided methods of traits, generic and `unsafe` ones
/// included. They return a `Result` whose error is made from `multidb::Error`, or `Box<dyn Error>`.
/// Everything else is refused at compile time: `async fn` and `const fn` too.
#[proc_macro_attribute]
pub fn transactional(args: TokenStream, item: TokenStream) -> TokenStream {
    scope(Mode::Auto, args, item)
}

/// [`macro@transactional`] with `mode = auto`: Django's and Synnefo's older name.
///
/// ```ignore
/// #[commit_on_success(app = "astakos")]
/// fn activate(#[conn] conn: &mut PgConn, user: i64) -> QueryResult<()> {
///     // ..
/// }
/// ```
#[proc_macro_attribute]
pub fn commit_on_success(args: TokenStream, item: TokenStream) -> TokenStream {
    scope(Mode::Auto, args, item)
}

/// [`macro@transactional`] with `mode = manual`: the function commits and rolls back by itself.
///
/// A transaction begins with the first statement, and again after each `multidb::scope::commit` or `rollback`. Writes that
/// are pending when the function returns are rolled back; after `Ok` that is the error `PendingWork`.
///
/// ```ignore
/// #[commit_manually(using = "orders")]
/// fn import(#[conn] conn: &mut PgConn, batches: &[Batch]) -> Result<(), ImportError> {
///     // ..
/// }
/// ```
#[proc_macro_attribute]
pub fn commit_manually(args: TokenStream, item: TokenStream) -> TokenStream {
    scope(Mode::Manual, args, item)
}

/// Makes a struct a model: what routers decide on.
///
/// ```ignore
/// #[derive(Queryable, Selectable, Model)]
/// #[diesel(table_name = accounts)]
/// #[model(app = "bank")]
/// struct Account {
///     id: i64,
///     balance: i64,
/// }
/// ```
///
/// | key of `#[model(..)]` | meaning | without it |
/// |---|---|---|
/// | `app = "bank"` | the application: Django's app label | the first module below the crate, or the crate itself |
/// | `table = "accounts"` | the table | the name in `#[diesel(table_name = ..)]`, else the one that Diesel would infer |
/// | `no_relations` | the model takes no part in relations; without effect today | |
#[proc_macro_derive(Model, attributes(model, diesel))]
pub fn model(input: TokenStream) -> TokenStream {
    model::derive(&syn::parse_macro_input!(input as syn::DeriveInput)).into()
}

/// What the three attributes share: `mode` is the one that the attribute's own name says.
fn scope(mode: Mode, args: TokenStream, item: TokenStream) -> TokenStream {
    let function = match Function::parse(item.clone().into()) {
        Ok(function) => function,
        Err(error) => return TokenStream::from_iter([error.into_compile_error().into(), item]),
    };
    let expand = || {
        let body = check::signature(&function)?;
        let args = Args::parse(mode, args.into())?;
        let handles = check::handles(&args, &function.supplied)?;
        syn::Result::Ok(expand::scope(&function, body, &args, &handles))
    };
    expand().unwrap_or_else(|error| expand::refused(&function, &error)).into()
}
