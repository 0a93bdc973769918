//! What logs and traces show of scopes.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Error, Isolation, Propagation, atomic, atomic_on, scope};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::journal::{Fields, Journal};

/// Some fields of a span, in this order; `-` for one that was never recorded.
fn show(span: &Fields, names: &[&str]) -> String {
    names.iter().map(|name| span.get(name).map_or("-", String::as_str)).collect::<Vec<_>>().join(" ")
}

fn outcomes(journal: &Journal) -> Vec<String> {
    journal.spans().iter().map(|span| show(span, &["function", "outcome"])).collect()
}

#[test]
fn each_scope_has_one_span_with_all_that_is_known_of_it() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let journal = Journal::default();
    journal.watch(|| {
        let scope = atomic::<Item>().isolation(Isolation::Serializable).label("nightly");
        scope.run(|_: &mut H| put(1, 10)).unwrap();
    });
    let names =
        ["span", "function", "label", "app", "model", "alias", "propagation", "isolation", "attempt", "outcome"];
    let spans = journal.spans();
    let shown: Vec<String> = spans.iter().map(|span| show(span, &names)).collect();
    assert_eq!(
        shown,
        [
            "transaction put - shop Item default nested - 1 kept",
            "transaction atomic nightly shop Item default nested serializable 1 committed",
        ]
    );
    assert!(spans.iter().all(|span| span["duration_us"].parse::<u64>().is_ok()));
}

#[test]
fn the_outcome_is_that_of_the_database_and_not_that_of_the_body() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let journal = Journal::default();
    journal.watch(|| {
        put_and_fail(2).unwrap_err();
        assert_eq!(outcomes(&journal), ["put_and_fail rolled_back"]);

        let swallowing = atomic::<Item>().run(|conn: &mut H| {
            conn.batch_execute("INSERT INTO items VALUES (1, 1)").unwrap_err();
            Ok::<_, Error>(())
        });
        swallowing.unwrap_err();
        assert_eq!(outcomes(&journal), ["atomic rolled_back"]);

        let undone = atomic::<Item>().run(|_: &mut H| {
            put(3, 30)?;
            put_and_fail(4).unwrap_err();
            atomic::<Item>().propagation(Propagation::Join).run(|_: &mut H| put(5, 50))?;
            scope::set_rollback(true)
        });
        undone.unwrap();
        assert_eq!(
            outcomes(&journal),
            ["put kept", "put_and_fail undone", "put kept", "atomic joined", "atomic rolled_back"]
        );

        let autocommit = atomic::<Item>().propagation(Propagation::Supports);
        autocommit.run(|conn: &mut H| items::table.count().get_result::<i64>(conn)).unwrap();
        atomic_on("nowhere").run(|_: &mut H| Ok::<_, Error>(())).unwrap_err();
        assert_eq!(outcomes(&journal), ["atomic autocommit", "atomic refused"]);
    });
}

#[test]
fn a_scope_that_is_run_again_has_one_span_and_an_event_for_each_repetition() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let journal = Journal::default();
    let mut attempts = 0;
    journal.watch(|| {
        let run = atomic::<Item>().retry(5).run(|conn: &mut H| {
            attempts += 1;
            // Its text is what the library goes by.
            if attempts < 3 { conn.with_raw(fail_as_if_locked) } else { Ok(()) }
        });
        run.unwrap();
    });
    let spans: Vec<String> = journal.spans().iter().map(|span| show(span, &["attempt", "outcome"])).collect();
    assert_eq!(spans, ["3 committed"]);
    let again = journal.events().into_iter().filter(|(text, _)| text == "a transaction is run again");
    let attempts: Vec<String> = again.map(|(_, fields)| show(&fields, &["level", "attempt"])).collect();
    assert_eq!(attempts, ["WARN 1", "WARN 2"]);
}

/// Fails with a text that the library takes for a lock that was not granted.
fn fail_as_if_locked(raw: &mut Raw) -> Result<(), Mishap> {
    raw.batch_execute("SELECT * FROM \"could not serialize access\"")?;
    Ok(())
}

#[test]
fn begin_commit_rollback_and_doom_are_events() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let journal = Journal::default();
    let told = || -> Vec<String> {
        let events = journal.events().into_iter();
        events.map(|(text, fields)| format!("{} {} {text}", fields["level"], show(&fields, &["alias"]))).collect()
    };
    journal.watch(|| {
        put(1, 10).unwrap();
        assert_eq!(told(), ["DEBUG default begun", "DEBUG default committed"]);
        put_and_fail(2).unwrap_err();
        assert_eq!(told(), ["DEBUG default begun", "DEBUG default rolled back"]);
        put(1, 20).unwrap_err();
        assert_eq!(told(), ["DEBUG default begun", "WARN - doomed", "DEBUG default rolled back"]);
        let run = atomic::<Item>().run(|_: &mut H| {
            scope::on_commit(|| Err::<(), _>("no mail server"));
            put(3, 30)
        });
        run.unwrap();
        assert_eq!(told(), ["DEBUG default begun", "DEBUG default committed", "ERROR - a hook failed"]);
        // Nothing was sent.
        atomic::<Item>().run(|_: &mut H| Ok::<_, Error>(())).unwrap();
        assert_eq!(told(), [""; 0]);
    });
}

#[test]
fn where_the_spans_of_the_library_are_filtered_out_those_of_the_user_stay_as_they_are() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let journal = Journal::default();
    let others = tracing_subscriber::filter::filter_fn(|metadata| metadata.target() != "multidb");
    let subscriber = tracing_subscriber::registry().with(others).with(journal.clone());
    tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!("request", function = "handler", outcome = "ours");
        span.in_scope(|| put(1, 10)).unwrap();
    });
    assert_eq!(outcomes(&journal), ["handler ours"]);
}

#[test]
fn who_listens_may_ask_the_library_at_every_event() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    // The journal asks for the depth whenever it hears of something.
    let journal = Journal::default();
    journal.watch(|| {
        let joined = atomic::<Item>().run(|_: &mut H| {
            let join = atomic::<Item>().propagation(Propagation::Join);
            join.run(|_: &mut H| put_and_fail(1)).unwrap_err();
            Ok::<_, Error>(())
        });
        assert!(matches!(joined, Err(Error::Doomed { .. })), "{joined:?}");
        let leaked = atomic::<Item>().run(|conn: &mut H| {
            use diesel::connection::TransactionManager;
            <H as Connection>::TransactionManager::begin_transaction(conn)?;
            put(2, 20)
        });
        assert!(matches!(leaked, Err(Error::Doomed { .. })), "{leaked:?}");
    });
    let dooms = journal.events().into_iter().filter(|(text, _)| text == "doomed").count();
    assert!(dooms >= 2, "{dooms}");
    assert_eq!(fixture.rows("default"), []);
}
