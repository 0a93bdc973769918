//! Manual scopes, and savepoints that users set.

use std::cell::RefCell;
use std::rc::Rc;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::scope::{self, Savepoint, commit, on_commit, rollback, savepoint, set_rollback};
use multidb::{Error, Propagation, atomic, atomic_on, commit_manually, commit_on_success, transactional};

use super::*;

#[commit_manually(Item)]
fn in_parts(#[conn] conn: &mut H) -> Result<(), Mishap> {
    put(1, 10)?;
    commit()?;
    put(2, 20)?;
    rollback()?;
    diesel::insert_into(items::table).values((items::id.eq(3), items::value.eq(30))).execute(conn)?;
    commit()?;
    Ok(())
}

#[test]
fn each_commit_keeps_what_came_before_it_and_each_rollback_undoes_it() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    in_parts().unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
}

#[test]
fn rows_are_seen_by_others_right_after_the_commit_inside_the_scope() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().manual().run(|_: &mut H| {
        put(1, 10)?;
        assert_eq!(fixture.rows("default"), []);
        commit()?;
        assert_eq!(fixture.rows("default"), [(1, 10)]);
        assert_eq!(scope::depth(), 1);
        put(2, 20)?;
        commit()
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
}

#[test]
fn pending_writes_are_rolled_back_and_ok_becomes_an_error_that_counts_them() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    #[transactional(Item, mode = manual)]
    fn forgetful() -> Result<(), Error> {
        put(1, 10)?;
        commit()?;
        put(2, 20)?;
        put(3, 30)
    }
    let error = forgetful().unwrap_err();
    let text = error.to_string();
    let Error::PendingWork { function, statements, .. } = error else { panic!("{text}") };
    assert_eq!((function, statements), ("forgetful", 2));
    assert!(text.contains("scope::commit"), "{text}");
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    let failed = atomic::<Item>().manual().run(|_: &mut H| {
        put(4, 40)?;
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(failed, Err(Mishap::OnPurpose)), "the user's error comes back unchanged");
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_lone_read_is_no_pending_work_and_what_is_not_proven_a_read_is() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let manual = |body: &dyn Fn(&mut H) -> Result<(), Mishap>| atomic::<Item>().manual().run(|conn: &mut H| body(conn));
    manual(&|conn| {
        items::table.count().get_result::<i64>(conn)?;
        items::table.find(1).first::<Item>(conn)?;
        items::table.filter(items::id.eq_any([1, 2])).order(items::value).load::<Item>(conn)?;
        Ok(())
    })
    .unwrap();
    let pending = |result: Result<(), Mishap>| matches!(result, Err(Mishap::Database(Error::PendingWork { .. })));
    assert!(pending(manual(&|conn| Ok(conn.batch_execute("SELECT 1")?))));
    assert!(pending(manual(&|conn| diesel::sql_query("SELECT 1").execute(conn).map(drop).map_err(Mishap::from))));
    assert!(pending(manual(&|conn| Ok(items::table.into_boxed().load::<Item>(conn).map(drop)?))));
    assert!(pending(manual(&|conn| conn.with_raw(|_: &mut Raw| Ok(())))));
    assert!(pending(manual(&|conn| Ok(diesel::delete(items::table.find(9)).execute(conn).map(drop)?))));
}

#[test]
fn commit_and_rollback_inside_an_automatic_scope_are_errors() {
    #[commit_on_success(Item)]
    fn automatic() -> Result<(), Error> {
        for ended in [commit(), rollback()] {
            let text = ended.as_ref().unwrap_err().to_string();
            assert!(matches!(ended, Err(Error::NotManual { function: "automatic", .. })), "{text}");
        }
        put(1, 10)
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    automatic().unwrap();
    let inside = atomic::<Item>().manual().run(|_: &mut H| {
        diesel::delete(items::table).execute(&mut multidb::connection::<Item, H>()?)?;
        automatic()?;
        commit().map_err(Mishap::from)
    });
    inside.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    assert!(matches!(commit(), Err(Error::NoScope { .. })));
}

#[test]
fn a_manual_scope_inside_a_transaction_is_an_error_unless_it_is_independent() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Record>().run(|_: &mut H| {
        let text = in_parts().unwrap_err().to_string();
        assert!(text.contains("in_parts") && text.contains("requires_new") && text.contains("atomic"), "{text}");
        let apart = atomic::<Item>().manual().propagation(multidb::Propagation::RequiresNew);
        apart.run(|_: &mut H| {
            put(1, 10)?;
            commit()
        })?;
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)));
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn a_doomed_manual_scope_goes_on_after_a_rollback() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().manual().run(|conn: &mut H| {
        put(2, 20)?;
        let duplicate = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(9))).execute(conn);
        assert!(duplicate.is_err());
        assert!(matches!(commit(), Err(Error::Doomed { .. })));
        rollback()?;
        put(3, 30)?;
        commit()
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn hooks_run_at_each_commit_of_a_manual_scope() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let log = Rc::new(RefCell::new(Vec::new()));
    let add = |what: &'static str| {
        let log = Rc::clone(&log);
        move || log.borrow_mut().push(what)
    };
    let run = atomic::<Item>().manual().run(|_: &mut H| {
        on_commit(add("first"));
        put(1, 10)?;
        commit()?;
        assert_eq!(log.take(), ["first"]);
        on_commit(add("undone"));
        rollback()?;
        on_commit(add("second"));
        put(2, 20)?;
        commit()
    });
    run.unwrap();
    assert_eq!(log.take(), ["second"]);
}

