//! The library's own rows: how many there are, and that they go.

use multidb::TransactionStatus;

use super::{prepared, run};
use crate::child::{Work, kill_at, recover, transfer};
use crate::matrix::check;
use crate::places::{Kind, Places};

use Kind::{MariaDb, Postgres};

#[test]
fn the_rows_of_the_library_are_counted_and_go_after_their_time_and_the_mark_tells_of_them() {
    for kinds in [[Postgres, Postgres], [MariaDb, MariaDb]] {
        let Some(places) = Places::new(&kinds) else { return };
        let databases = places.databases();
        let _entered = databases.enter();
        kill_at(&places, Work::Listed, "decide.after_commit");
        let found = prepared(&places, 1);
        let counted = |name: &str, at: usize| run(&places, at, name, &[]).into_iter().next().unwrap_or_default();
        assert_eq!(counted("count-decisions", 0)[..3], ["c", "1", "0"], "{places}");
        recover(&databases);
        assert_eq!(counted("count-decisions", 0)[..3], ["c", "1", "1"], "{places}");
        assert_eq!(counted("count-receipts", 1), ["1", "1"], "{places}");
        assert_eq!(counted("forgotten", 0), [""], "{places}");
        assert_eq!(counted("count-once", 0)[0], "0", "{places}");
        places.execute(0, "UPDATE multidb_decision SET created = 0");
        recover(&databases);
        assert_eq!(counted("count-decisions", 0), Vec::<String>::new(), "{places}");
        assert_eq!(counted("count-receipts", 1), ["0", "0"], "{places}");
        assert_eq!(counted("forgotten", 0), [found.uuid()], "{places}");
        assert_eq!(multidb::status(&found.id()).unwrap(), TransactionStatus::Forgotten);
        transfer(1, 2, 2, None).unwrap();
        assert_eq!(check(&places, "it goes on"), [1, 2]);
    }
}
