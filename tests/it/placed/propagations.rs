//! Each propagation inside each other, against the table in `propagation.txt`.

use std::cell::RefCell;
use std::rc::Rc;

use multidb::scope::{on_commit, on_rollback};
use multidb::{Propagation, atomic_many};

use super::layout::Layout;
use super::*;
use crate::fixture::{Kind, PROPAGATION};

/// What a line says: who does what, and what that leaves.
struct Line {
    text: &'static str,
    opens: bool,
    inner: Propagation,
    fails: &'static str,
    rows: &'static str,
    hooks: &'static str,
    inner_returns: &'static str,
    outer_returns: &'static str,
}

fn lines() -> Vec<Line> {
    let lines = PROPAGATION.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |text: &'static str| {
        let [kind, inner, fails, rows, hooks, inner_returns, outer_returns] =
            text.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
        let inner = propagation(inner);
        Line { text, opens: kind == "opens", inner, fails, rows, hooks, inner_returns, outer_returns }
    };
    lines.map(read).collect()
}

fn propagation(word: &str) -> Propagation {
    match word {
        "nested" => Propagation::Nested,
        "join" => Propagation::Join,
        "durable" => Propagation::Durable,
        "requires_new" => Propagation::RequiresNew,
        "mandatory" => Propagation::Mandatory,
        "supports" => Propagation::Supports,
        "never" => Propagation::Never,
        "not_supported" => Propagation::NotSupported,
        other => panic!("no propagation: {other}"),
    }
}

/// What a line leaves: the rows, the hooks that ran, and what the two scopes returned.
type Told = [String; 4];

fn listed<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    if words.is_empty() { "-".into() } else { words.join(",") }
}

/// What has run, in order.
type Log = Rc<RefCell<Vec<&'static str>>>;

/// Puts a row, and registers a hook of each kind.
fn insert_and_hook<M: Table>(id: i64, log: &Log, hooks: [&'static str; 2]) -> Ran {
    insert::<M>(id)?;
    let [committed, rolled_back] = hooks.map(|name| {
        let log = Rc::clone(log);
        move || log.borrow_mut().push(name)
    });
    on_commit(committed);
    on_rollback(rolled_back);
    Ok(())
}

/// What the outermost scope lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    Both,
    Its,
}

/// Runs one line: which hooks ran, and what the scopes returned.
fn run(line: &Line, lists: Lists, outer: Propagation) -> [String; 3] {
    let (mut inner_returned, log) = (String::new(), Log::default());
    let mut body = || {
        insert_and_hook::<Account>(1, &log, ["c1", "r1"])?;
        let inner = scope_on::<Entry, ()>(line.inner, || {
            insert_and_hook::<Entry>(2, &log, ["c2", "r2"])?;
            if matches!(line.fails, "inner" | "swallowed") { Err(Mishap::OnPurpose) } else { Ok(()) }
        });
        inner_returned = word(&inner);
        if line.fails != "swallowed" {
            inner?;
        }
        if line.fails == "outer" { Err(Mishap::OnPurpose) } else { Ok(()) }
    };
    let outer_returned = match lists {
        Lists::Both => atomic_many::<(Account, Entry)>().propagation(outer).run(|_| body()),
        Lists::Its => scope_on::<Account, ()>(outer, body),
    };
    [listed(&log.take()), inner_returned, word(&outer_returned)]
}

/// Why the inner scope can't do its part in a layout, in a word, if so.
fn obstacle(layout: &Layout, line: &Line, lists: Lists) -> Option<&'static str> {
    let [account, entry] = [0, 1].map(|model| layout.kind(model));
    let together = layout.at[0] == layout.at[1];
    if !line.opens || entry != Kind::Sqlite {
        return None;
    }
    // Its file is locked by the outer scope. Files that are listed together are locked together.
    let locked = together || (lists == Lists::Both && account == Kind::Sqlite);
    match line.inner {
        Propagation::RequiresNew => locked.then_some("busy"),
        Propagation::NotSupported => locked.then_some("locked"),
        Propagation::Nested | Propagation::Join | Propagation::Mandatory | Propagation::Supports => {
            (!together && lists == Lists::Its).then_some("not atomic")
        }
        _ => None,
    }
}

/// What a line must leave in a layout.
fn wanted(layout: &Layout, line: &Line, lists: Lists) -> Told {
    let want = match (obstacle(layout, line, lists), line.fails) {
        (None, _) => [line.rows, line.hooks, line.inner_returns, line.outer_returns],
        // Nothing of the inner scope is kept, and the outer one decides for itself.
        (Some(word), "swallowed") => ["1", "c1", word, "ok"],
        (Some(word), _) => ["-", "r1", word, word],
    };
    want.map(str::to_owned)
}

fn check_the_table(lists: Lists) {
    let lines = lines();
    assert_eq!(lines.len(), 2 * 8 * 4, "the table is complete");
    for (turn, mut placed) in world().layouts().enumerate() {
        let layout = placed.layout;
        for (at, line) in lines.iter().enumerate() {
            let outers: &[Propagation] = if line.opens {
                &[Propagation::Nested, Propagation::Join, Propagation::Durable, Propagation::RequiresNew]
            } else {
                &[Propagation::Supports, Propagation::Never, Propagation::NotSupported]
            };
            // They mean the same, and all of them for every line and layout would take four times as long.
            let outer = outers[(turn + at) % outers.len()];
            let left = placed.case(|| run(line, lists, outer));
            let rows: Vec<String> = left.rows.0.concat().iter().map(i64::to_string).collect();
            let [hooks, inner, outer_returned] = left.returned;
            let told: Told = [listed(&rows), hooks, inner, outer_returned];
            assert_eq!(told, wanted(layout, line, lists), "{}, {outer:?}, {lists:?}: {}", layout.name, line.text);
        }
    }
}

#[test]
fn the_table_holds_in_every_layout_where_the_outer_scope_lists_both_models() {
    check_the_table(Lists::Both);
}

#[test]
fn the_table_holds_or_the_inner_scope_is_not_atomic_where_the_outer_one_lists_its_own_model() {
    check_the_table(Lists::Its);
}