#[test]
fn what_set_rollback_has_marked_is_not_committed_and_a_rollback_takes_the_mark_away() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().manual().run(|_: &mut H| {
        put(1, 10)?;
        set_rollback(true)?;
        let text = commit().unwrap_err().to_string();
        assert!(text.contains("`commit`") && text.contains("set_rollback"), "{text}");
        rollback()?;
        put(2, 20)?;
        commit()?;
        put(3, 30)?;
        set_rollback(true)?;
        set_rollback(false)?;
        commit()?;
        put(4, 40)?;
        set_rollback(true)?;
        Ok::<_, Error>("its value")
    });
    assert_eq!(run.unwrap(), "its value", "what is undone on purpose is not pending");
    assert_eq!(fixture.rows("default"), [(2, 20), (3, 30)]);
}

#[test]
fn a_commit_that_a_doom_refuses_leaves_the_savepoints() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().manual().run(|conn: &mut H| {
        put(2, 20)?;
        let before = savepoint("before")?;
        let duplicate = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(9))).execute(conn);
        assert!(duplicate.is_err());
        assert!(matches!(commit(), Err(Error::Doomed { .. })));
        before.rollback()?;
        commit()
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
}

#[test]
fn a_savepoint_undoes_what_came_after_it_and_lifts_a_doom() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(2, 20)?;
        let before = savepoint("before the risky part")?;
        assert_eq!(before.name(), "before the risky part");
        put(3, 30)?;
        let duplicate = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(9))).execute(conn);
        assert!(duplicate.is_err() && scope::is_doomed());
        before.rollback()?;
        assert!(!scope::is_doomed());
        let kept = savepoint("kept")?;
        put(4, 40)?;
        kept.release()?;
        let dropped = savepoint("dropped")?;
        put(5, 50)?;
        drop(dropped);
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (4, 40), (5, 50)]);
}

#[test]
fn an_older_savepoint_takes_the_younger_ones_with_it() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let older = savepoint("older")?;
        put(2, 20)?;
        let younger = savepoint("younger")?;
        put(3, 30)?;
        older.rollback()?;
        let other = savepoint("other")?;
        put(4, 40)?;
        assert!(
            matches!(younger.rollback(), Err(Error::AlreadyEnded { .. })),
            "it is not the one that now has its place"
        );
        other.release()?;
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (4, 40)]);
    assert!(matches!(savepoint("nowhere"), Err(Error::NoScope { .. })));
}

#[test]
fn a_savepoint_is_not_ended_under_a_scope_that_was_entered_since() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    for (end, name) in
        [(Savepoint::rollback as fn(Savepoint) -> Result<(), Error>, "rollback"), (Savepoint::release, "release")]
    {
        for (inner, alias) in [
            (Propagation::Nested, "default"),
            (Propagation::Join, "default"),
            (Propagation::RequiresNew, "other"),
            (Propagation::NotSupported, "other"),
        ] {
            let run = atomic::<Item>().run(|_: &mut H| {
                put(1, 10)?;
                let around = savepoint("around")?;
                put(2, 20)?;
                let inner = atomic_on(alias).propagation(inner).run(|_: &mut H| {
                    let depth = scope::depth();
                    let text = end(around).unwrap_err().to_string();
                    assert!(text.contains("`around`") && text.contains("scope that set it"), "{text}");
                    assert_eq!(scope::depth(), depth);
                    Err::<(), _>(Mishap::OnPurpose)
                });
                assert!(matches!(inner, Err(Mishap::OnPurpose)), "{inner:?}");
                assert_eq!(scope::depth(), 2, "the savepoint is still there");
                Ok::<_, Error>(scope::is_doomed())
            });
            // A joined scope that fails dooms the level that it joined, here and everywhere.
            let rows = if inner == Propagation::Join { vec![] } else { vec![(1, 10), (2, 20)] };
            assert_eq!(run.is_ok(), !rows.is_empty(), "{name} in {inner:?}: {run:?}");
            assert_eq!(fixture.rows("default"), rows, "{name} in {inner:?}");
            assert_eq!((scope::depth(), in_use(&databases, "default")), (0, 0));
            diesel::delete(items::table).execute(&mut fixture.observer("default")).unwrap();
        }
    }
}

