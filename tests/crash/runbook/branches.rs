//! Branches that stay prepared, for each reason.

use std::fmt::{self, Write as _};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use multidb::{Databases, Reason, TransactionStatus};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::{Found, by_hand, change, prepared, refused, run, says, until_decided};
use crate::child::{Work, kill_at, recover, transfer};
use crate::left_alone::{UNREACHABLE, reasons, settle};
use crate::matrix::check;
use crate::places::{Kind, Places, builder_of};
use crate::server::Server;
use crate::servers::postgres_url;
use crate::whole::forgotten::forgotten;

use Kind::{MariaDb, Postgres, Sqlite};

/// A registry of some of the databases.
fn some(places: &Places, aliases: &[usize]) -> Databases {
    builder_of(aliases.iter().map(|at| (*at, &*places.urls[*at]))).build().unwrap()
}

#[test]
fn a_branch_of_a_coordinator_that_was_killed_is_listed_and_ends_as_the_decision_at_home_says() {
    for kinds in [[Postgres, Postgres], [MariaDb, MariaDb], [Postgres, MariaDb], [Sqlite, Postgres]] {
        for (point, decided) in [("prepare.all_done", false), ("decide.after_commit", true)] {
            let Some(places) = Places::new(&kinds) else { return };
            let databases = places.databases();
            let _entered = databases.enter();
            kill_at(&places, Work::Listed, point);
            let found = prepared(&places, 1);
            assert_eq!(found.branch, format!("1_{}", places.meta(1, "database_id")), "{places}");
            if kinds[0] == Sqlite {
                assert_eq!(places.meta(0, "database_id"), found.home());
                assert_eq!(places.states(0).len(), usize::from(decided));
            } else {
                is_decided(&places, &found, decided);
            }
            assert_eq!(receipts(&places, 1, &found), Vec::<String>::new(), "{places}");
            let report = settle(&databases);
            if decided {
                says(&report, "1 committed, 0 rolled back, 0 left in doubt, 0 heuristic");
            }
            assert!(report.is_clear(), "{places}: {report}");
            let [committed, rolled_back] = [report.committed(), report.rolled_back()].map(<[_]>::len);
            assert_eq!([committed, rolled_back], [usize::from(decided), usize::from(!decided)], "{places}");
            assert_eq!(check(&places, point).len(), usize::from(decided));
            assert_eq!(receipts(&places, 1, &found).len(), usize::from(decided), "{places}");
            let status = if decided { TransactionStatus::Committed } else { TransactionStatus::RolledBack };
            assert_eq!(multidb::status(&found.id()).unwrap(), status);
        }
    }
}

/// What stands at home, and that it is home.
fn is_decided(places: &Places, found: &Found, decided: bool) {
    assert_eq!(run(places, 0, "which-database", &[])[0][0], found.home());
    let rows = run(places, 0, "decision", &[("gid", &found.gid)]);
    let states: Vec<&str> = rows.iter().map(|row| &*row[1]).collect();
    assert_eq!(states, if decided { &["c"][..] } else { &[] }, "{places}");
    if decided {
        assert_eq!((&*rows[0][2], &*rows[0][3]), (&*found.branch, "NULL"), "{places}");
        let open = run(places, 0, "open-decisions", &[]);
        assert_eq!(open[0][..2], [found.gid.clone(), found.branch.clone()], "{places}");
        let watched = run(places, 0, "watch-decisions", &[]);
        assert_eq!(watched[0][..3], ["c", "open", "1"], "{places}");
    }
}

fn receipts(places: &Places, at: usize, found: &Found) -> Vec<String> {
    run(places, at, "receipts", &[("gid", &found.gid)]).concat()
}

#[test]
fn a_branch_whose_home_is_not_configured_is_finished_where_it_is() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    kill_at(&places, Work::Listed, "decide.after_commit");
    let report = some(&places, &[1]).recover().unwrap();
    assert_eq!(reasons(&report), [Reason::HomeUnknown], "{report}");
    says(&report, "its home is none of the configured databases that can be reached");
    let found = prepared(&places, 1);
    assert_eq!(run(&places, 0, "which-database", &[])[0][0], found.home());
    recover(&places.databases());
    assert_eq!(check(&places, "both are configured"), [1]);
}

