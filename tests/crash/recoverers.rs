//! Recoverers that are killed, and recoverers beside a coordinator that is alive.

use crate::child::{Work, kill_at, recover};
use crate::matrix::check;
use crate::places::{Kind, Places};

#[test]
fn a_recoverer_that_is_killed_anywhere_leaves_the_rest_to_the_next_one() {
    let Some(places) = Places::new(&[Kind::Postgres, Kind::Postgres]) else { return };
    let databases = places.databases();
    let mut id = 0;
    for (left_at, committed) in [("prepare.all_done", false), ("decide.after_commit", true)] {
        for point in [
            "recover.list.after",
            "recover.probe.before",
            "recover.probe.holding_lock",
            "recover.probe.after",
            "recover.finish.before.0",
            "recover.finish.after.0",
        ] {
            kill_at(&places, Work::Listed, left_at);
            assert_eq!(places.prepared(1), 1, "{left_at}");
            kill_at(&places, Work::Recovers, point);
            recover(&databases);
            let rows = check(&places, point);
            assert_eq!(rows.len(), usize::from(committed), "{left_at}, {point}");
            places.execute(0, "DELETE FROM accounts");
            places.execute(1, "DELETE FROM entries");
            id += 1;
        }
    }
    assert_eq!(id, 12);
}
