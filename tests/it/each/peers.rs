//! What peers promise of their transactions, where no other test says it yet: Spring's and EJB's propagations, batches as
//! with `begin_nested` of `SQLAlchemy`, and jobs as with Synnefo's `commit_manually`.

use std::cell::RefCell;
use std::rc::Rc;

use multidb::scope::{self, commit, on_commit, rollback};
use multidb::{Error, FailureClass, Propagation, atomic, commit_manually, commit_on_success, transactional};

use super::newsroom::{Ran, is_doomed, is_oops, oops, within};
use super::*;

#[transactional(Item, propagation = join)]
fn takes_part_and_fails() -> Ran {
    oops()
}

#[transactional(Item, propagation = join)]
fn takes_part_and_is_refused(#[conn] conn: &mut H) -> Ran {
    use diesel::prelude::*;
    diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(0))).execute(conn)?;
    Ok(())
}

/// Spring's `UnexpectedRollbackException`, which doesn't say who wanted the rollback.
#[test]
fn an_unexpected_rollback_names_the_function_that_took_part_and_failed_and_its_cause() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let doom = |part: fn() -> Ran| {
        let ran = atomic::<Item>().run(|_: &mut H| {
            put(2, 20)?;
            assert!(part().is_err());
            Ok::<_, Error>(())
        });
        let error = ran.unwrap_err();
        let text = error.to_string();
        let Error::Doomed { first, function, file, line, .. } = error else { panic!("{text}") };
        assert!(file.ends_with("peers.rs") && line > 0, "{file}:{line}");
        assert!(text.contains(function), "{text}");
        (function, first.class())
    };
    assert_eq!(doom(takes_part_and_fails), ("takes_part_and_fails", FailureClass::Other));
    assert_eq!(doom(takes_part_and_is_refused), ("takes_part_and_is_refused", FailureClass::Constraint));
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

/// A batch that leaves out what is there already.
#[test]
fn a_batch_keeps_every_row_that_was_not_refused() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    for id in [3, 4, 8] {
        put(id, 1).unwrap();
    }
    let refused = atomic::<Item>().run(|_: &mut H| {
        let refused: Vec<i64> = (1..=9).filter(|id| put(*id, 2).is_err()).collect();
        Ok::<_, Error>(refused)
    });
    assert_eq!(refused.unwrap(), [3, 4, 8]);
    let values: Vec<i64> = fixture.rows("default").into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [2, 2, 1, 1, 2, 2, 2, 1, 2]);
}

/// EJB's `MANDATORY` inside of `REQUIRES_NEW`: the transaction that it takes part in is the innermost one.
#[test]
fn a_mandatory_scope_dooms_the_independent_transaction_that_it_joined_and_not_the_suspended_one() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let ran = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let apart = within(atomic::<Record>().propagation(Propagation::RequiresNew), || {
            put_record(2, 20)?;
            let part = within(atomic::<Record>().propagation(Propagation::Mandatory), oops);
            assert!(is_oops(&part) && scope::is_doomed());
            Ok(())
        });
        assert!(is_doomed(&apart), "{apart:?}");
        assert!(!scope::is_doomed());
        put(3, 30)
    });
    ran.unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10), (3, 30)], vec![]));
}

/// EJB's `NOT_SUPPORTED` suspends the transaction: what asks for one finds none, and what refuses one runs.
#[test]
fn inside_not_supported_every_propagation_finds_no_transaction() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let ran = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        within(atomic::<Record>().propagation(Propagation::NotSupported), || {
            within(atomic::<Record>().propagation(Propagation::Durable), || Ok(put_record(2, 20)?))?;
            within(atomic::<Record>().propagation(Propagation::Never), || Ok(put_record(3, 30)?))?;
            let mandatory = within(atomic::<Record>().propagation(Propagation::Mandatory), || panic!("must not run"));
            assert!(matches!(mandatory, Err(Mishap::Database(Error::Mandatory { .. }))), "{mandatory:?}");
            assert_eq!(fixture.rows("other"), [(2, 20), (3, 30)]);
            Ok(())
        })?;
        oops()
    });
    assert!(is_oops(&ran), "{ran:?}");
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![(2, 20), (3, 30)]));
}

#[commit_on_success(Item)]
fn job(id: i64) -> Ran {
    put(id, 10)?;
    put(id + 1, 20)?;
    if id == 20 { oops() } else { Ok(()) }
}

#[commit_manually(Item)]
fn jobs(done: &Rc<RefCell<Vec<i64>>>) -> Ran {
    for id in [10, 20, 30] {
        let log = Rc::clone(done);
        on_commit(move || log.borrow_mut().push(id));
        match job(id) {
            Ok(()) => commit()?,
            Err(_) => rollback()?,
        }
    }
    Ok(())
}

/// Synnefo's loops: each job is committed or rolled back for itself, in one function.
#[test]
fn a_manual_loop_keeps_the_jobs_that_went_well_and_runs_their_hooks() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let done = Rc::new(RefCell::new(Vec::new()));
    jobs(&done).unwrap();
    assert_eq!(done.take(), [10, 30]);
    assert_eq!(fixture.rows("default"), [(10, 10), (11, 20), (30, 10), (31, 20)]);
    assert_eq!(in_use(&databases, "default"), 0);
}
