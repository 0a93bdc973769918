//! What `status` says of a transaction, by the name that its scope has shown.

use std::cell::RefCell;

use diesel::connection::SimpleConnection;
use multidb::{Error, TransactionId, TransactionStatus, atomic, atomic_many, schema, scope, status};

use super::in_doubt::Far;
use super::*;
use crate::support::proxy::{Loses, Then};

/// Greater than every id.
const ALL_FORGOTTEN: &str = "UPDATE multidb_meta SET forgotten_up_to = 'ZZZZZZZZZZZZZZZZZZZZZZZZZZ'";

/// The same id without its home.
fn short(id: &TransactionId) -> TransactionId {
    let letters = id.to_string();
    let letters = letters.rsplit_once('_').map_or(&*letters, |(_, letters)| letters);
    let bytes = data_encoding::BASE32HEX_NOPAD.decode(letters.as_bytes()).unwrap();
    data_encoding::HEXLOWER.encode(&bytes).parse().unwrap()
}

#[test]
fn the_name_that_a_scope_shows_answers_whichever_databases_have_written() {
    let Some(far) = Far::new() else { return };
    let _entered = far.databases.enter();
    for (id, home, other) in [(1, true, true), (2, true, false), (3, false, true)] {
        for fails in [false, true] {
            let id = if fails { 10 + id } else { id };
            let mut named = None;
            let run = atomic_many::<(Item, Record)>().run(|_| {
                named = scope::current();
                if home {
                    put(id, 0)?;
                }
                if other {
                    put_record(id, 0)?;
                }
                if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
            });
            assert_eq!(run.is_err(), fails);
            let expected = if fails { TransactionStatus::RolledBack } else { TransactionStatus::Committed };
            let named = named.unwrap();
            assert_eq!(status(&named).unwrap(), expected, "home {home}, other {other}");
            if !fails {
                assert_eq!(status(&short(&named)).unwrap(), expected, "home {home}, other {other}, by its short form");
            }
            assert_eq!(far.fixture.rows("default").iter().any(|row| row.0 == id), home && !fails);
            assert_eq!(far.fixture.rows("other").iter().any(|row| row.0 == id), other && !fails);
            assert_eq!(far.prepared(), 0);
        }
    }
}

#[test]
fn the_name_shown_before_another_database_joins_answers_too() {
    let Some(far) = Far::new() else { return };
    let _entered = far.databases.enter();
    for verifies in [false, true] {
        let names = RefCell::new(Vec::new());
        let scope = atomic::<Item>();
        let scope = if verifies { scope.verify_commit() } else { scope };
        let id = i64::from(verifies);
        let run = scope.run(|_: &mut H| {
            names.borrow_mut().extend(scope::current());
            atomic::<Record>().run(|_: &mut H| {
                names.borrow_mut().extend(scope::current());
                put_record(id, 0)
            })?;
            names.borrow_mut().extend(scope::current());
            Ok::<_, Error>(())
        });
        run.unwrap();
        let names = names.into_inner();
        assert_eq!(names.len(), 3);
        for name in names {
            assert_eq!(status(&name).unwrap(), TransactionStatus::Committed, "{name}, verifies {verifies}");
        }
    }
}

#[test]
fn each_commit_of_a_manual_scope_has_a_name_of_its_own_that_answers() {
    let Some(far) = Far::new() else { return };
    let _entered = far.databases.enter();
    let mut names = Vec::new();
    let run = atomic_many::<(Item, Record)>().manual().run(|_| {
        for id in 1..=3 {
            names.push(scope::current().unwrap());
            put(id, 0)?;
            put_record(id, 0)?;
            if id == 2 { scope::rollback()? } else { scope::commit()? }
        }
        Ok::<_, Error>(())
    });
    run.unwrap();
    let found: Vec<_> = names.iter().map(|name| status(name).unwrap()).collect();
    assert_eq!(found, [TransactionStatus::Committed, TransactionStatus::RolledBack, TransactionStatus::Committed]);
    assert!(names[0] != names[1] && names[1] != names[2]);
}