#[test]
fn a_branch_whose_home_was_renamed_is_finished_once_it_has_its_name_again() {
    let Some(places) = Places::new(&[Sqlite, MariaDb]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    change(&places, 0, "environment", &[("environment", "other")]);
    let report = settle(&databases);
    assert_eq!(reasons(&report), [Reason::OtherEnvironment], "{report}");
    says(&report, "its home belongs to another environment");
    change(&places, 0, "environment", &[("environment", "default")]);
    recover(&databases);
    assert_eq!(check(&places, "its own name"), [1]);
}

#[test]
fn a_branch_of_another_role_is_told_with_the_servers_words_and_its_owner_finishes_it() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let role = format!("poor_{}", places.meta(1, "database_id").to_lowercase());
    places.execute(
        1,
        &format!("CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"),
    );
    kill_at(&places, Work::Listed, "decide.after_commit");
    let (_, place) = places.urls[1].split_once('@').unwrap();
    let poor = format!("postgres://{role}:x@{place}");
    let databases = builder_of([(0, &*places.urls[0]), (1, &*poor)].into_iter()).build().unwrap();
    let report = until_decided(&databases);
    assert_eq!(reasons(&report), [Reason::NotFinished], "{report}");
    says(&report, "permission denied to finish prepared transaction");
    let found = prepared(&places, 1);
    let of_role = places.seen_by(1, &poor);
    says(&refused(&of_role, 1, "finish-postgres", &found.fill()), "permission denied to finish prepared transaction");
    assert_eq!(run(&of_role, 1, "prepared-postgres", &[])[0][1], "tester");
    by_hand(&places, 1, true);
    assert!(databases.recover().unwrap().is_clear());
    assert_eq!(check(&places, "by its owner"), [1]);
    drop((databases, of_role));
    places.execute(1, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_branch_of_another_incarnation_is_finished_by_hand_and_its_receipt_goes() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    places.prepare_by_hand(1, "00000000");
    let report = databases.recover().unwrap();
    assert_eq!(reasons(&report), [Reason::Failover], "{report}");
    says(&report, "its home was failed over since, and may have lost the decision, ");
    let found = prepared(&places, 1);
    by_hand(&places, 1, true);
    // Committed, and home knows nothing of it.
    places.execute(0, "INSERT INTO accounts VALUES (77)");
    run(&places, 1, "failover-receipts", &[("gid", &found.gid)]);
    databases.adopt("entries").unwrap();
    let report = databases.recover().unwrap();
    assert!(report.is_clear(), "{report}");
    assert_eq!(check(&places, "as on home"), [77]);
}

#[test]
fn a_recovery_that_was_killed_leaves_nothing_to_be_done() {
    let Some(places) = Places::new(&[Sqlite, Postgres]) else { return };
    kill_at(&places, Work::Listed, "prepare.all_done");
    kill_at(&places, Work::Recovers, "recover.finish.before.0");
    assert_eq!(places.states(0), ["a"]);
    recover(&places.databases());
    assert_eq!((check(&places, "the next pass"), places.states(0)), (vec![], vec!["a".to_owned()]));
}

#[test]
fn a_missing_table_is_named_in_the_error_and_recovery_says_nothing() {
    let Some(places) = Places::new(&[Postgres, MariaDb]) else { return };
    places.execute(1, "DROP TABLE multidb_meta");
    let databases = places.databases();
    let _entered = databases.enter();
    says(&databases.check(), "is missing, and should be made by `multidb::schema::install(&databases)`");
    let error = transfer(1, 1, 1, None).unwrap_err();
    says(&error, "a table of the library is missing: ");
    says(&error, "call `multidb::schema::install(&databases)` once");
    assert!(databases.recover().unwrap().is_clear());
    assert_eq!(check_rows(&places), [0, 0]);
}

#[test]
fn a_database_that_cannot_be_trusted_is_named_with_the_words_of_the_runbook_and_is_asked_once_it_is_mended() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    places.execute(1, "UPDATE multidb_meta SET server = 'another'");
    says(&databases.recover().unwrap(), "it is on another server than `multidb_meta` says ");
    databases.adopt("entries").unwrap();
    let urls = || places.urls.iter().map(|url| &**url).enumerate();
    let staging = builder_of(urls()).environment("staging").build().unwrap();
    says(&staging.recover().unwrap(), "it belongs to the environment ");
    let copy = format!("{}?application_name=copy", places.urls[0]);
    let both = builder_of(urls().chain([(2, &*copy)])).build().unwrap();
    says(&both.recover().unwrap(), "another database of the configuration has the same `database_id`");
    recover(&databases);
    assert_eq!(check(&places, "mended"), [1]);
}