#[test]
fn a_release_of_a_doomed_savepoint_is_an_error_and_undoes_it() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(2, 20)?;
        let risky = savepoint("risky")?;
        put(3, 30)?;
        let _ = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(9))).execute(conn);
        assert!(matches!(risky.release(), Err(Error::Doomed { .. })));
        put(4, 40)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (4, 40)]);
}

#[test]
fn what_ended_one_transaction_is_not_told_of_the_next() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let duplicate = |conn: &mut H| {
        let duplicate = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(9))).execute(conn);
        assert!(duplicate.is_err());
    };
    let run = atomic::<Item>().manual().run(|conn: &mut H| {
        put(2, 20)?;
        let _ = conn.with_raw(|raw: &mut Raw| raw.batch_execute("ROLLBACK").map_err(Error::from));
        assert!(matches!(commit(), Err(Error::ImplicitCommit { .. })));
        assert!(matches!(rollback(), Err(Error::ImplicitCommit { .. })), "it can't undo what was ended");
        duplicate(conn);
        let doomed = commit();
        assert!(matches!(doomed, Err(Error::Doomed { .. })), "{doomed:?}");
        rollback()
    });
    run.unwrap();
    // Nor of one that has the same thread's place.
    let next = atomic::<Item>().run(|conn: &mut H| {
        duplicate(conn);
        Ok::<_, Error>(())
    });
    assert!(matches!(next, Err(Error::Doomed { .. })), "{next:?}");
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn what_a_joined_scope_did_after_a_savepoint_that_it_dropped_belongs_to_the_level_that_it_joined() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let hook = |name: &'static str| {
        let seen = Rc::clone(&seen);
        on_commit(move || seen.borrow_mut().push(name));
    };
    let joined = |id: i64| {
        atomic::<Item>().propagation(Propagation::Join).run(|_: &mut H| {
            drop(savepoint("dropped")?);
            hook("joined");
            put(id, 20)
        })
    };
    let run = atomic::<Item>().run(|conn: &mut H| {
        joined(2)?;
        assert_eq!(scope::depth(), 1);
        // The next level has the place of the savepoint, and does not take it along.
        assert!(matches!(put_and_fail(3), Err(Mishap::OnPurpose)));
        joined(4)?;
        let level = atomic::<Item>().run(|_: &mut H| {
            joined(5)?;
            put_and_fail(6)
        });
        assert!(matches!(level, Err(Mishap::OnPurpose)));
        assert_eq!(items::table.count().get_result::<i64>(conn)?, 3);
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (4, 20)]);
    assert_eq!(*seen.borrow(), ["joined"; 2]);
}

#[test]
fn a_doom_after_a_savepoint_that_a_joined_scope_dropped_dooms_the_level_that_it_joined() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().run(|_: &mut H| {
        let joined = atomic::<Item>().propagation(Propagation::Join).run(|conn: &mut H| {
            drop(savepoint("dropped")?);
            let duplicate =
                diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(9))).execute(conn);
            assert!(duplicate.is_err());
            Ok::<_, Error>(())
        });
        joined?;
        // The next level, undone, lifts no doom but its own.
        assert!(put_and_fail(2).is_err());
        assert!(scope::is_doomed());
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn a_savepoint_that_is_used_after_its_scope_has_an_error_of_its_own() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let set = || {
        atomic::<Item>().run(|_: &mut H| {
            put(1, 10)?;
            savepoint("kept too long")
        })
    };
    let by_commit = atomic::<Item>().manual().run(|_: &mut H| {
        let own = savepoint("kept too long")?;
        put(2, 20)?;
        commit()?;
        let error = own.rollback().unwrap_err();
        Ok::<_, Error>(error)
    });
    let outside = set().unwrap().rollback().unwrap_err();
    fixture.observer("default").batch_execute("DELETE FROM items").unwrap();
    let inside_another = atomic::<Item>().run(|_: &mut H| {
        let nested = set()?;
        Ok::<_, Error>(nested.release().unwrap_err())
    });
    for error in [outside, inside_another.unwrap(), by_commit.unwrap()] {
        let text = error.to_string();
        for part in ["savepoint `kept too long`", "has ended", "before its scope ends"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        assert!(matches!(error, Error::AlreadyEnded { .. }), "{error:?}");
    }
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}