#[test]
fn a_local_commit_without_evidence_is_unknown_whatever_was_forgotten() {
    let Some(far) = Far::new() else { return };
    let _entered = far.databases.enter();
    let mut named = None;
    atomic::<Item>()
        .run(|_: &mut H| {
            named = scope::current();
            put(1, 0)
        })
        .unwrap();
    let named = named.unwrap();
    assert_eq!(status(&named).unwrap(), TransactionStatus::Unknown);
    far.fixture.observer("default").batch_execute(ALL_FORGOTTEN).unwrap();
    assert_eq!(status(&named).unwrap(), TransactionStatus::Unknown, "it has left no row that could be forgotten");
}

#[test]
fn a_transaction_of_another_registry_is_unknown() {
    let (Some(far), Some(other)) = (Far::new(), Far::new()) else { return };
    let seen = far.put_both(1);
    let _entered = other.databases.enter();
    assert_eq!(status(&seen.id).unwrap(), TransactionStatus::Unknown);
    assert_eq!(status(&short(&seen.id)).unwrap(), TransactionStatus::Unknown);
}

#[test]
fn a_transaction_whose_session_lives_is_in_doubt_whatever_was_forgotten() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    far.proxies[0].lose_once(b"COMMIT", Loses::Client);
    let seen = far.put_both(1);
    assert!(seen.result.is_err_and(|error| error.is_in_doubt()));
    far.fixture.observer("default").batch_execute(ALL_FORGOTTEN).unwrap();
    assert_eq!(far.status(&seen.id), TransactionStatus::InDoubt);
    far.proxies[0].let_go();
    far.recover();
    assert_eq!(far.status(&seen.id), TransactionStatus::Forgotten);
}

#[test]
fn a_transaction_of_which_home_has_lost_the_decision_is_heuristic_and_never_called_rolled_back() {
    let Some(far) = Far::new() else { return };
    let seen = far.put_both(1);
    seen.result.unwrap();
    far.fixture.observer("default").batch_execute("DELETE FROM multidb_decision").unwrap();
    assert_eq!(far.status(&seen.id), TransactionStatus::Heuristic);
    assert_eq!(far.status(&seen.id), TransactionStatus::Heuristic, "nor the second time");
}

#[test]
fn the_rows_of_a_hundred_complete_transactions_go_and_they_are_forgotten() {
    let Some(far) = Far::new() else { return };
    let ids: Vec<TransactionId> = (1..=100)
        .map(|id| {
            let seen = far.put_both(id);
            seen.result.unwrap();
            seen.id
        })
        .collect();
    assert_eq!(far.status(&ids[0]), TransactionStatus::Forgotten);
    assert_eq!(far.status(&ids[99]), TransactionStatus::Forgotten);
    assert_eq!(far.fixture.own_rows(), [0, 0]);
}

#[test]
fn databases_that_cannot_be_asked_are_no_evidence() {
    let Some(far) = Far::new() else { return };
    let seen = far.put_both(1);
    seen.result.unwrap();
    for proxy in &far.proxies {
        proxy.lose_and_then(b"tester", Loses::Request, Then::Refuses);
    }
    let _entered = far.databases.enter();
    // The first one is lost by its greeting, all others by being shut out.
    for id in [&seen.id, &short(&seen.id)] {
        let asked = status(id);
        assert!(matches!(asked, Err(Error::Pool { .. })), "{asked:?}");
    }
}

#[test]
fn a_status_that_is_asked_for_too_early_keeps_the_transaction_from_committing() {
    let Some(far) = Far::new() else { return };
    let _entered = far.databases.enter();
    schema::install(&far.databases).unwrap();
    let run = atomic_many::<(Item, Record)>().run(|_| {
        let id = scope::current().unwrap();
        put(1, 0)?;
        put_record(1, 0)?;
        let asked = std::thread::scope(|threads| threads.spawn(|| far.status(&id)).join().unwrap());
        assert_eq!(asked, TransactionStatus::RolledBack);
        Ok::<_, Error>(())
    });
    assert!(run.is_err());
    assert_eq!((far.fixture.rows("default"), far.fixture.rows("other"), far.prepared()), (vec![], vec![], 0));
}
