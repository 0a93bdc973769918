//! MariaDB gives the name of a branch free, when the session that has prepared it ends, a moment before its engine lets others finish
//! it. Whoever tries in between is told that it is done. Nothing is done, and until the server restarts the branch is on no list.

use diesel::connection::{Connection, SimpleConnection};
use multidb::fault::Stop;
use multidb::{Reason, TransactionId, TransactionStatus};

use crate::child::{Ended, Told, Work, recover, resume, start, transfer, until_stopped};
use crate::left_alone::reasons;
use crate::matrix::check;
use crate::places::{Kind, Places};
use crate::server::Server;
use crate::servers::postgres_url;

/// The more a session has to clean up, the longer that moment is.
const VARIABLES: usize = 200;
/// How often it is tried.
const TRIES: usize = 100;

/// Leaves a branch that the server has forgotten when somebody wanted to finish it. It puts the row 77. Its transaction.
pub(crate) fn forgotten(places: &Places, commit: bool) -> TransactionId {
    forgotten_after(places, commit, |_| ()).0
}

/// Likewise, and something is done before, while the branch is listed.
fn forgotten_after<T>(places: &Places, commit: bool, before: impl Fn(&TransactionId) -> T) -> (TransactionId, T) {
    let connect = || diesel::MysqlConnection::establish(&places.urls[1]).unwrap();
    let variables: Vec<String> = (0..VARIABLES).map(|at| format!("SET @v{at} = REPEAT('x', 1000000)")).collect();
    let (id, prepare) = places.preparing(1, &places.meta(0, "incarnation"));
    let mut other = connect();
    for _ in 0..TRIES {
        let mut session = connect();
        session.batch_execute(&variables.join("; ")).unwrap();
        session.batch_execute(&prepare).unwrap();
        let [name] = &places.listed(1)[..] else { panic!("one branch") };
        let finish = format!("XA {} {name}", if commit { "COMMIT" } else { "ROLLBACK" });
        let done = before(&id);
        drop(session);
        while other.batch_execute(&finish).is_err() {}
        let locked = "SELECT * FROM multidb_receipt FOR UPDATE NOWAIT";
        if other.batch_execute(locked).is_err() {
            return (id, done);
        }
        places.clear();
        places.execute(1, "DELETE FROM multidb_receipt");
    }
    panic!("never in {TRIES} tries");
}

/// Home has decided about the transaction, and its own row 77 is there.
fn decide(places: &Places, id: &TransactionId) {
    places.execute(0, "DELETE FROM multidb_decision; DELETE FROM accounts; INSERT INTO accounts VALUES (77)");
    let branch = format!("1_{}", places.meta(1, "database_id"));
    let columns = "gid, state, participants, created";
    places.execute(0, &format!("INSERT INTO multidb_decision ({columns}) VALUES ('{id}', 'c', '{branch}', 0)"));
}

fn places() -> Option<(Server, Places)> {
    let postgres = postgres_url()?;
    let server = Server::start("mariadb")?;
    let places = Places::on(&[Kind::Postgres, Kind::MariaDb], &[postgres.to_owned(), server.url().to_owned()]);
    Some((server, places))
}

#[test]
fn a_recoverer_that_has_listed_a_branch_before_its_server_has_forgotten_it_marks_nothing() {
    let Some((server, places)) = places() else { return };
    let (_, recoverer) = forgotten_after(&places, true, |id| {
        decide(&places, id);
        let recoverer = start(&places, Work::Recovers, "recover.finish.before.0", Stop::Pause);
        until_stopped(&recoverer);
        recoverer
    });
    resume(&recoverer);
    assert_eq!(Ended::of(recoverer).told(), Some(Told::Committed), "its pass has come to an end");
    assert_eq!(places.states(0), ["c"]);
    server.kill();
    server.restart();
    recover(&places.databases());
    assert_eq!(check(&places, "restarted"), [77]);
}

#[test]
fn a_branch_that_its_server_has_forgotten_is_told_of_and_finished_once_that_has_restarted() {
    for commit in [true, false] {
        let Some((server, places)) = places() else { return };
        let databases = places.databases();
        let _entered = databases.enter();
        let id = forgotten(&places, commit);
        if commit {
            decide(&places, &id);
        }
        assert_eq!((places.prepared(1), places.rows(1)), (0, vec![]));
        for _ in 0..2 {
            let report = databases.recover().unwrap();
            // Of one that was not decided no database knows.
            assert_eq!(reasons(&report), if commit { vec![Reason::Held] } else { vec![] }, "{report}");
            assert!(report.heuristic().is_empty() && report.closed() == 0, "{report}");
        }
        let status = if commit { TransactionStatus::Committed } else { TransactionStatus::RolledBack };
        assert_eq!(multidb::status(&id).unwrap(), status);
        transfer(1, 77, 77, None).unwrap_err();
        server.kill();
        server.restart();
        assert_eq!(places.prepared(1), 1, "it is listed again");
        recover(&databases);
        assert_eq!(check(&places, "restarted"), if commit { vec![77] } else { vec![] });
        assert_eq!(places.unfinished(), [0, 0]);
        transfer(1, 1, 1, None).unwrap();
    }
}
