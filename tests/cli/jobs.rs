//! The example `jobs`: what runs when, and what is in its file afterwards.

use std::process::Command;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text};

use crate::bank::Run;
use crate::program::program;

/// Written by hand from what hooks promise. Where the text of an error tells a place, it is `(..)` here.
const TRANSCRIPT: &str = r#"create a
  address pool: 1 is reserved
  a is written
  queue: Boot("a")
  metrics: committed, there are 1 servers
= ok
create b, for which there is no room
  address pool: 2 is reserved
  b is written
  address pool: 2 is released
  metrics: rolled back, there are 1 servers
= rolled back: there is no room for b
create c, with levels that are undone
  address pool: 3 is reserved
  c is written
  c goes without a volume: the volume of c is too large
  back to the savepoint
  queue: Boot("c")
  metrics: committed, there are 2 servers
= ok
create d, with a hook that fails
  address pool: 4 is reserved
  d is written
  on_hook_failure: the transaction is committed, but a hook that `create_and_tell` (..) had registered failed: the mail server is away; do its work again by itself
  queue: Boot("d")
  metrics: committed, there are 3 servers
= ok
create e, with a hook that fails and is insisted on
  address pool: 5 is reserved
  e is written
  on_hook_failure: the transaction is committed, but a hook that `create_and_insist` (..) had registered failed: the log server is away; do its work again by itself
  on_hook_failure: the transaction is committed, but a hook that `create_and_insist` (..) had registered failed: the mail server is away; do its work again by itself
  queue: Boot("e")
  metrics: committed, there are 4 servers
= done, but: the transaction is committed, but a hook that `create_and_insist` (..) had registered failed: the mail server is away; do its work again by itself
a job of each kind outside of any transaction
  queue: Watch("all")
  metrics: committed, there are 4 servers
work
  a is active
  c is active
  d is active
  e is active
  all is watched
server a: active
server c: active
server d: active
server e: active
"#;

#[derive(QueryableByName)]
struct Volumes {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName, Debug, PartialEq, Eq)]
struct Server {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Integer)]
    address: i32,
    #[diesel(sql_type = Text)]
    state: String,
}

/// Every `(file.rs:12)` as `(..)`.
fn without_places(text: &str) -> String {
    let mut parts = text.split('(');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let place = part.split_once(')').filter(|(inside, _)| inside.contains(".rs:"));
        shown.push('(');
        shown.push_str(&place.map_or_else(|| part.to_owned(), |(_, rest)| format!("..){rest}")));
    }
    shown
}

#[test]
fn jobs_run_for_the_outcome_that_they_wait_for_and_in_their_order() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = Run::of(Command::new(program("jobs")).current_dir(folder.path()));
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    assert_eq!(without_places(&run.stdout), TRANSCRIPT);
    assert_eq!(folder.path().read_dir().expect("the folder").count(), 0, "the rows are in memory");
}

#[test]
fn a_hook_that_fails_takes_no_row_with_it_and_a_level_that_is_undone_leaves_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = Run::of(Command::new(program("jobs")).current_dir(folder.path()).arg("jobs.db"));
    assert_eq!(run.status, Some(0), "{run:#?}");
    let file = folder.path().join("jobs.db");
    let mut conn = SqliteConnection::establish(file.to_str().expect("a path in UTF-8")).expect("the database");
    let query = diesel::sql_query("SELECT name, address, state FROM servers ORDER BY name");
    let servers: Vec<Server> = query.load(&mut conn).expect("the servers");
    let active = |name: &str, address| Server { name: name.to_owned(), address, state: "active".to_owned() };
    assert_eq!(servers, [active("a", 1), active("c", 3), active("d", 4), active("e", 5)]);
    let query = diesel::sql_query("SELECT count(*) AS count FROM volumes");
    let volumes: Volumes = query.get_result(&mut conn).expect("the volumes");
    assert_eq!(volumes.count, 0);
}
