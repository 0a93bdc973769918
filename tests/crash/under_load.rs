//! A service that comes back after a kill while it is used.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::child::{Work, kill_at, transfer};
use crate::places::{Kind, Places};

use Kind::{MariaDb, Postgres, Sqlite};

/// How many callers there are, and how often each tries. Without recovery each try waits for a lock until its limit.
const CALLERS: i64 = 4;
const TRIES: i64 = 10;

#[test]
fn recovery_gets_the_file_although_scopes_begin_on_it_all_the_time() {
    for server in [Postgres, MariaDb] {
        let Some(places) = Places::new(&[Sqlite, server]) else { return };
        let databases = places.databases();
        // It holds the key of the row that all callers want to insert.
        kill_at(&places, Work::Listed, "prepare.all_done");
        let (succeeded, next) = (AtomicBool::new(false), AtomicI64::new(2));
        std::thread::scope(|threads| {
            for _ in 0..CALLERS {
                threads.spawn(|| {
                    let _entered = databases.enter();
                    for _ in 0..TRIES {
                        if succeeded.load(Ordering::SeqCst) {
                            break;
                        }
                        let id = next.fetch_add(1, Ordering::SeqCst);
                        if transfer(1, id, 1, None).is_ok() {
                            succeeded.store(true, Ordering::SeqCst);
                        }
                    }
                });
            }
            let recovery = databases.start_recovery();
            while !succeeded.load(Ordering::SeqCst) && next.load(Ordering::SeqCst) < 2 + CALLERS * TRIES {
                std::thread::yield_now();
            }
            recovery.stop();
        });
        assert!(succeeded.load(Ordering::SeqCst), "{places}: recovery never got the file");
        databases.recover().unwrap();
        assert_eq!(places.rows(1), [1], "{places}");
        assert_eq!(places.prepared(1), 0, "{places}");
    }
}
