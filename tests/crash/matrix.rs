//! A process killed at each point of the protocol, on each layout of databases.

use std::collections::BTreeSet;

use multidb::fault::{POINTS, Stop};

use crate::child::{At, Ended, Started, Work, command, resume, start, until_stopped};
use crate::layout::{ALL, Layout, on_each};
use crate::places::{Kind, Places};
use crate::table::{Cell, Table};
use crate::verdict::{Expected, agree, go_on, one_pass};

/// A kill that is tried.
struct Kill {
    what: &'static str,
    work: Work,
    /// Where the process is killed, and how often it passes there before.
    point: String,
    skip: u32,
    /// Before that, it is paused there, and its sessions on this database are ended.
    severed: Option<(String, usize)>,
    /// Before that, another process was killed there and has left what is to be recovered.
    left_at: Option<&'static str>,
    expected: Expected,
    /// The databases that are written.
    written: Vec<usize>,
}

/// After which points the decision is made.
pub(crate) fn is_decided(point: &str) -> bool {
    ["decide.after", "apply.", "connection.", "clean.", "alone.after"].iter().any(|begin| point.starts_with(begin))
}

/// The points whose names begin so, in order, with numbers for their branches.
pub(crate) fn points(begins: &[&str], branches: &[usize]) -> Vec<String> {
    let named = POINTS.iter().filter(|point| begins.iter().any(|begin| point.starts_with(begin)));
    let numbered = |point: &&str| match point.strip_suffix(".N") {
        None => vec![(*point).to_owned()],
        Some(base) => branches.iter().map(|branch| format!("{base}.{branch}")).collect(),
    };
    named.flat_map(numbered).collect()
}

/// What is passed by a commit that nothing disturbs.
pub(crate) const PLAIN: [&str; 9] = [
    "enlist.after_begin",
    "enlist.promoted",
    "receipt.",
    "intent.",
    "prepare.",
    "decide.before",
    "decide.after",
    "apply.",
    "connection.",
];

/// The kills on a layout.
struct Kills {
    layout: Layout,
    all: Vec<Kill>,
}

impl Kills {
    fn on(layout: Layout) -> Vec<Kill> {
        let mut kills = Self { layout, all: Vec::new() };
        kills.of_parts();
        if layout.others().is_empty() {
            kills.of_files();
        } else {
            kills.of_commits();
            kills.of_aborts();
            kills.of_recoverers();
        }
        kills.all
    }

    fn add(&mut self, what: &'static str, work: Work, points: Vec<String>) {
        let all: Vec<usize> = (0..self.layout.0.len()).collect();
        for point in points {
            let written = if work == Work::Alone { vec![all.len() - 1] } else { all.clone() };
            let expected = match work {
                _ if !is_decided(&point) => Expected::NONE,
                Work::Hundred => Expected::Rows((1..=100).collect()),
                _ => Expected::one(),
            };
            let kill = Kill { what, work, point, skip: 0, severed: None, left_at: None, expected, written };
            self.all.push(kill);
        }
    }

    /// The databases commit one after the other, the last one first: those that have stay so.
    fn of_parts(&mut self) {
        for last in 1..self.layout.0.len() {
            self.add("in parts", Work::InParts, points(&["best_effort."], &[last]));
            let kill = self.all.last_mut().expect("added above");
            kill.written = (last..self.layout.0.len()).collect();
            kill.expected = Expected::one();
        }
    }

    /// Several files are one branch, which commits by itself.
    fn of_files(&mut self) {
        let plain = points(&["enlist.after_begin", "alone.", "connection."], &[0]);
        self.add("listed", Work::Listed, plain);
        self.of_manual();
    }

    fn of_commits(&mut self) {
        let (layout, last) = (self.layout, self.layout.last_branch());
        let others: Vec<usize> = (1..=layout.others().len()).collect();
        self.add("listed", Work::Listed, points(&PLAIN, &others));
        if layout.may_join() {
            self.add("joined later", Work::Late, points(&PLAIN, &others));
        }
        // Only PostgreSQL tells that a branch has only read.
        if layout.0.last() == Some(&Kind::Postgres) {
            self.add("one only reads", Work::Reads, points(&["readonly."], &[last]));
        }
        self.add("one alone writes", Work::Alone, points(&["alone.", "connection."], &[last]));
        let of_thread = points(&["decide.after", "apply.", "connection."], &others);
        self.add("a thread applies it", Work::Acknowledged, of_thread);
        self.of_manual();
        self.add("rows of a hundred", Work::Hundred, points(&["clean."], &[]));
    }

    fn of_manual(&mut self) {
        let two_phases = ["intent.after", "decide.before_commit", "decide.after_commit"];
        let alone = ["alone.before_commit.0", "alone.after_commit.0"];
        let of_second: &[&str] = if self.layout.others().is_empty() { &alone } else { &two_phases };
        for (point, skip) in of_second.iter().map(|point| (*point, 1)).chain([("manual.between_commits", 0)]) {
            self.add("manual, at the second", Work::Manual, vec![point.to_owned()]);
            let kill = self.all.last_mut().expect("added above");
            kill.skip = skip;
            kill.expected = Expected::Rows(if is_decided(point) { vec![1, 2] } else { vec![1] });
        }
    }

