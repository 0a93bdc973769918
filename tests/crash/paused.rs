//! A coordinator that is paused at each point, while others recover. Nothing is decided against it; when it goes on it ends as
//! it would have, and is told the truth.

use std::thread::scope;

use multidb::fault::Stop;
use multidb::{Databases, RecoveryReport};

use crate::child::{Ended, Started, Work, command, resume, until_stopped};
use crate::layout::{ALL, Layout, on_each, whole};
use crate::matrix::{PLAIN, is_decided, points};
use crate::places::{Kind, Places};
use crate::table::{Cell, Table};
use crate::verdict::{Expected, agree, go_on, is_true, one_pass};

/// How many recover at once beside it.
const RECOVERERS: usize = 2;

fn pause(places: &Places, databases: &Databases, point: &str) -> Cell {
    places.clear();
    let known = places.sessions();
    let mut command = command(&places.urls, Work::Listed, &[(point, 0, Stop::Pause)]);
    let child = Started::of(command.env("MULTIDB_TEST_CRASH_AGAIN", "1"));
    until_stopped(&child);
    let reports: Vec<RecoveryReport> = scope(|threads| {
        let passes: Vec<_> = (0..RECOVERERS).map(|_| threads.spawn(|| databases.recover().unwrap())).collect();
        passes.into_iter().map(|pass| pass.join().unwrap()).collect()
    });
    resume(&child);
    let ended = Ended::of(child);
    for report in &reports {
        let commits_early = !is_decided(point) && !report.committed().is_empty();
        if commits_early || !report.rolled_back().is_empty() || !report.heuristic().is_empty() {
            return Err(format!("decided beside a coordinator that lives: {report}"));
        }
    }
    if !ended.went_on() {
        return Err(format!("it could not go on: {ended:?}"));
    }
    places.until_gone_but(&known);
    one_pass(databases)?;
    let all: Vec<usize> = (0..places.urls.len()).collect();
    let held = agree(places, &all, &Expected::one())?;
    is_true(&ended, held)?;
    go_on(places)?;
    Ok(held)
}

#[test]
fn a_coordinator_that_is_paused_anywhere_while_others_recover_commits_when_it_goes_on() {
    let table = Table::new("paused at", ALL.iter().map(Layout::to_string));
    let tried = on_each(&ALL, |column, places| {
        let layout = ALL[column];
        let databases = places.databases();
        let _entered = databases.enter();
        let branches: Vec<usize> = (1..=layout.others().len()).collect();
        let points = points(&PLAIN, &branches);
        for (row, point) in points.iter().enumerate().filter(|_| !branches.is_empty()) {
            // Whoever recovers waits for the lock of a file as long as others do.
            let is_long = layout.0.contains(&Kind::Sqlite) && !is_decided(point);
            let is_chosen = whole() || !is_long || (row + column) % 5 == 0;
            if is_chosen && !table.enter(order(point), point, column, pause(places, &databases, point)) {
                break;
            }
        }
    });
    if tried {
        table.end();
    }
}

fn order(point: &str) -> usize {
    points(&PLAIN, &[1, 2]).iter().position(|known| known == point).expect("a point of three databases")
}
