//! Servers that have no room: for another prepared transaction, or for another connection.

use std::sync::Barrier;
use std::thread::scope;

use diesel::connection::{Connection, SimpleConnection};
use multidb::{Databases, Error};

use super::raw;
use crate::child::{Work, kill_at, recover, transfer};
use crate::left_alone::settle;
use crate::matrix::check;
use crate::places::{Kind, Places, builder_of};
use crate::server::Server;
use crate::servers::{mysql_url, postgres_url};

use Kind::{MariaDb, Postgres};

/// How many transactions the server can keep prepared.
const MOST: usize = 2;
/// How many transactions want it at once.
const CLIENTS: i64 = 8;

fn in_use(databases: &Databases) -> u32 {
    let states = databases.iter().map(multidb::Database::pool_state);
    states.map(|state| state.connections - state.idle_connections).sum()
}

#[track_caller]
fn is_refused(refused: &Error) {
    assert!(matches!(refused, Error::Config { .. }) && !refused.is_in_doubt(), "{refused}");
    let text = refused.to_string();
    for named in ["`entries`", "max_prepared_transactions", "rolled back"] {
        assert!(text.contains(named), "{named} is missing in: {text}");
    }
}

#[test]
fn a_server_full_of_branches_in_doubt_refuses_the_next_transaction_whole_and_recovery_makes_room() {
    let Some(postgres) = postgres_url() else { return };
    let Some(small) = Server::start("postgres") else { return };
    raw(&small).batch_execute(&format!("ALTER SYSTEM SET max_prepared_transactions = {MOST}")).unwrap();
    small.kill();
    small.restart();
    let on_it = || Places::on(&[Postgres; 2], &[postgres.to_owned(), small.url().to_owned()]);
    let (places, full) = (on_it(), [(); MOST].map(|()| on_it()));
    for others in &full {
        kill_at(others, Work::Listed, "prepare.all_done");
        assert_eq!(others.prepared(1), 1);
    }
    let databases = places.databases();
    let _entered = databases.enter();
    for _ in 0..2 {
        is_refused(&transfer(1, 7, 7, None).unwrap_err());
        assert_eq!((places.rows(0), places.own_rows(0), places.own_rows(1)), (vec![], [0, 0], [0, 0]));
        assert_eq!((check(&places, "refused"), in_use(&databases)), (vec![], 0));
    }
    recover(&full[0].databases());
    transfer(1, 8, 8, None).unwrap();
    assert_eq!(check(&places, "there is room again"), [8]);
    more_at_once_than_it_can_keep(&places);
}

/// Each is either everywhere, or refused and nowhere.
fn more_at_once_than_it_can_keep(places: &Places) {
    let databases = places.databases();
    let barrier = Barrier::new(usize::try_from(CLIENTS).unwrap());
    let mut expected = vec![8];
    scope(|threads| {
        let clients: Vec<_> = (100..100 + CLIENTS)
            .map(|id| {
                let (databases, barrier) = (&databases, &barrier);
                threads.spawn(move || {
                    let _entered = databases.enter();
                    barrier.wait();
                    (id, transfer(1, id, id, None))
                })
            })
            .collect();
        for client in clients {
            match client.join().unwrap() {
                (id, Ok(())) => expected.push(id),
                (_, Err(refused)) => is_refused(&refused),
            }
        }
    });
    recover(&databases);
    assert!(expected.len() > 1, "none got through");
    assert_eq!(check(places, "more than it can keep"), expected);
    assert_eq!(in_use(&databases), 0);
}

#[test]
fn a_server_without_a_free_connection_is_reported_and_the_others_are_recovered() {
    let (Some(postgres), Some(mariadb)) = (postgres_url(), mysql_url()) else { return };
    let Some(full) = Server::start("mariadb") else { return };
    let servers = [postgres, mariadb, full.url()].map(str::to_owned);
    let places = Places::on(&[Postgres, MariaDb, MariaDb], &servers);
    kill_at(&places, Work::Listed, "decide.after_commit");
    let mut connections = vec![diesel::MysqlConnection::establish(full.url()).unwrap()];
    connections[0].batch_execute("SET GLOBAL max_connections = 10").unwrap();
    while let Ok(another) = diesel::MysqlConnection::establish(full.url()) {
        connections.push(another);
    }
    let databases = builder_of(places.urls.iter().map(|url| &**url).enumerate()).build_lazy().unwrap();
    let report = settle(&databases);
    assert_eq!(report.problems().len(), 1, "{report}");
    assert!(report.problems()[0].1.contains("Too many connections"), "{report}");
    assert_eq!((places.prepared(1), places.rows(1), places.own_rows(0)), (0, vec![1], [1, 0]), "{report}");
    drop(connections);
    recover(&databases);
    assert_eq!(check(&places, "there is room again"), [1]);
}