#[test]
fn a_decision_that_waits_for_a_database_that_is_not_configured_is_named_and_closed_where_that_one_is_configured() {
    for kinds in [[Postgres, Postgres], [MariaDb, Postgres]] {
        let Some(places) = Places::new(&kinds) else { return };
        kill_at(&places, Work::Listed, "decide.after_commit");
        places.execute(0, "UPDATE multidb_decision SET created = 0");
        let found = prepared(&places, 1);
        let home = some(&places, &[0]);
        let log = told(|| says(&home.recover().unwrap(), "its decision stays open on `accounts`: "));
        says(&log, "decisions stay open");
        assert!(log.contains(&found.gid) && log.contains(&places.meta(1, "database_id")), "{log}");
        says(
            &home.recover().unwrap(),
            "none of the configured databases that can be reached; run recovery where all of its databases are",
        );
        let open = run(&places, 0, "open-decisions", &[]);
        assert_eq!((open.len(), &open[0][..2]), (1, &[found.gid.clone(), found.branch][..]), "{places}");
        let known = run(&places, 1, "which-database", &[]);
        assert_eq!(home.recover().unwrap().open()[0].missing, [known[0][0].clone()]);
        recover(&places.databases());
        assert_eq!(run(&places, 0, "open-decisions", &[]), Vec::<Vec<String>>::new());
        assert!(home.recover().unwrap().open().is_empty());
        assert_eq!(check(&places, "both are configured"), [1]);
    }
}

#[test]
fn each_reason_and_each_status_has_a_place_in_the_runbook() {
    for reason in [
        Reason::Alive,
        Reason::HomeUnknown,
        Reason::OtherEnvironment,
        Reason::Standby,
        Reason::Failover,
        Reason::NotFinished,
    ] {
        let text = reason.to_string();
        says(&reason, text.split([',', ';']).next().unwrap());
        says(&format!("### `{reason:?}`"), &format!("### `{reason:?}`"));
    }
    for status in [
        TransactionStatus::Committed,
        TransactionStatus::RolledBack,
        TransactionStatus::InDoubt,
        TransactionStatus::Heuristic,
        TransactionStatus::Forgotten,
        TransactionStatus::Unknown,
    ] {
        says(&format!("| `{status:?}` |"), &format!("| `{status:?}` |"));
    }
}

fn check_rows(places: &Places) -> [usize; 2] {
    [0, 1].map(|at| places.rows(at).len())
}

/// What the library tells of itself.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(log, "{field}={value:?} ").unwrap();
    }
}

/// What is told while this runs.
fn told(work: impl FnOnce()) -> String {
    // While it knows of one subscriber alone, tracing asks that of the thread that comes by an event first, and where that
    // thread has none, nobody is told of the event any more.
    static ANOTHER: LazyLock<tracing::Dispatch> =
        LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));
    LazyLock::force(&ANOTHER);
    let log = Log::default();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.clone()), work);
    log.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[test]
fn the_events_that_the_runbook_names_come_with_the_names_that_it_says() {
    let Some(places) = Places::new(&[Postgres, Postgres, Postgres]) else { return };
    let databases = places.databases();
    kill_at(&places, Work::Listed, "decide.after_commit");
    let lacking = [(0, UNREACHABLE), (1, &*places.urls[1]), (2, &*places.urls[2])];
    let lacking = builder_of(lacking.into_iter()).build_lazy().unwrap();
    let log = told(|| drop(lacking.recover().unwrap()));
    says(&log, "a transaction in doubt is left alone");
    says(&log, "recovery can't ask a database");
    let found = prepared(&places, 1);
    assert!(log.contains(&found.gid) && log.contains("entries") && log.contains("accounts"), "{log}");
    by_hand(&places, 1, false);
    let log = told(|| drop(settle(&databases)));
    for event in [
        "a transaction was recovered",
        "heuristic: the databases disagree, and an operator must look",
        "a pass of recovery has ended",
    ] {
        says(&log, event);
    }
}

#[test]
fn a_branch_that_mariadb_has_forgotten_is_seen_by_its_receipt_and_by_who_waits_and_a_restart_brings_it_back() {
    let Some(postgres) = postgres_url() else { return };
    let Some(server) = Server::start("mariadb") else { return };
    let places = Places::on(&[Postgres, MariaDb], &[postgres.to_owned(), server.url().to_owned()]);
    let databases = places.databases();
    let id = forgotten(&places, false).to_string();
    let branch = format!("1_{}", places.meta(1, "database_id"));
    assert_eq!(run(&places, 1, "forgotten-mariadb", &[]), [[id.clone(), branch.clone()]]);
    assert!(run(&places, 1, "prepared-mariadb", &[]).is_empty() && places.own_rows(1) == [0, 0]);
    says(
        &Reason::Held,
        "the server has forgotten a branch that is still open, and keeps its locks; restart that server, and recovery will finish it",
    );
    assert!(databases.recover().unwrap().is_clear());
    server.kill();
    server.restart();
    assert_eq!(prepared(&places, 1).gid, id);
    recover(&databases);
    assert_eq!((check(&places, "restarted"), places.own_rows(1)), (vec![], [0, 0]));
}
