//! A copy of a server: it has all that is prepared, and takes itself for the original.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Reason, schema};

use super::{moved, pass, registry_of};
use crate::child::{Work, kill_at, recover};
use crate::left_alone::{reasons, settle};
use crate::matrix::check;
use crate::places::{Kind, Places, builder_of};
use crate::server::Server;
use crate::servers::{mysql_url, postgres_url};

use Kind::{MariaDb, Postgres};

/// A server of a kind, and where to put what is not on it.
fn server(kind: Kind) -> Option<(Server, String)> {
    let shared = if kind == Postgres { postgres_url()? } else { mysql_url()? };
    let server = Server::start(if kind == Postgres { "postgres" } else { "mariadb" })?;
    Some((server, shared.to_owned()))
}

fn clone_of(kind: Kind, server: &Server) -> Server {
    Server::make(if kind == Postgres { "postgres" } else { "mariadb" }, "clone", Some(server.folder())).unwrap()
}

/// Places whose second database is on the copy.
fn copied(places: &Places, copy: &Server) -> String {
    moved(&places.urls[1], copy)
}

fn execute(url: &str, sql: &str) {
    match url.split_once("://") {
        Some(("postgres", _)) => PgConnection::establish(url).unwrap().batch_execute(sql).unwrap(),
        _ => MysqlConnection::establish(url).unwrap().batch_execute(sql).unwrap(),
    }
}

/// How many branches of any database are prepared on a server.
fn prepared(url: &str) -> usize {
    match url.split_once("://") {
        Some(("postgres", _)) => diesel::sql_query("SELECT FROM pg_prepared_xacts")
            .execute(&mut PgConnection::establish(url).unwrap())
            .unwrap(),
        _ => diesel::sql_query("XA RECOVER").execute(&mut MysqlConnection::establish(url).unwrap()).unwrap(),
    }
}

#[test]
fn a_copy_of_a_participant_is_not_taken_for_it_and_once_it_has_an_id_of_its_own_it_is_not_in_the_way() {
    for kind in [Postgres, MariaDb] {
        let Some((original, shared)) = server(kind) else { return };
        let places = Places::on(&[kind; 2], &[shared, original.url().to_owned()]);
        kill_at(&places, Work::Listed, "decide.after_commit");
        let copy = clone_of(kind, &original);
        let url = copied(&places, &copy);
        let touched = |what: &str| assert_eq!((places.prepared(1), prepared(&url)), (1, 1), "{places}: {what}");
        touched("before");
        for _ in 0..2 {
            let report = pass(&[&places.urls[0], &places.urls[1], &url]);
            assert_eq!((report.problems().len(), report.closed()), (2, 0), "{places}: {report}");
            assert_eq!((report.heuristic().len(), places.states(0)), (0, vec!["c".into()]), "{places}: {report}");
            touched("both are configured");
        }
        let alone = |environment: Option<&str>| {
            let builder = builder_of([(1, &*url)].into_iter());
            let builder = match environment {
                Some(environment) => builder.environment(environment),
                None => builder,
            };
            builder.build().unwrap().recover().unwrap()
        };
        let staging = alone(Some("staging"));
        assert_eq!((staging.problems().len(), staging.left().len()), (1, 0), "{places}: {staging}");
        let same = alone(None);
        assert_eq!((same.problems().len(), reasons(&same)), (0, vec![Reason::HomeUnknown]), "{places}: {same}");
        touched("the copy alone");
        execute(&url, "DELETE FROM multidb_meta");
        schema::install(&builder_of([(1, &*url)].into_iter()).build().unwrap()).unwrap();
        recover(&registry_of(&[&places.urls[0], &places.urls[1], &url]));
        assert_eq!(check(&places, "beside a copy of another id"), [1]);
        assert_eq!(prepared(&url), 1, "{places}: the copy's own branch is left to whoever has copied it");
    }
}

#[test]
fn a_staging_system_made_of_copies_of_different_moments_touches_nothing_of_the_originals() {
    let Some((home, _)) = server(Postgres) else { return };
    let Some((participant, _)) = server(Postgres) else { return };
    let places = Places::on(&[Postgres; 2], &[home.url().to_owned(), participant.url().to_owned()]);
    // In the copy the decision is missing, and the branch is there.
    let home_copy = clone_of(Postgres, &home);
    kill_at(&places, Work::Listed, "decide.after_commit");
    let participant_copy = clone_of(Postgres, &participant);
    let urls = [moved(&places.urls[0], &home_copy), copied(&places, &participant_copy)];
    let staging = || builder_of(urls.iter().map(|url| &**url).enumerate());
    // Its own environment is what keeps its hands off.
    let report = staging().environment("staging").build().unwrap().recover().unwrap();
    assert_eq!((report.problems().len(), prepared(&urls[1])), (2, 1), "{report}");
    let report = settle(&staging().build().unwrap());
    assert_eq!((report.rolled_back().len(), prepared(&urls[1])), (1, 0), "it has only the copies: {report}");
    assert_eq!((places.states(0), places.prepared(1)), (vec!["c".into()], 1), "the originals");
    recover(&places.databases());
    assert_eq!(check(&places, "the originals"), [1]);
}
