//! Keys of `once`, scopes that are run again, and commits that can be proved, over several models.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use diesel::connection::SimpleConnection;
use multidb::scope::on_commit;
use multidb::{AnyConn, TransactionStatus, atomic_many, connection};

use super::*;

/// A key that no other case has.
fn key(name: &str) -> String {
    format!("{name} {}", base())
}

#[test]
fn a_repeat_returns_the_stored_result_and_runs_nothing_on_any_database() {
    let (results, rows) = everywhere(|| {
        let runs = Cell::new(0);
        let call = || {
            atomic_many::<(Account, Entry)>().once(key("a")).run(|_| {
                runs.set(runs.get() + 1);
                put_account(runs.get())?;
                put_entry(runs.get())?;
                Ok::<_, Mishap>(runs.get())
            })
        };
        [call().unwrap(), call().unwrap()]
    });
    assert_eq!(results, [1, 1]);
    assert_eq!(rows, ([1], [1], []));
}

#[test]
fn a_key_goes_with_the_work_that_was_undone() {
    let ((), rows) = everywhere(|| {
        let call = |id, fails| {
            atomic_many::<(Entry, Account)>().once(key("b")).run(|_| {
                put_account(id)?;
                put_entry(id)?;
                if fails { Err(Mishap::OnPurpose) } else { Ok(id) }
            })
        };
        assert!(call(1, true).is_err());
        let undone = over_all(|| {
            assert_eq!(call(2, false)?, 2);
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(undone.is_err());
        assert_eq!(call(3, false).unwrap(), 3);
        assert_eq!(call(4, false).unwrap(), 3);
    });
    assert_eq!(rows, ([3], [3], []));
}

/// Fails as a database does that could not order the transaction among others. SQLite never does.
fn stumble<M: Table>() -> Ran<bool> {
    match connection::<M, AnyConn>()? {
        AnyConn::Postgres(mut conn) => conn.batch_execute(
            "DO $$ BEGIN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END $$",
        )?,
        AnyConn::Mysql(mut conn) => conn.batch_execute(
            "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found when trying'",
        )?,
        AnyConn::Sqlite(_) => return Ok(false),
    }
    Ok(true)
}

#[test]
fn a_passing_failure_on_any_database_runs_the_whole_scope_again_and_drops_its_hooks() {
    let (ran, rows) = everywhere(|| {
        let ran = Rc::new(RefCell::new(Vec::new()));
        for (id, stumble) in (1..).zip([stumble::<Account>, stumble::<Entry>, stumble::<Audit>]) {
            let mut attempts = 0;
            let run = atomic_many::<(Account, Entry, Audit)>().retry(2).run(|_| {
                attempts += 1;
                put_account(id)?;
                put_entry(id)?;
                insert::<Audit>(id)?;
                let log = Rc::clone(&ran);
                on_commit(move || log.borrow_mut().push(id));
                if attempts < 3 {
                    stumble()?;
                }
                Ok::<_, Mishap>(())
            });
            run.unwrap();
        }
        ran.take()
    });
    assert_eq!(ran, [1, 2, 3]);
    assert_eq!(rows, ([1, 2, 3], [1, 2, 3], [1, 2, 3]));
}

#[test]
fn what_does_not_pass_is_not_run_again() {
    let (attempts, rows) = everywhere(|| {
        let mut attempts = 0;
        let run = atomic_many::<(Account, Entry)>().retry(3).run(|_| {
            attempts += 1;
            put_account(attempts)?;
            insert::<Entry>(TAKEN)
        });
        assert_eq!(word(&run), "refused");
        attempts
    });
    assert_eq!(attempts, 1);
    assert_eq!(rows, ([], [], []));
}

#[test]
fn a_commit_that_can_be_proved_is_known_by_its_id() {
    let ((), rows) = everywhere(|| {
        let mut id = None;
        let run = atomic_many::<(Account, Entry)>().verify_commit().run(|_| {
            put_account(1)?;
            put_entry(1)?;
            id = multidb::scope::current();
            Ok::<_, Mishap>(())
        });
        run.unwrap();
        let status = multidb::status(&id.unwrap()).unwrap();
        // Every hundredth commit deletes the rows of those before it.
        assert!(matches!(status, TransactionStatus::Committed | TransactionStatus::Forgotten), "{status}");
    });
    assert_eq!(rows, ([1], [1], []));
}
