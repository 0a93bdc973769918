//! Outcomes that nobody could tell the application, and recovery that does not run.

use multidb::{TransactionId, TransactionStatus};

use super::{LIMIT, Rows, prepared, says, until};
use crate::child::{Ended, Started, Told, Work, command, kill_at, recover};
use crate::matrix::check;
use crate::places::{Kind, POLL, Places};
use crate::proxy::{Loses, Proxy, Then};
use crate::requests::Request;

use Kind::{MariaDb, Postgres};

/// A commit whose request or reply was lost, and whose home could not be asked again. Its id, as the error names it.
fn unknown(places: &Places, loses: Loses) -> TransactionId {
    let known = places.sessions();
    let address = places.urls[0].split_once('@').unwrap().1.split_once('/').unwrap().0;
    let proxy = Proxy::start(address.parse().unwrap());
    proxy.lose_and_then(Request::Commit.text(places.kinds[0]), loses, Then::Refuses);
    let urls = [proxy.url(&places.urls[0]), places.urls[1].clone()];
    let ended = Ended::of(Started::of(&mut command(&urls, Work::Listed, &[])));
    assert_eq!(ended.told(), Some(Told::Unknown), "{places}: {ended:?}");
    let said = format!("{ended:?}");
    says(&said, "on databases `accounts`, `entries` is unknown: ");
    says(&said, "multidb::status");
    places.until_gone_but(&known);
    let id = said.split_once("the outcome of transaction ").unwrap().1.split(' ').next().unwrap();
    id.parse().unwrap()
}

#[test]
fn an_unknown_outcome_is_told_with_its_id_and_status_says_later_what_it_was() {
    for kinds in [[Postgres, Postgres], [MariaDb, Postgres]] {
        for (loses, committed) in [(Loses::Request, false), (Loses::ReplyAfter(Request::Commit.ahead(kinds[0])), true)]
        {
            let Some(places) = Places::new(&kinds) else { return };
            let id = unknown(&places, loses);
            assert_eq!(prepared(&places, 1).id(), id, "{places}: the others wait for recovery");
            let databases = places.databases();
            let _entered = databases.enter();
            let expected = if committed { TransactionStatus::Committed } else { TransactionStatus::RolledBack };
            assert_eq!(multidb::status(&id).unwrap(), expected, "{places}");
            recover(&databases);
            assert_eq!(check(&places, "unknown").len(), usize::from(committed), "{places}");
            assert_eq!(multidb::status(&id).unwrap(), expected, "{places}");
        }
    }
}

#[test]
fn a_recovery_that_is_suspended_is_noticed_by_the_oldest_branch_and_goes_on_when_it_is_resumed() {
    let Some(places) = Places::new(&[Postgres, Postgres]) else { return };
    let databases = places.databases();
    let recovery = databases.start_recovery();
    recovery.suspend();
    kill_at(&places, Work::Listed, "decide.after_commit");
    let stays = |rows: &Rows| (rows[0][0] == "1" && rows[0][1].as_str() >= "00:00:01").then_some(());
    until(&places, 1, "watch-postgres", &[], stays);
    recovery.resume();
    until(&places, 1, "watch-postgres", &[], |rows| (rows[0] == ["0", "NULL"]).then_some(()));
    assert_eq!(check(&places, "resumed"), [1]);
    let begin = std::time::Instant::now();
    while recovery.last_report().is_none() {
        assert!(begin.elapsed() < LIMIT, "no pass has ended");
        std::thread::sleep(POLL);
    }
    recovery.stop();
}
