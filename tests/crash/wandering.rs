//! Processes that are killed after a body has gone to another schema or database, or has taken another role.

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use multidb::{Databases, schema};

use crate::child::{Wandering, kill_wandering, recover};
use crate::matrix::check;
use crate::places::{Kind, Places};
use crate::servers;

use Kind::{MariaDb, Postgres, Sqlite};

/// A place beside the tables of one database that has tables of the library's own too, and the text that goes there.
fn tenant(places: &Places, at: usize) -> String {
    let (address, name) = places.urls[at].rsplit_once('/').unwrap();
    let (url, text) = match places.kinds[at] {
        Postgres => {
            places.execute(at, "CREATE SCHEMA tenant");
            (
                format!("{}?options=-csearch_path%3Dtenant", places.urls[at]),
                "SET LOCAL search_path TO tenant".to_owned(),
            )
        }
        MariaDb => {
            places.execute(at, &format!("CREATE DATABASE {name}_tenant"));
            (format!("{address}/{name}_tenant"), format!("USE {name}_tenant"))
        }
        Sqlite => unreachable!("a file has no other"),
    };
    let builder = Databases::builder();
    let builder =
        if places.kinds[at] == Postgres { builder.postgres("tenant", url) } else { builder.mysql("tenant", url) };
    schema::install(&builder.build().unwrap()).unwrap();
    text
}

#[test]
fn a_decision_is_found_after_a_kill_wherever_the_body_had_gone() {
    for kinds in [[Postgres, Postgres], [Postgres, MariaDb], [MariaDb, Postgres], [MariaDb, MariaDb]] {
        for at in [0, 1] {
            for (point, expected) in [("prepare.all_done", vec![]), ("decide.after_commit", vec![1])] {
                let Some(places) = Places::new(&kinds) else { return };
                let text = tenant(&places, at);
                kill_wandering(&places, Wandering(at, &text), point);
                recover(&places.databases());
                assert_eq!(check(&places, point), expected, "{places}: {text} on {at} at {point}");
            }
        }
    }
}

#[test]
fn another_process_finishes_what_a_body_has_written_as_another_role() {
    let Some(server) = servers::postgres_url() else { return };
    let role = format!("crash_{}", std::process::id());
    diesel::PgConnection::establish(server).unwrap().batch_execute(&format!("CREATE ROLE {role}")).unwrap();
    for kinds in [[MariaDb, Postgres], [Sqlite, Postgres], [Postgres, Postgres]] {
        for set in ["SET LOCAL ROLE", "SET ROLE", "SET SESSION AUTHORIZATION"] {
            for (point, expected) in [("prepare.all_done", vec![]), ("decide.after_commit", vec![1])] {
                let Some(places) = Places::new(&kinds) else { return };
                kill_wandering(&places, Wandering(1, &format!("{set} {role}")), point);
                recover(&places.databases());
                assert_eq!(check(&places, point), expected, "{places}: {set} at {point}");
            }
        }
    }
}
