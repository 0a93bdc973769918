//! What becomes of a commit whose request or reply is lost, is held for ever, or is met by a kill, at each request of the
//! protocol and on each layout. The child's connections go through proxies; recovery's don't.

use std::process::Command;
use std::sync::mpsc::channel;

use multidb::Databases;

use crate::child::{Ended, Started, Work, command};
use crate::layout::{ALL, Layout, on_each, whole};
use crate::places::{Kind, Places};
use crate::proxy::{Loses, Moment, Proxy};
use crate::table::{Cell, Table};
use crate::verdict::{Expected, agree, go_on, is_true, one_pass};

/// A request of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Receipt,
    Intent,
    Prepare,
    Commit,
    Apply,
}

const REQUESTS: [Request; 5] = [Request::Receipt, Request::Intent, Request::Prepare, Request::Commit, Request::Apply];

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The server answers that it is no SQL. On MariaDB what goes ahead in its batch is done.
    Refused,
    RequestLost,
    ReplyLost,
    /// The connection is a black hole from here on, with the request in it.
    RequestSilent,
    /// Likewise, with the reply in it.
    ReplySilent,
    /// The client is killed, and its request arrives after a pass of recovery.
    RequestLate,
    /// The client is killed, and its request is on the way.
    KilledOnceSent,
    KilledAtReply,
}

const FAULTS: [(Fault, &str); 8] = [
    (Fault::Refused, "refused"),
    (Fault::RequestLost, "request lost"),
    (Fault::ReplyLost, "reply lost"),
    (Fault::RequestSilent, "request in a black hole"),
    (Fault::ReplySilent, "reply in a black hole"),
    (Fault::RequestLate, "killed, arrives after recovery"),
    (Fault::KilledOnceSent, "killed once sent"),
    (Fault::KilledAtReply, "killed at the reply"),
];

impl Request {
    pub(crate) fn text(self, kind: Kind) -> &'static [u8] {
        match (self, kind) {
            (Self::Receipt, _) => b"multidb_receipt (gid",
            (Self::Intent, _) => b"multidb_decision (gid",
            (Self::Prepare, Kind::Postgres) => b"PREPARE TRANSACTION",
            (Self::Prepare, _) => b"XA PREPARE",
            (Self::Commit, _) => b"COMMIT",
            (Self::Apply, Kind::Postgres) => b"COMMIT PREPARED",
            (Self::Apply, _) => b"XA COMMIT",
        }
    }

    /// How much of the answer comes before that to the request itself: on MariaDB another statement goes ahead in its batch.
    pub(crate) fn ahead(self, kind: Kind) -> usize {
        const OK_PACKET: usize = 11;
        if kind == Kind::MariaDb && matches!(self, Self::Prepare | Self::Commit) { OK_PACKET } else { 0 }
    }

    /// The database that it goes to; `None` where that is a file.
    pub(crate) fn database(self, layout: Layout) -> Option<usize> {
        match self {
            Self::Intent | Self::Commit => Some(layout.home()[0]).filter(|at| layout.0[*at] != Kind::Sqlite),
            Self::Receipt | Self::Prepare | Self::Apply => layout.others().last().copied(),
        }
    }

    /// What the databases hold in the end.
    fn expected(self, fault: Fault) -> Expected {
        let carried_out = match fault {
            Fault::Refused | Fault::RequestLost | Fault::RequestSilent => Some(false),
            Fault::ReplyLost | Fault::ReplySilent | Fault::RequestLate | Fault::KilledAtReply => Some(true),
            Fault::KilledOnceSent => None,
        };
        match (self, carried_out) {
            (Self::Receipt | Self::Intent | Self::Prepare, _) | (Self::Commit, Some(false)) => Expected::NONE,
            (Self::Apply, _) | (Self::Commit, Some(true)) => Expected::one(),
            (Self::Commit, None) => Expected::RowsOrNone(vec![1]),
        }
    }
}

/// One request that is disturbed.
struct Disturbance<'a> {
    places: &'a Places,
    databases: &'a Databases,
    proxy: Proxy,
    request: Request,
    fault: Fault,
    text: &'static [u8],
    ahead: usize,
}