    fn of_aborts(&mut self) {
        let layout = self.layout;
        let others = layout.others();
        let branches: Vec<usize> = (1..=others.len()).collect();
        let sever = |kills: &mut Self, what, at: String, database, points| {
            let before = kills.all.len();
            kills.add(what, Work::Listed, points);
            for kill in &mut kills.all[before..] {
                kill.severed = Some((at.clone(), database));
                kill.expected = Expected::NONE;
            }
        };
        let last = others.len();
        let at = format!("prepare.before.{last}");
        sever(self, "participant's session ended", at, others[last - 1], points(&["abort."], &branches));
        // A file has no sessions.
        if layout.home() == [0] && layout.0[0] != Kind::Sqlite {
            let points = points(&["decide.probe.", "abort.before", "abort.after."], &branches);
            sever(self, "home's session ended", "decide.before_commit".into(), 0, points);
        }
    }

    fn of_recoverers(&mut self) {
        let found: Vec<usize> = (0..self.layout.others().len()).collect();
        for (what, left_at) in
            [("recoverer, undecided", "prepare.all_done"), ("recoverer, decided", "decide.after_commit")]
        {
            let mut points = points(&["recover."], &found);
            // Receipts are asked for where there is no decision, and what is decided is closed.
            points.push(if is_decided(left_at) { "clean.close.after" } else { "receipts.after_check" }.to_owned());
            let before = self.all.len();
            self.add(what, Work::Recovers, points);
            for kill in &mut self.all[before..] {
                kill.left_at = Some(left_at);
                kill.expected = if is_decided(left_at) { Expected::one() } else { Expected::NONE };
            }
        }
    }
}

impl Kill {
    fn name(&self) -> String {
        format!("{}: {}", self.what, self.point)
    }

    fn run(&self, places: &Places) -> Result<(), String> {
        if let Some(point) = self.left_at {
            let known = places.sessions();
            let left = Ended::of(start(places, Work::Listed, point, Stop::Kill));
            if !left.was_killed() {
                return Err(format!("it was not killed at {point}: {left:?}"));
            }
            places.until_gone_but(&known);
        }
        let known = places.sessions();
        let mut stops: Vec<At<'_>> = vec![(&self.point, self.skip, Stop::Kill)];
        if let Some((point, _)) = &self.severed {
            stops.push((point, 0, Stop::Pause));
        }
        let child = Started::of(&mut command(&places.urls, self.work, &stops));
        if let Some((_, database)) = self.severed {
            until_stopped(&child);
            places.end_sessions_but(database, &known);
            resume(&child);
        }
        let ended = Ended::of(child);
        if !ended.was_killed() {
            return Err(format!("it was not killed there: {ended:?}"));
        }
        places.until_gone_but(&known);
        Ok(())
    }

    /// Kills, recovers once, and looks.
    fn try_on(&self, places: &Places, databases: &multidb::Databases) -> Cell {
        places.clear();
        self.run(places)?;
        one_pass(databases)?;
        let held = agree(places, &self.written, &self.expected)?;
        go_on(places)?;
        Ok(held)
    }
}

#[test]
fn the_databases_agree_after_a_kill_at_every_point_on_every_layout() {
    let table = Table::new("killed at", ALL.iter().map(Layout::to_string));
    let tried = on_each(&ALL, |column, places| {
        let databases = places.databases();
        let _entered = databases.enter();
        for kill in Kills::on(ALL[column]) {
            let order = order(&kill);
            if !table.enter(order, &kill.name(), column, kill.try_on(places, &databases)) {
                break;
            }
        }
    });
    if !tried {
        return;
    }
    let base = |row: String| {
        let point = row.rsplit_once(": ").expect("a point").1.to_owned();
        let numbered = point.rsplit_once('.').filter(|(_, number)| number.parse::<usize>().is_ok());
        numbered.map_or(point.clone(), |(base, _)| format!("{base}.N"))
    };
    let seen: BTreeSet<String> = table.rows().into_iter().map(base).collect();
    let never: Vec<&&str> = POINTS.iter().filter(|point| !seen.contains(**point)).collect();
    assert!(never.is_empty(), "nobody was killed at {never:?}");
    table.end();
}

/// What is killed, as the table shows it.
const SECTIONS: [&str; 12] = [
    "listed",
    "joined later",
    "one only reads",
    "one alone writes",
    "in parts",
    "a thread applies it",
    "manual, at the second",
    "rows of a hundred",
    "participant's session ended",
    "home's session ended",
    "recoverer, undecided",
    "recoverer, decided",
];

/// Where a kill stands in the table: by its work, and then as the protocol passes its point.
fn order(kill: &Kill) -> usize {
    let of_word = SECTIONS.iter().position(|word| *word == kill.what).expect("listed above");
    let base = kill.point.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let of_point = POINTS.iter().position(|point| point.trim_end_matches('N') == base).unwrap_or(0);
    of_word * POINTS.len() + of_point
}

/// Nothing is left over, and each transaction is everywhere or nowhere. Gives the rows.
pub(crate) fn check(places: &Places, what: &str) -> Vec<i64> {
    let rows: Vec<Vec<i64>> = (0..places.urls.len()).map(|at| places.rows(at)).collect();
    assert!(rows.iter().all(|others| *others == rows[0]), "{places}, {what}: split: {rows:?}");
    for at in 0..places.urls.len() {
        assert_eq!(places.prepared(at), 0, "{places}, {what}: a prepared branch is left on {at}");
    }
    rows.into_iter().next().unwrap()
}
