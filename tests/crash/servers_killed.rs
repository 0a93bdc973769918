//! Servers that are killed at the points of the protocol that leave something on a server or at its decision, and come back.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::scope;

use multidb::Databases;
use multidb::fault::Stop;

use crate::child::{Ended, Started, Work, command, resume, start, until_stopped};
use crate::layout::{Layout, whole};
use crate::places::{Kind, Places};
use crate::proxy::{Moment, Proxy};
use crate::requests::Request;
use crate::server::Server;
use crate::table::{Cell, Table};
use crate::verdict::{Expected, agree, go_on, is_true, one_pass};

use Kind::{MariaDb, Postgres, Sqlite};

/// Home comes first; each database is on a server of its own.
const LAYOUTS: [Layout; 6] = [
    Layout(&[Postgres, Postgres]),
    Layout(&[Postgres, MariaDb]),
    Layout(&[MariaDb, Postgres]),
    Layout(&[MariaDb, MariaDb]),
    Layout(&[Sqlite, Postgres]),
    Layout(&[Sqlite, MariaDb]),
];

const HOME: usize = 0;
const OTHER: usize = 1;

/// When servers are killed.
#[derive(Clone, Copy)]
enum When {
    /// The coordinator is paused there meanwhile, and goes on once they are back.
    Paused(&'static str),
    /// The same, and it is killed there too.
    Killed(&'static str),
    /// A recoverer is paused there meanwhile.
    Recovering(&'static str),
    /// At a request to the only one of them, which comes back when the coordinator has ended.
    Request(Request, Moment),
}

struct Case {
    when: When,
    victims: &'static [usize],
    expected: Expected,
}

impl Case {
    fn name(&self) -> String {
        let victims = match self.victims {
            [HOME] => "home",
            [OTHER] => "participant",
            _ => "both",
        };
        match self.when {
            When::Paused(point) | When::Recovering(point) => format!("{point}: {victims}"),
            When::Killed(point) => format!("{point}: {victims}, and the client"),
            When::Request(request, Moment::Before) => format!("{request:?}, not sent: {victims}"),
            When::Request(request, Moment::Sent) => format!("{request:?}, sent: {victims}"),
            When::Request(request, Moment::Answered(_)) => format!("{request:?}, answered: {victims}"),
        }
    }
}

fn cases(layout: Layout) -> Vec<Case> {
    let is_file = layout.0[HOME] == Sqlite;
    let victims: &[&'static [usize]] = if is_file { &[&[OTHER]] } else { &[&[HOME], &[OTHER], &[HOME, OTHER]] };
    let mut cases = Vec::new();
    let mut add = |when, victims, expected| cases.push(Case { when, victims, expected });
    for point in ["intent.after", "prepare.after.1", "prepare.all_done", "decide.after_commit", "apply.after.1"] {
        let is_decided = ["decide.after_commit", "apply.after.1"].contains(&point);
        for victims in victims {
            // What was prepared before its server died is committed all the same, where home has not died.
            let survives = victims == &[OTHER] && point != "intent.after";
            let held = if is_decided || survives { Expected::one() } else { Expected::NONE };
            add(When::Paused(point), *victims, held);
            let held = if is_decided { Expected::one() } else { Expected::NONE };
            add(When::Killed(point), *victims, held);
        }
    }
    if !is_file {
        add(When::Recovering("recover.probe.holding_lock"), &[HOME], Expected::NONE);
    }
    for (request, victims) in [(Request::Prepare, &[OTHER]), (Request::Commit, &[HOME]), (Request::Apply, &[OTHER])] {
        if request.database(layout).is_none() {
            continue;
        }
        let ahead = request.ahead(layout.0[victims[0]]);
        for moment in [Moment::Before, Moment::Sent, Moment::Answered(ahead)] {
            let held = match (request, moment) {
                (Request::Apply, _) | (Request::Commit, Moment::Answered(_)) => Expected::one(),
                (Request::Commit, Moment::Sent) => Expected::RowsOrNone(vec![1]),
                _ => Expected::NONE,
            };
            add(When::Request(request, moment), victims, held);
        }
    }
    cases
}

/// The databases of a layout, and the servers that they are on.
struct Field<'a> {
    layout: Layout,
    places: &'a Places,
    databases: &'a Databases,
    servers: [Option<&'a Arc<Server>>; 2],
}

impl Field<'_> {
    fn server(&self, at: usize) -> &Arc<Server> {
        self.servers[at].expect("a file is not killed")
    }

    fn crash(&self, victims: &[usize]) {
        for at in victims {
            self.server(*at).kill();
        }
        for at in victims {
            self.server(*at).restart();
        }
    }

    fn try_case(&self, case: &Case) -> Cell {
        self.places.clear();
        let known = self.places.sessions();
        let ended = match case.when {
            When::Paused(point) => {
                let mut child = command(&self.places.urls, Work::Listed, &[(point, 0, Stop::Pause)]);
                let child = Started::of(child.env("MULTIDB_TEST_CRASH_AGAIN", "1"));
                until_stopped(&child);
                self.crash(case.victims);
                resume(&child);
                let ended = Ended::of(child);
                if !ended.went_on() {
                    return Err(format!("it could not go on: {ended:?}"));
                }
                ended
            }
            When::Killed(point) => {
                let ended = self.kill_client(point)?;
                self.crash(case.victims);
                ended
            }
            When::Recovering(point) => {
                let ended = self.kill_client("prepare.all_done")?;
                let recoverer = start(self.places, Work::Recovers, point, Stop::Pause);
                until_stopped(&recoverer);
                self.crash(case.victims);
                resume(&recoverer);
                let pass = Ended::of(recoverer);
                if pass.told().is_none() {
                    return Err(format!("the recoverer has not ended: {pass:?}"));
                }
                ended
            }
            When::Request(request, moment) => self.at_request(request, moment, case.victims[0])?,
        };
        self.places.until_gone_but(&known);
        one_pass(self.databases)?;
        let held = agree(self.places, &[HOME, OTHER], &case.expected)?;
        is_true(&ended, held)?;
        go_on(self.places)?;
        Ok(held)
    }

    fn kill_client(&self, point: &str) -> Result<Ended, String> {
        let known = self.places.sessions();
        let ended = Ended::of(start(self.places, Work::Listed, point, Stop::Kill));
        self.places.until_gone_but(&known);
        if ended.was_killed() { Ok(ended) } else { Err(format!("it was not killed at {point}: {ended:?}")) }
    }

    fn at_request(&self, request: Request, moment: Moment, victim: usize) -> Result<Ended, String> {
        let url = &self.places.urls[victim];
        let proxy = Proxy::start(url.split_once('@').unwrap().1.split_once('/').unwrap().0.parse().unwrap());
        let server = Arc::clone(self.server(victim));
        proxy.meet_once(request.text(self.layout.0[victim]), moment, move || server.kill());
        let mut urls = self.places.urls.clone();
        urls[victim] = proxy.url(url);
        let ended = Ended::of(Started::of(&mut command(&urls, Work::Listed, &[])));
        let is_hit = proxy.until_hit();
        self.server(victim).restart();
        if is_hit && ended.told().is_some() { Ok(ended) } else { Err(format!("never made, or not ended: {ended:?}")) }
    }
}

/// Two servers of each kind, started at once; `None` where their programs are missing.
fn servers() -> Option<[Arc<Server>; 4]> {
    let started = Mutex::new([const { None }; 4]);
    scope(|threads| {
        for (at, program) in ["postgres", "postgres", "mariadb", "mariadb"].into_iter().enumerate() {
            let started = &started;
            threads.spawn(move || {
                let server = Server::start(program);
                started.lock().unwrap_or_else(PoisonError::into_inner)[at] = server.map(Arc::new);
            });
        }
    });
    match started.into_inner().unwrap_or_else(PoisonError::into_inner) {
        [Some(a), Some(b), Some(c), Some(d)] => Some([a, b, c, d]),
        _ => None,
    }
}

#[test]
fn the_databases_agree_after_a_server_was_killed_at_each_point_that_leaves_something_there() {
    let Some(servers) = servers() else { return };
    let table = Table::new("servers killed at", LAYOUTS.iter().map(Layout::to_string));
    for (column, layout) in LAYOUTS.into_iter().enumerate() {
        let server = |at: usize| match layout.0[at] {
            Postgres => Some(&servers[at]),
            MariaDb => Some(&servers[2 + at]),
            Sqlite => None,
        };
        let urls = [HOME, OTHER].map(|at| server(at).map_or_else(String::new, |server| server.url().to_owned()));
        let places = Places::on(layout.0, &urls);
        let databases = places.databases();
        let _entered = databases.enter();
        let field = Field { layout, places: &places, databases: &databases, servers: [server(HOME), server(OTHER)] };
        for (number, case) in cases(layout).iter().enumerate() {
            // Each of them on some layout, or on all. Victims come in sixes.
            let is_chosen = (number + number / 6 + column) % LAYOUTS.len() == 0 || whole();
            if is_chosen && !table.enter(order(case), &case.name(), column, field.try_case(case)) {
                break;
            }
        }
    }
    table.end();
}

/// Where a case stands in the table.
fn order(case: &Case) -> usize {
    let all = cases(LAYOUTS[0]);
    all.iter().position(|known| known.name() == case.name()).expect("the first layout has all of them")
}