impl Disturbance<'_> {
    fn run(&self, urls: &[String]) -> Cell {
        self.places.clear();
        let known = self.places.sessions();
        let mut command = command(urls, Work::Listed, &[]);
        command.env("MULTIDB_TEST_CRASH_AGAIN", "1");
        let ended = match self.fault {
            Fault::Refused => self.loses(command, Loses::Sense),
            Fault::RequestLost => self.loses(command, Loses::Request),
            Fault::ReplyLost => self.loses(command, Loses::ReplyAfter(self.ahead)),
            Fault::RequestSilent => self.in_silence(command, Loses::RequestSilently)?,
            Fault::ReplySilent => self.in_silence(command, Loses::ReplySilently)?,
            Fault::RequestLate => self.late(command)?,
            Fault::KilledOnceSent => self.kills(command, Moment::Sent),
            Fault::KilledAtReply => self.kills(command, Moment::Answered(self.ahead)),
        };
        self.until_hit().map_err(|why| format!("{why}: {ended:?}"))?;
        let is_killed = matches!(self.fault, Fault::RequestLate | Fault::KilledOnceSent | Fault::KilledAtReply);
        if ended.was_killed() != is_killed || (!is_killed && !ended.went_on()) {
            return Err(format!("it has ended otherwise, or could not go on: {ended:?}"));
        }
        self.places.until_gone_but(&known);
        one_pass(self.databases)?;
        let all: Vec<usize> = (0..self.places.urls.len()).collect();
        let held = agree(self.places, &all, &self.request.expected(self.fault))?;
        is_true(&ended, held)?;
        go_on(self.places)?;
        Ok(held)
    }

    fn loses(&self, mut command: Command, loses: Loses) -> Ended {
        self.proxy.lose_once(self.text, loses);
        Ended::of(Started::of(&mut command))
    }

    /// The child waits for what never comes. Whoever recovers meanwhile decides nothing against it.
    fn in_silence(&self, mut command: Command, loses: Loses) -> Result<Ended, String> {
        self.proxy.lose_once(self.text, loses);
        let child = Started::of(&mut command);
        let beside = self.until_hit().and_then(|()| self.pass_beside());
        self.proxy.let_go();
        let ended = Ended::of(child);
        beside.map(|()| ended)
    }

    fn until_hit(&self) -> Result<(), String> {
        if self.proxy.until_hit() { Ok(()) } else { Err("the request is not made, or not answered".into()) }
    }

    fn pass_beside(&self) -> Result<(), String> {
        let report = self.databases.recover().unwrap();
        let decided = match self.request {
            Request::Receipt | Request::Intent | Request::Prepare => false,
            Request::Commit => self.fault == Fault::ReplySilent,
            Request::Apply => true,
        };
        // Killed while its session at home is not the one that still waits, it holds nothing any more.
        let is_gone = self.fault == Fault::RequestLate && self.request == Request::Prepare;
        let against = !report.rolled_back().is_empty() && !is_gone;
        if against || !report.heuristic().is_empty() || (!decided && !report.committed().is_empty()) {
            return Err(format!("decided beside a session that lives: {report}"));
        }
        Ok(())
    }

    /// The child is killed at this moment.
    fn kills(&self, mut command: Command, moment: Moment) -> Ended {
        let (child, known) = channel::<u32>();
        self.proxy.meet_once(self.text, moment, move || kill(known.recv().unwrap()));
        let started = Started::of(&mut command);
        child.send(started.id()).unwrap();
        Ended::of(started)
    }

    /// The child is killed, and the request arrives once recovery has looked.
    fn late(&self, mut command: Command) -> Result<Ended, String> {
        let (child, known) = channel::<u32>();
        let (looked, waits) = channel::<()>();
        self.proxy.meet_once(self.text, Moment::Before, move || {
            kill(known.recv().unwrap());
            waits.recv().unwrap();
        });
        let started = Started::of(&mut command);
        child.send(started.id()).unwrap();
        let ended = Ended::of(started);
        let beside = self.pass_beside();
        looked.send(()).unwrap();
        self.until_hit()?;
        beside.map(|()| ended)
    }
}

fn kill(child: u32) {
    assert!(Command::new("kill").args(["-KILL", &child.to_string()]).status().unwrap().success());
}

#[test]
fn the_databases_agree_whatever_becomes_of_a_request_or_its_reply() {
    let table = Table::new("of a request", ALL.iter().map(Layout::to_string));
    let tried = on_each(&ALL, |column, places| {
        let layout = ALL[column];
        let databases = places.databases();
        let _entered = databases.enter();
        for (row, (request, (fault, what))) in
            REQUESTS.iter().flat_map(|request| FAULTS.iter().map(move |fault| (*request, *fault))).enumerate()
        {
            let Some(database) = request.database(layout) else { continue };
            // Whoever recovers waits for the lock of a file as long as others do.
            let is_long = layout.0.contains(&Kind::Sqlite)
                && matches!(fault, Fault::RequestSilent | Fault::ReplySilent)
                && request != Request::Apply;
            if is_long && !whole() && (row + column) % 3 != 0 {
                continue;
            }
            let (url, kind) = (&places.urls[database], layout.0[database]);
            let address = url.split_once('@').unwrap().1.split_once('/').unwrap().0;
            let disturbance = Disturbance {
                places,
                databases: &databases,
                proxy: Proxy::start(address.parse().unwrap()),
                request,
                fault,
                text: request.text(kind),
                ahead: request.ahead(kind),
            };
            let mut urls = places.urls.clone();
            urls[database] = disturbance.proxy.url(url);
            if !table.enter(row, &format!("{request:?}: {what}"), column, disturbance.run(&urls)) {
                break;
            }
        }
    });
    if tried {
        table.end();
    }
}
