//! A kill of the coordinator at each of its points.

use multidb::fault::POINTS;

use crate::child::{Work, kill_at, recover, transfer};
use crate::places::{Kind, Places};

/// What a kill at a point must leave: the row in all databases, in none, or either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    All,
    None,
}

/// After which points the decision is made.
fn left(point: &str) -> Left {
    let decided = ["decide.after", "decide.probe", "apply.", "connection.", "clean."];
    if decided.iter().any(|begin| point.starts_with(begin)) { Left::All } else { Left::None }
}

/// The points that a transaction of this work passes, with numbers for their branches. `prepares` are those that prepare.
fn points(work: Work, prepares: &[usize]) -> Vec<String> {
    let of_work = |point: &str| match work {
        Work::Listed | Work::Late => !["readonly", "abort", "alone", "best_effort", "decide.probe", "recover", "clean"]
            .iter()
            .any(|other| point.starts_with(other)),
        Work::Fails => point.starts_with("abort"),
        Work::Reads => point.starts_with("readonly"),
        Work::Hundred => point.starts_with("clean"),
        Work::Recovers => point.starts_with("recover"),
    };
    let numbered = |point: &'static str| match point.strip_suffix(".N") {
        None => vec![point.to_owned()],
        Some(base) => prepares.iter().map(|branch| format!("{base}.{branch}")).collect(),
    };
    POINTS.iter().copied().filter(|point| of_work(point)).flat_map(numbered).collect()
}

/// Nothing is left over, and each transaction is everywhere or nowhere.
pub(crate) fn check(places: &Places, what: &str) -> Vec<i64> {
    let rows: Vec<Vec<i64>> = (0..places.urls.len()).map(|at| places.rows(at)).collect();
    assert!(rows.iter().all(|others| *others == rows[0]), "{places}, {what}: split: {rows:?}");
    for at in 0..places.urls.len() {
        assert_eq!(places.prepared(at), 0, "{places}, {what}: a prepared branch is left on {at}");
    }
    rows.into_iter().next().unwrap()
}

fn kill_at_each(places: &Places, work: Work, prepares: &[usize]) -> usize {
    let databases = places.databases();
    let _entered = databases.enter();
    let points = points(work, prepares);
    for point in &points {
        kill_at(places, work, point);
        recover(&databases);
        let what = format!("{work:?} at {point}");
        let rows = check(places, &what);
        match left(point) {
            Left::None => assert_eq!(rows, Vec::<i64>::new(), "{places}, {what}"),
            Left::All => assert_eq!(rows.len(), if work == Work::Hundred { 100 } else { 1 }, "{places}, {what}"),
        }
        // It can be used as before.
        let last = places.urls.len() - 1;
        transfer(last, 1_000, 1_000, None).unwrap_or_else(|error| panic!("{places}, {what}: {error}"));
        for (at, table) in ["accounts", "entries", "audits"].into_iter().take(last + 1).enumerate() {
            places.execute(at, &format!("DELETE FROM {table}"));
        }
    }
    println!("{places}: {work:?}: {} points", points.len());
    points.len()
}

#[test]
fn two_postgres_databases_agree_after_a_kill_at_every_point() {
    let Some(places) = Places::new(&[Kind::Postgres, Kind::Postgres]) else { return };
    let mut seen = kill_at_each(&places, Work::Listed, &[1]);
    seen += kill_at_each(&places, Work::Late, &[1]);
    seen += kill_at_each(&places, Work::Hundred, &[1]);
    // Fails at PREPARE: a constraint that waits for it.
    places.execute(1, "ALTER TABLE entries ADD parent BIGINT REFERENCES entries DEFERRABLE INITIALLY DEFERRED");
    places.execute(
        1,
        "CREATE FUNCTION orphan() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id < 0 THEN NEW.parent := 77; END \
         IF; RETURN NEW; END $$; CREATE TRIGGER orphan BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION orphan()",
    );
    seen += kill_at_each(&places, Work::Fails, &[1]);
    assert!(seen > 30, "only {seen} points were seen");
}

#[test]
fn databases_of_every_pair_of_kinds_agree_after_a_kill_at_every_point() {
    use Kind::{MariaDb, Postgres, Sqlite};
    for kinds in [
        [Postgres, MariaDb],
        [MariaDb, Postgres],
        [MariaDb, MariaDb],
        [Sqlite, Postgres],
        [Postgres, Sqlite],
        [Sqlite, MariaDb],
        [MariaDb, Sqlite],
    ] {
        let Some(places) = Places::new(&kinds) else { return };
        let mut seen = kill_at_each(&places, Work::Listed, &[1]);
        if kinds[1] != Sqlite {
            seen += kill_at_each(&places, Work::Late, &[1]);
        }
        assert!(seen >= 13, "{places}: only {seen} points were seen");
    }
}

#[test]
fn three_databases_of_three_kinds_agree_after_a_kill_at_every_point() {
    use Kind::{MariaDb, Postgres, Sqlite};
    for kinds in [[Postgres, MariaDb, Sqlite], [MariaDb, Postgres, Postgres], [Sqlite, Sqlite, Postgres]] {
        let Some(places) = Places::new(&kinds) else { return };
        // Two files are one branch.
        let prepares: &[usize] = if kinds[1] == Sqlite { &[1] } else { &[1, 2] };
        kill_at_each(&places, Work::Listed, prepares);
    }
}

#[test]
fn three_postgres_databases_of_which_one_is_read_agree_after_a_kill_at_its_end() {
    let Some(places) = Places::new(&[Kind::Postgres, Kind::Postgres, Kind::Postgres]) else { return };
    let databases = places.databases();
    let _entered = databases.enter();
    kill_at(&places, Work::Reads, "readonly.after_commit.2");
    recover(&databases);
    assert_eq!(check(&places, "a reader was ended"), Vec::<i64>::new());
    let _ = kill_at_each(&places, Work::Listed, &[1, 2]);
}
