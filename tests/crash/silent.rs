//! A coordinator whose connection has become a black hole holds its locks no longer than the server's limit for idle sessions:
//! then recovery finishes the transaction, and the coordinator, when it hears again, is told the truth.

use diesel::connection::{Connection, SimpleConnection};

use crate::child::{Ended, Started, Told, Work, command, recover};
use crate::matrix::check;
use crate::places::{Kind, Places};
use crate::proxy::{Loses, Proxy};
use crate::requests::Request;
use crate::server::Server;

use Kind::{MariaDb, Postgres};

/// Loses a request of the protocol and what comes after it, recovers without anybody's help, and lets the coordinator go on.
fn in_a_black_hole(places: &Places, urls: &[String], request: Request, at: usize) -> (Vec<i64>, Option<Told>) {
    places.clear();
    let address = urls[at].split_once('@').unwrap().1.split_once('/').unwrap().0;
    let proxy = Proxy::start(address.parse().unwrap());
    let mut disturbed = urls.to_vec();
    disturbed[at] = proxy.url(&urls[at]);
    proxy.lose_once(request.text(places.kinds[at]), Loses::RequestSilently);
    let known = places.sessions();
    let child = Started::of(&mut command(&disturbed, Work::Listed, &[]));
    assert!(proxy.until_hit(), "{places}: the request is not made");
    // While it ends, MariaDB may tell who finishes its branch that this is done, and it is not.
    places.until_gone_from(at, &known);
    recover(&places.databases());
    let rows = check(places, "its session has ended");
    proxy.let_go();
    let ended = Ended::of(child);
    recover(&places.databases());
    assert_eq!(check(places, "it was told"), rows, "{places}: {ended:?}");
    (rows, ended.told())
}

#[test]
fn on_postgres_a_decision_that_is_lost_in_a_black_hole_is_rolled_back_once_its_session_was_idle_for_too_long() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    // The users' own limit counts where it is the shorter one.
    let mut urls = places.urls.clone();
    urls[0] += "?options=-cidle_in_transaction_session_timeout%3D3s";
    let outcome = in_a_black_hole(&places, &urls, Request::Commit, 0);
    assert_eq!(outcome, (vec![], Some(Told::RolledBack)));
}

#[test]
fn on_mariadb_a_session_in_a_black_hole_holds_neither_a_decision_nor_a_prepared_branch_for_ever() {
    let Some(server) = Server::start("mariadb") else { return };
    let places = Places::on(&[MariaDb, MariaDb], &[server.url().to_owned(), server.url().to_owned()]);
    let mut admin = diesel::MysqlConnection::establish(server.url()).unwrap();
    admin.batch_execute("SET GLOBAL wait_timeout = 3").unwrap();
    let outcome = in_a_black_hole(&places, &places.urls, Request::Commit, 0);
    assert_eq!(outcome, (vec![], Some(Told::RolledBack)), "the decision");
    let outcome = in_a_black_hole(&places, &places.urls, Request::Apply, 1);
    assert_eq!(outcome, (vec![1], Some(Told::Committed)), "what is prepared");
}
