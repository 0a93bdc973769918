//! Random programs of nested scopes.

use multidb::Propagation;
use proptest::prelude::*;

/// A step of a program. Where it fails, the body around it goes on if it is `tolerant`, and ends with the same error or
/// panic if not.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) action: Action,
    pub(super) tolerant: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    /// Puts a row of a model.
    Put(usize),
    /// Puts a row that is there already.
    Refused(usize),
    /// Registers a hook of each kind, which notes its name; that on commit also puts a row of a model.
    Hooks(Option<usize>),
    SetRollback(bool),
    /// As a manual scope does.
    Commit,
    /// As a manual scope does.
    RollBack,
    Fail,
    Panic,
    Scope(Scope),
    /// Diesel's `transaction` on the handle of a model, inside of a scope alone.
    Transaction(usize, Vec<Step>),
    Savepoint(End, Vec<Step>),
}

#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) lists: Lists,
    pub(super) propagation: Propagation,
    pub(super) manual: bool,
    pub(super) steps: Vec<Step>,
}

/// Which models a scope lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    One(usize),
    All,
}

/// What becomes of a savepoint after a body that returned `Ok`. After another one it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Release,
    RollBack,
    Drop,
}

/// How many levels of scopes a program has at most, and about how many steps.
const DEPTH: u32 = 4;
const SIZE: u32 = 24;
/// How many steps a body has at most.
const BODY: u32 = 5;

/// A program whose outermost scope lists these models.
pub(super) fn program(lists: impl Strategy<Value = Lists>) -> impl Strategy<Value = Scope> {
    let manual = prop::bool::weighted(0.25);
    (lists, manual, prop::collection::vec(step(), 1..=BODY as usize)).prop_map(|(lists, manual, steps)| Scope {
        lists,
        propagation: Propagation::Nested,
        manual,
        steps,
    })
}

pub(super) fn lists() -> impl Strategy<Value = Lists> {
    prop_oneof![6 => (0..3_usize).prop_map(Lists::One), 1 => Just(Lists::All)]
}

fn step() -> impl Strategy<Value = Step> {
    let leaf = prop_oneof![
        14 => (0..3_usize).prop_map(Action::Put),
        2 => (0..3_usize).prop_map(Action::Refused),
        3 => prop::option::weighted(0.3, 0..3_usize).prop_map(Action::Hooks),
        1 => any::<bool>().prop_map(Action::SetRollback),
        3 => Just(Action::Commit),
        1 => Just(Action::RollBack),
        2 => Just(Action::Fail),
        1 => Just(Action::Panic),
    ];
    let tolerant = || prop::bool::weighted(0.7);
    let leaf = (leaf, tolerant()).prop_map(|(action, tolerant)| Step { action, tolerant });
    leaf.prop_recursive(DEPTH, SIZE, BODY, move |inner| {
        let steps = || prop::collection::vec(inner.clone(), 0..=BODY as usize);
        let scope = (lists(), propagation(), prop::bool::weighted(0.1), steps());
        let scope = scope
            .prop_map(|(lists, propagation, manual, steps)| Action::Scope(Scope { lists, propagation, manual, steps }));
        let end = prop_oneof![Just(End::Release), Just(End::RollBack), Just(End::Drop)];
        let action = prop_oneof![
            8 => scope,
            1 => (0..3_usize, steps()).prop_map(|(model, steps)| Action::Transaction(model, steps)),
            2 => (end, steps()).prop_map(|(end, steps)| Action::Savepoint(end, steps)),
        ];
        (action, tolerant()).prop_map(|(action, tolerant)| Step { action, tolerant })
    })
}

fn propagation() -> impl Strategy<Value = Propagation> {
    prop_oneof![
        8 => Just(Propagation::Nested),
        3 => Just(Propagation::Join),
        3 => Just(Propagation::RequiresNew),
        1 => Just(Propagation::Durable),
        1 => Just(Propagation::Mandatory),
        1 => Just(Propagation::Supports),
        1 => Just(Propagation::Never),
        1 => Just(Propagation::NotSupported),
    ]
}
