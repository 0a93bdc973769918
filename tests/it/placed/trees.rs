//! Random programs of nested scopes, in every layout, against a model in plain Rust.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::tree::{Lists, Scope, lists, program};
use super::tree_model::foretell;
use super::tree_run::run;
use super::*;

/// How many programs each claim runs in each layout.
const PROGRAMS: u32 = 100;
/// Set to another number of programs, for a longer run.
const MORE: &str = "MULTIDB_TEST_PROGRAMS";
/// Set to the number that a failure tells, it gives the same programs again.
const SEED: &str = "MULTIDB_TEST_SEED";

/// The rows of so many complete transactions are deleted at once.
const BATCH: usize = 100;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

fn seed() -> u64 {
    number(SEED).unwrap_or_else(|| u64::from(std::process::id()) ^ std::time::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

/// Runs a program in a layout, and compares all that it does with what was foretold.
fn compare(placed: &mut Placed, program: &Scope) -> Result<(), TestCaseError> {
    let want = foretell(placed.layout, program);
    let before = placed.proofs;
    let left = placed.case(|| run(program));
    let name = placed.layout.name;
    prop_assert_eq!(&left.returned, &want.journal, "what happened in `{}`", name);
    prop_assert_eq!(&left.rows, &want.rows, "the rows in `{}`", name);
    let decisions = before.decisions + want.proofs.len();
    prop_assert_eq!(left.proofs.decisions, decisions % BATCH, "the decisions in `{}`", name);
    if decisions < BATCH {
        let receipts = before.receipts + want.proofs.iter().sum::<usize>();
        prop_assert_eq!(left.proofs.receipts, receipts, "the receipts in `{}`", name);
    }
    Ok(())
}

fn check(lists: impl Strategy<Value = Lists>) {
    let (world, seed) = (world(), seed());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let cases = number(MORE).map_or(PROGRAMS, |number| number.try_into().unwrap());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner
        .run(&program(lists), |program| world.layouts().try_for_each(|mut placed| compare(&mut placed, &program)));
    if let Err(failure) = outcome {
        panic!("{SEED}={seed}: {failure}");
    }
}

#[test]
fn random_programs_that_list_all_models_do_in_every_layout_what_the_model_says() {
    check(Just(Lists::All));
}

#[test]
fn random_programs_that_list_some_models_do_that_too_or_are_not_atomic() {
    check(lists());
}
