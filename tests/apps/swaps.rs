//! Routes that are swapped for a block or a registry reach their own thread, and end with it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;

use multidb::{Databases, Error, SqliteConn, atomic, connection, with_routes};

use crate::astakos::{Quota, User, import_users, quotas, reserve};
use crate::cyclades::{Server, servers};
use crate::error::AppError;
use crate::launch::{launch, launch_apart, launch_nested};
use crate::layouts::{ALIASES, Fixture, routes};

const THREADS: usize = 4;
const ROUNDS: usize = 1_000;

/// What each database must hold in the end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    users: BTreeSet<String>,
    quotas: BTreeMap<String, usize>,
    servers: BTreeMap<String, usize>,
}

type Expected = BTreeMap<&'static str, Held>;

/// One round: a user of its own is imported, and launches servers in each way.
fn round(user: &str, [astakos, cyclades]: [&'static str; 2], expected: &mut Expected) {
    assert_eq!(import_users(&[&format!("{user},9")], 1).unwrap(), 1);
    let mut launched = 0;
    launch_apart(user, "debian").unwrap();
    launched += 1;
    launch_apart(user, "beos").unwrap_err();
    for result in [launch(user, "debian"), launch_nested(user, "debian")] {
        match result {
            Ok(_) => launched += 1,
            // Nothing of it may be left.
            Err(AppError::Database(Error::NotAtomic { .. })) => assert_ne!(astakos, cyclades),
            Err(error) => panic!("{error}"),
        }
    }
    launch_nested(user, "beos").unwrap_err();

    // What the applications themselves see, by the same routes.
    let reserved: Vec<i64> =
        quotas().unwrap().iter().filter(|quota| quota.user == user).map(|quota| quota.used).collect();
    assert_eq!(reserved, [i64::from(launched)]);
    let owned = servers().unwrap().iter().filter(|server| server.owner == user).count();
    assert_eq!(owned, usize::try_from(launched).unwrap());

    let held = expected.entry(astakos).or_default();
    held.users.insert(user.to_owned());
    held.quotas.insert(user.to_owned(), owned);
    expected.entry(cyclades).or_default().servers.insert(user.to_owned(), owned);
}

/// A round with routes of its own, each time by another way and on other databases.
fn swapped_round(databases: &Databases, number: usize, user: &str, expected: &mut Expected) {
    let [one, other] = [ALIASES[number % 3 + 1], ALIASES[(number + 1) % 3 + 1]];
    let layout = match number / 3 % 3 {
        0 => [one, one],
        1 => [one, other],
        _ => [other, one],
    };
    match number % 4 {
        0 => with_routes(routes(layout), || round(user, layout, expected)),
        1 => {
            let _entered = databases.with_router(routes(layout)).enter();
            round(user, layout, expected);
        }
        // The block counts before the registry, and within it the innermost block.
        2 => {
            let _entered = databases.with_router(routes(["west", "west"])).enter();
            with_routes(routes(["south", "south"]), || {
                with_routes(routes(layout), || round(user, layout, expected));
            });
        }
        _ => round(user, ["default", "default"], expected),
    }
}

#[test]
fn a_thousand_swaps_in_parallel_threads_reach_nobody_else() {
    let fixture = Fixture::new();
    let barrier = Barrier::new(THREADS);
    let work = |thread: usize| {
        let _entered = fixture.databases.enter();
        let mut expected = Expected::new();
        barrier.wait();
        for number in (thread..ROUNDS).step_by(THREADS) {
            // The number of a round is its kind too, so that each thread gets all of them.
            swapped_round(&fixture.databases, number / THREADS + thread, &format!("user{number}"), &mut expected);
        }
        expected
    };
    let mut expected = Expected::new();
    std::thread::scope(|threads| {
        let threads: Vec<_> = (0..THREADS).map(|thread| threads.spawn(move || work(thread))).collect();
        for (alias, held) in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            let all = expected.entry(alias).or_default();
            all.users.extend(held.users);
            all.quotas.extend(held.quotas);
            all.servers.extend(held.servers);
        }
    });
    assert_eq!(expected.values().map(|held| held.users.len()).sum::<usize>(), ROUNDS);
    for alias in ALIASES {
        let (users, quotas, servers) = (fixture.users(alias), fixture.quotas(alias), fixture.servers(alias));
        assert!(users.len() > ROUNDS / 10, "{alias} was hardly used: {}", users.len());
        assert!(expected[alias] == Held { users, quotas, servers }, "{alias} holds other rows than its routes say");
    }
}

/// Where both applications live, as the thread sees it.
fn lives() -> [String; 2] {
    let alias = |conn: SqliteConn| conn.alias().to_string();
    [connection::<User, SqliteConn>().map(alias).unwrap(), connection::<Server, SqliteConn>().map(alias).unwrap()]
}

#[test]
fn a_spawned_thread_inherits_neither_routes_nor_an_entered_registry() {
    let fixture = Fixture::new();
    let _entered = fixture.databases.with_router(routes(["south", "south"])).enter();
    with_routes(routes(["north", "west"]), || {
        assert_eq!(lives(), ["north", "west"]);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                assert!(matches!(reserve("nobody"), Err(AppError::Database(Error::Config { .. }))));
                let _entered = fixture.databases.enter();
                assert_eq!(lives(), ["default", "default"]);
                import_users(&["spawned,1"], 1).unwrap();
            });
        });
        import_users(&["spawning,1"], 1).unwrap();
        assert_eq!(lives(), ["north", "west"]);
    });
    assert_eq!(lives(), ["south", "south"]);
    assert_eq!(fixture.users("default"), ["spawned".to_owned()].into());
    assert_eq!(fixture.users("north"), ["spawning".to_owned()].into());
    assert_eq!((fixture.users("south").len(), fixture.users("west").len()), (0, 0));
}

#[test]
fn a_panic_undoes_the_swaps_that_it_leaves_and_no_others() {
    let fixture = Fixture::new();
    let _entered = fixture.databases.enter();
    import_users(&["ann,1"], 1).unwrap();
    with_routes(routes(["north", "north"]), || {
        import_users(&["bob,1"], 1).unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _entered = fixture.databases.with_router(routes(["west", "west"])).enter();
            with_routes(routes(["south", "west"]), || {
                import_users(&["cid,1"], 1).unwrap();
                atomic::<Quota>().run(|_: &mut SqliteConn| -> Result<(), AppError> {
                    reserve("cid")?;
                    with_routes(routes(["default", "default"]), || panic!("on purpose"))
                })
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(lives(), ["north", "north"]);
        reserve("bob").unwrap();
    });
    assert_eq!(lives(), ["default", "default"]);
    reserve("ann").unwrap();
    let used = |alias| fixture.quotas(alias).into_iter().collect::<Vec<_>>();
    assert_eq!(used("default"), [("ann".to_owned(), 1)]);
    assert_eq!(used("north"), [("bob".to_owned(), 1)]);
    assert_eq!(used("south"), [("cid".to_owned(), 0)], "its reservation was rolled back");
    assert_eq!(used("west"), []);
}
