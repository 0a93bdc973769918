//! What allocates and what doesn't. A test binary of its own, since it has an allocator that counts.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use multidb::prelude::*;
use multidb::{__private as private, Access, Alias, Error, StaticRouter, with_hint, with_routes};

/// The system's allocator, with a count for each thread.
struct Counting;

thread_local! {
    // Neither made lazily nor dropped, so that looking at it allocates nothing.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends may allocate when its variables are gone.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait; each call is handed on to the system's as it came")]
// SAFETY: every method calls the system's allocator with the arguments it was given, and counting neither allocates nor
// unwinds; so what `System` guarantees holds here, and what callers promise is promised to `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often each run of `work` allocates, when it has been run before.
fn allocations(mut work: impl FnMut()) -> u64 {
    const RUNS: u64 = 100;
    work();
    let before = COUNT.get();
    for _ in 0..RUNS {
        work();
    }
    let all = COUNT.get() - before;
    assert_eq!(all % RUNS, 0, "a run is not as the others");
    all / RUNS
}

#[derive(Model)]
#[model(app = "shop", table = "items")]
struct Item;

#[derive(Model)]
#[model(app = "audit", table = "records")]
struct Record;

#[derive(Model)]
#[model(app = "library", table = "books")]
struct Book;

/// Has no opinion on anything but a hint that nobody gives.
struct ByHint;

impl Router for ByHint {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        match request.hint::<Alias>() {
            Some(alias) => Route::to(alias),
            None => Route::pass(),
        }
    }
}

/// Prefers a database that is not there, by an alias that is a shared string.
struct Prefers(Alias);

impl Router for Prefers {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        if request.app() == "library" { Route::prefer(&self.0) } else { Route::pass() }
    }
}

/// Three routers, and a folder for the databases.
fn databases() -> (tempfile::TempDir, Databases) {
    let folder = tempfile::tempdir().unwrap();
    let builder = ["default", "other", "third"]
        .iter()
        .fold(Databases::builder(), |builder, alias| builder.sqlite(*alias, folder.path().join(format!("{alias}.db"))));
    let table = StaticRouter::new().app("audit", "third".to_owned()).model::<Item>("other");
    let builder = builder.router(ByHint).router(Prefers("nowhere".to_owned().into())).router(table);
    (folder, builder.build().unwrap())
}

fn decide<M: Model>(databases: &Databases) -> usize {
    private::route::<M>(databases, Access::Write).unwrap()
}

#[test]
fn a_decision_through_three_routers_allocates_nothing() {
    let (_folder, databases) = databases();
    assert_eq!(allocations(|| assert_eq!(decide::<Item>(&databases), 1)), 0, "the third router's model");
    assert_eq!(allocations(|| assert_eq!(decide::<Record>(&databases), 2)), 0, "the third router's shared alias");
    assert_eq!(allocations(|| assert_eq!(decide::<Book>(&databases), 0)), 0, "nobody's, and one preference unmet");
    let swapped = databases.with_router(StaticRouter::new().app("shop", "third"));
    assert_eq!(allocations(|| assert_eq!(decide::<Item>(&swapped), 2)), 0, "another router");
}

#[test]
fn nor_does_one_with_hints_and_swapped_routes() {
    let (_folder, databases) = databases();
    with_hint(Alias::from("third".to_owned()), || {
        with_hint(5_i64, || assert_eq!(allocations(|| assert_eq!(decide::<Item>(&databases), 2)), 0));
        with_routes(StaticRouter::new().app("shop", "default"), || {
            assert_eq!(allocations(|| assert_eq!(decide::<Item>(&databases), 0)), 0);
            assert_eq!(allocations(|| assert_eq!(decide::<Book>(&databases), 2)), 0);
        });
    });
}

#[test]
fn neither_a_handle_nor_an_empty_scope_allocates_for_its_route() {
    let (_folder, databases) = databases();
    let _entered = databases.enter();
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1, "the allocator counts");
    assert!(allocations(|| drop(databases.explain_route::<Item>(Access::Write))) > 0);
    let by_route = allocations(|| drop(connection::<Item, SqliteConn>().unwrap()));
    let by_name = allocations(|| drop(multidb::connection_on::<SqliteConn>("other").unwrap()));
    assert_eq!(by_route, by_name);
    // Its transaction keeps what it needs for the next one.
    assert_eq!(allocations(|| atomic::<Item>().run(|_: &mut SqliteConn| Ok::<_, Error>(())).unwrap()), 0);
}
