//! The macros of [`multidb`](https://docs.rs/multidb): depend on that package, which exports them.
//!
//! - [`macro@transactional`] runs a function in a transaction on the database that its models are routed to;
//!   [`macro@commit_on_success`] and [`macro@commit_manually`] are Django's and Synnefo's older names for its
//!   two modes.
//! - [`macro@Model`] tells routers what a type is.
//!
//! The expansions know nothing of the library but the paths under `::multidb`.

mod again;
mod args;
mod check;
mod contradictions;
mod expand;
mod function;
mod model;
mod text_hash;
mod values;
mod words;

use proc_macro::TokenStream;

use again::Repeated;
use args::{Args, Mode};
use function::Function;
use text_hash::text_hash;

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
/// | `#[transactional(Account, Entry)]` | theirs; several databases commit as one, unless `commit` says otherwise |
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
///   return `Error::HookFailed`, which says that the work is committed. It counts on the scope that opens the transaction;
///   a nested one has no say.
/// - `commit = atomic` (the default) or `best_effort`: how several databases commit. `atomic`: on all or on none, and
///   `Error::NotAtomic` where that can't be. `best_effort`: any databases, each by itself at the end of the function, the last
///   listed first, as nested blocks do. The first COMMIT that fails ends it, and the others are rolled back; where one has
///   committed by then the error is `Error::PartialCommit`, no hook runs, and `retry` doesn't run the function again. The
///   function that opens the transaction decides. Inside one that says `best_effort`, a function that lists several models and
///   doesn't say so too is `Error::OptionConflict`, as is one that says so inside an atomic one. Not with `once`,
///   `verify_commit` or `read_only`.
/// - `acknowledge = applied` (the default) or `decided`: when the function returns, where its transaction is committed on
///   several databases. `decided`: once the decision is durable. From then on all of it will be committed, whatever happens;
///   a thread of `Databases::start_recovery` does so, and where none runs the function does it before it returns. It returns, and
///   its hooks run, earlier by a round trip and a forced write. For a moment the other databases may not show what it wrote, and
///   what it locked there stays locked. It counts on the scope that opens the transaction; a nested one has no say. Not with
///   `commit = best_effort` or `read_only`.
/// - `databases = expr`: this registry in place of the entered or installed one; a `Databases` or a reference to one.
/// - `hint = expr`: a value for the routers, such as the key of a shard, for this function and all that it calls. They find
///   it by its type: `request.hint::<Shard>()`.
/// - `label = ".."`: a name for spans and events.
///
/// What the database enforces:
///
/// | key | meaning | known from |
/// |---|---|---|
/// | `isolation = ..` | `read_uncommitted`, `read_committed`, `repeatable_read` or `serializable` | SQL, Spring |
/// | `read_only` | nothing may be written; the routers are asked for a read | SQL, Spring's `readOnly` |
/// | `deferrable` | waits for a snapshot that can't fail; with `read_only` and `serializable` | PostgreSQL |
/// | `immediate` | takes the write lock at once, as writing scopes do anyway | SQLite's `BEGIN IMMEDIATE` |
/// | `exclusive` | with a rollback journal nobody reads meanwhile | SQLite's `BEGIN EXCLUSIVE` |
/// | `timeout = "5s"` | how long the function may take: `500ms`, `5s`, `2m` or `1h`, at most 24 days | Spring's `timeout` |
/// | `verify_commit` | a row that tells whether a COMMIT without an answer was done | |
///
/// A database that can't do it answers `Error::Unsupported`. Inside a transaction that was opened with less, such as a
/// weaker isolation level or a shorter time, the function is `Error::OptionConflict`. After the time is over statements and
/// the commit are refused with `Error::Doomed`. `verify_commit` needs `multidb::schema::install`.
///
/// # Again, and once
///
/// - `retry = 3`: runs the function up to three times more, and up to 1000, where the database says that this may help: a
///   serialization failure, a deadlock, a lock timeout, a locked SQLite file, or a connection that was lost before COMMIT was
///   sent. It counts on the function that opens the transaction; inside another one the error goes there. What the
///   body does outside of the database is done again.
///
///   Each run gets a clone of every argument that is taken by value and used, so these are `Clone`; shared references are
///   given on as they are. `&mut` arguments, `self` by value and `impl Trait` by value are refused. After the last run the
///   function returns that run's error.
/// - `once = expr`: an idempotency key, an expression over the arguments: text, a whole number or a `Uuid`. The key and the
///   result commit with the work, and a later call with the same key, from any process, returns that result without running
///   the body. Only `Ok` is stored; its type is `Serialize` and `DeserializeOwned`. With `once = (key, &body)` a hash of the
///   body is stored too: another body under the key, and another function under it, is `Error::OnceMismatch`. A function is
///   known by its path, so that one which is renamed gives its keys up. One inside of another function is known by its text
///   too, and gives them up when it is edited. Needs `multidb::schema::install`; `multidb::scope::forget_once` deletes old
///   keys.
///
/// ```ignore
/// #[transactional(Order, once = (&request, &order), retry = 3, isolation = serializable, timeout = "10s")]
/// fn place(#[conn] conn: &mut PgConn, request: Uuid, order: NewOrder) -> Result<OrderId, ShopError> {
///     // ..
/// }
/// ```
///
/// Keys that contradict each other are refused at compile time, such as `retry` with `mode = manual`, `once` with
/// `read_only`, or `timeout` with `propagation = never`.
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
/// | `no_relations` | its `belongs_to` is not checked when the registry is built | |
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
        let written: proc_macro2::TokenStream = args.into();
        let text = text_hash([written.clone(), function.text()]);
        let args = Args::parse(mode, written)?;
        let handles = check::handles(&args, &function.supplied)?;
        let again = || Repeated::new(&function.sig, &body.statements, args.once.as_ref());
        let repeated = args.retry.map(|_| again()).transpose()?;
        syn::Result::Ok(expand::scope(&function, body, &args, &handles, repeated.as_ref(), text))
    };
    expand().unwrap_or_else(|error| expand::refused(&function, &error)).into()
}
