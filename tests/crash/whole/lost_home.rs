//! A home that loses data: restored from an earlier copy, or made anew.

use std::path::PathBuf;

use multidb::{Reason, TransactionStatus, schema};

use crate::child::{Work, kill_at, recover, transfer};
use crate::left_alone::{reasons, settle};
use crate::matrix::check;
use crate::places::{Kind, Places};
use crate::server::Server;
use crate::servers::{mysql_url, postgres_url};

use Kind::{MariaDb, Postgres, Sqlite};

/// What keeps an earlier copy of home's data and puts it back: a server, or the files of one database each.
enum Keeper {
    Server(Server),
    Files,
}

impl Keeper {
    fn of(kind: Kind) -> Option<Self> {
        match kind {
            Postgres => Server::start("postgres").map(Self::Server),
            MariaDb => Server::start("mariadb").map(Self::Server),
            Sqlite => Some(Self::Files),
        }
    }

    /// Fresh databases, of which the first is its.
    fn places(&self, kinds: &[Kind]) -> Option<Places> {
        let mut servers = Vec::new();
        for kind in kinds {
            servers.push(match kind {
                Postgres => postgres_url()?.to_owned(),
                MariaDb => mysql_url()?.to_owned(),
                Sqlite => String::new(),
            });
        }
        if let Self::Server(server) = self {
            server.url().clone_into(&mut servers[0]);
        }
        Some(Places::on(kinds, &servers))
    }

    fn keep(&self, all: &[&Places]) {
        match self {
            Self::Server(server) => server.must("keep"),
            Self::Files => all.iter().for_each(|places| {
                std::fs::copy(&places.urls[0], kept(places)).unwrap();
            }),
        }
    }

    fn restore(&self, all: &[&Places]) {
        match self {
            Self::Server(server) => server.must("restore"),
            Self::Files => all.iter().for_each(|places| {
                remove_files(places);
                std::fs::rename(kept(places), &places.urls[0]).unwrap();
            }),
        }
    }
}

fn kept(places: &Places) -> PathBuf {
    format!("{}.kept", places.urls[0]).into()
}

/// A file, and what SQLite keeps beside it.
fn remove_files(places: &Places) {
    std::fs::remove_file(&places.urls[0]).unwrap();
    for beside in ["-wal", "-shm", "-journal"] {
        let _ = std::fs::remove_file(format!("{}{beside}", places.urls[0]));
    }
}

#[test]
fn what_a_restored_home_has_lost_is_rolled_back_unless_a_receipt_says_that_it_was_decided() {
    for kind in [Postgres, MariaDb, Sqlite] {
        let Some(keeper) = Keeper::of(kind) else { return };
        let Some(waits) = keeper.places(&[kind, Postgres]) else { return };
        let Some(before) = keeper.places(&[kind, MariaDb]) else { return };
        let Some(followed) = keeper.places(&[kind, Postgres, Postgres]) else { return };
        let Some(complete) = keeper.places(&[kind, MariaDb]) else { return };
        kill_at(&before, Work::Listed, "decide.after_commit");
        keeper.keep(&[&waits, &before, &followed, &complete]);
        kill_at(&waits, Work::Listed, "decide.after_commit");
        kill_at(&followed, Work::Listed, "apply.after.1");
        let databases = complete.databases();
        {
            let _entered = databases.enter();
            transfer(1, 1, 1, None).unwrap();
        }
        drop(databases);
        assert_eq!((waits.rows(0), followed.rows(0)), (vec![1], vec![1]), "{waits}");
        keeper.restore(&[&waits, &before, &followed, &complete]);
        assert_eq!((waits.rows(0), followed.rows(0)), (vec![], vec![]), "{waits}");

        recover(&before.databases());
        assert_eq!(check(&before, "the decision is older than the copy"), [1]);
        recover(&waits.databases());
        assert_eq!(check(&waits, "home has lost its rows with the decision"), Vec::<i64>::new());
        is_told(&followed);
        is_told(&complete);
        assert_eq!(followed.prepared(2), 1, "{followed}: it waits for an operator");
        followed.finish_by_hand(2, true);
    }
}

/// A branch has committed, and home knows nothing of it.
fn is_told(places: &Places) {
    let databases = places.databases();
    let _entered = databases.enter();
    let report = settle(&databases);
    assert_eq!(report.heuristic().len(), 1, "{places}: {report}");
    let id = &report.heuristic()[0];
    for _ in 0..2 {
        settle(&databases);
        assert_eq!((places.states(0), places.rows(0), places.rows(1)), (vec!["h".into()], vec![], vec![1]), "{places}");
        assert_eq!(multidb::status(id).unwrap(), TransactionStatus::Heuristic, "{places}");
    }
}

#[test]
fn a_home_that_is_made_anew_is_another_one_and_an_operator_finishes_what_the_old_one_left() {
    for (kind, commits) in [(Postgres, true), (Sqlite, false), (MariaDb, true)] {
        let Some(places) = Places::new(&[kind, Postgres]) else { return };
        kill_at(&places, Work::Listed, "decide.after_commit");
        make_anew(&places);
        // At first without the library's tables.
        for _ in 0..2 {
            let report = settle(&places.databases());
            assert_eq!((reasons(&report), places.prepared(1)), (vec![Reason::HomeUnknown], 1), "{places}: {report}");
            schema::install(&places.databases()).unwrap();
        }
        let databases = places.databases();
        let _entered = databases.enter();
        let report = databases.recover().unwrap();
        assert_eq!((reasons(&report), report.problems().len()), (vec![Reason::HomeUnknown], 0), "{places}: {report}");
        assert_eq!(multidb::status(&report.left()[0].id).unwrap(), TransactionStatus::Unknown, "{places}");
        places.finish_by_hand(1, commits);
        let report = databases.recover().unwrap();
        assert!(report.is_clear(), "{places}: {report}");
        assert_eq!(places.rows(1).len(), usize::from(commits), "{places}");
        transfer(1, 2, 2, None).unwrap();
        assert_eq!(places.rows(0), [2], "{places}");
    }
}

#[test]
fn a_decision_that_an_operator_deletes_is_lost_and_where_nobody_has_followed_it_nobody_can_tell() {
    let Some(places) = Places::new(&[Postgres, Postgres, MariaDb]) else { return };
    kill_at(&places, Work::Listed, "decide.after_commit");
    places.execute(0, "DELETE FROM multidb_decision");
    recover(&places.databases());
    assert_eq!([places.rows(0), places.rows(1), places.rows(2)], [vec![1], vec![], vec![]], "so never delete one");
    assert_eq!((places.prepared(1), places.prepared(2)), (0, 0));
}

/// Drops the first database, and makes it without the library's tables.
fn make_anew(places: &Places) {
    let table = "CREATE TABLE accounts (id BIGINT PRIMARY KEY)";
    if places.kinds[0] == Sqlite {
        remove_files(places);
        places.execute(0, table);
        return;
    }
    let name = places.urls[0].rsplit_once('/').unwrap().1;
    let force = if places.kinds[0] == Postgres { " WITH (FORCE)" } else { "" };
    let mut admin = Places::new(&places.kinds[..1]).unwrap();
    admin.execute(0, &format!("DROP DATABASE {name}{force}"));
    admin.execute(0, &format!("CREATE DATABASE {name}"));
    admin.urls[0].clone_from(&places.urls[0]);
    admin.execute(0, table);
}
