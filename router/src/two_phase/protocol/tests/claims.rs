//! What holds in every state that can be reached.

use super::explorer::{Counts, explore};
use super::rules::{Predecessor, Role, Rules};

const TWO: &[Role] = &[Role::Writes; 2];
const THREE: &[Role] = &[Role::Writes; 3];

/// Explores all these worlds. The floor is below what was counted when the model was written: one that has lost its
/// moves is noticed.
fn all_agree(worlds: impl IntoIterator<Item = Rules>, floor: usize) {
    let mut all = Counts::default();
    for rules in worlds {
        match explore(&rules) {
            Ok(counts) => all += counts,
            Err(violation) => panic!("{violation}in the world of {rules:?}"),
        }
    }
    println!("{} states, {} transitions, {} final states", all.states, all.transitions, all.finals);
    assert!(all.states > floor, "only {} states", all.states);
}

/// On a server and in a SQLite file.
fn both_homes(rules: Rules) -> [Rules; 2] {
    [Rules { sqlite: true, ..rules.clone() }, rules]
}

#[test]
fn whoever_has_written_all_databases_agree_whatever_is_lost_late_or_refused() {
    let roles = [Role::Idle, Role::Reader, Role::Looked, Role::Writes];
    let worlds = (0..64).flat_map(|code| {
        let roles = [roles[code % 4], roles[code / 4 % 4], roles[code / 16]];
        // Two prepared branches have a test of their own.
        let one = roles[1..] != [Role::Writes; 2];
        both_homes(Rules { losses: one, refusals: true, kills: one, unreachable: one, ..Rules::quiet(&roles) })
    });
    all_agree(worlds, 68_000);
}

#[test]
fn two_databases_agree_with_two_recoverers_whatever_fails() {
    let worlds = both_homes(Rules { recoverers: 2, unreachable: false, ..Rules::of(TWO) });
    all_agree(worlds, 80_000);
}

#[test]
fn two_databases_agree_where_a_prepared_branch_belongs_to_its_session() {
    all_agree([Rules { owned: true, ..Rules::of(TWO) }], 3_800);
}

#[test]
fn databases_agree_where_a_server_says_that_a_branch_has_ended_and_forgets_it() {
    let forgets = |rules| Rules { owned: true, forgets: true, ..rules };
    all_agree([forgets(Rules { recoverers: 2, unreachable: false, ..Rules::of(TWO) })], 58_000);
    all_agree([forgets(Rules { cleaning: true, operator: true, ..Rules::quiet(THREE) })], 11_000);
}

#[test]
fn three_databases_agree_with_two_recoverers_and_the_cleaning() {
    all_agree([Rules { recoverers: 2, cleaning: true, ..Rules::quiet(THREE) }], 110_000);
}

#[test]
fn three_databases_agree_with_two_recoverers_that_can_not_reach_all_of_them() {
    let rules = Rules { recoverers: 2, kills: true, unreachable: true, ..Rules::quiet(THREE) };
    all_agree([Rules { owned: true, ..rules }], 30_000);
}

#[test]
fn three_databases_agree_when_replies_are_lost_and_requests_late() {
    all_agree(both_homes(Rules { losses: true, ..Rules::quiet(THREE) }), 50_000);
}

#[test]
fn what_an_operator_does_by_hand_is_never_a_silent_split() {
    let rules = Rules { operator: true, cleaning: true, refusals: true, unreachable: true, ..Rules::quiet(THREE) };
    all_agree(both_homes(rules), 75_000);
}

#[test]
fn a_decision_lost_by_a_failover_is_never_a_silent_split() {
    for commit_on_lost_home in [false, true] {
        let rules = Rules { failover: true, commit_on_lost_home, ..Rules::quiet(THREE) };
        all_agree(both_homes(Rules { unreachable: true, ..rules.clone() }), 11_000);
        let two = Rules { roles: TWO.to_vec(), losses: true, cleaning: true, ..rules };
        all_agree(both_homes(two), 78_000);
    }
}

/// Home has taken the place of a primary that still answers.
fn each_predecessor(rules: &Rules) -> [Rules; 2] {
    [Predecessor::Installed, Predecessor::Adopted]
        .map(|predecessor| Rules { predecessor: Some(predecessor), ..rules.clone() })
}

#[test]
fn an_old_primary_decides_nothing_about_what_its_successor_has_named() {
    let two = Rules { cleaning: true, ..Rules::quiet(TWO) };
    all_agree(each_predecessor(&Rules { losses: true, ..two.clone() }), 25_000);
    all_agree(each_predecessor(&Rules { grows: false, ..two.clone() }), 4_500);
    all_agree(each_predecessor(&Rules { failover: true, ..Rules::quiet(TWO) }), 2_300);
    all_agree(each_predecessor(&Rules { unreachable: true, ..Rules::quiet(THREE) }), 3_100);
}

#[test]
fn a_branch_that_a_promoted_participant_has_again_is_never_a_silent_split() {
    let two = Rules { promotion: true, cleaning: true, ..Rules::quiet(TWO) };
    all_agree(both_homes(Rules { losses: true, kills: true, unreachable: true, ..two.clone() }), 48_000);
    all_agree([Rules { grows: false, ..two.clone() }], 1_900);
    // Home has no rows that an operator could look for. Recovery looks at the end.
    all_agree([Rules { roles: vec![Role::Idle, Role::Writes, Role::Writes], recoverers: 0, ..two }], 1_500);
}

#[test]
#[ignore = "without optimisation it takes minutes; more than one GiB of memory"]
fn three_databases_agree_whatever_fails_at_once() {
    all_agree(both_homes(Rules::of(THREE)), 500_000);
    all_agree(both_homes(Rules { owned: true, ..Rules::of(THREE) }), 300_000);
    let two = Rules { recoverers: 2, ..Rules::quiet(THREE) };
    all_agree(both_homes(Rules { losses: true, ..two.clone() }), 1_000_000);
    all_agree(both_homes(Rules { cleaning: true, unreachable: true, kills: true, ..two.clone() }), 480_000);
    for commit_on_lost_home in [false, true] {
        let two = Rules { commit_on_lost_home, ..two.clone() };
        all_agree(both_homes(Rules { operator: true, cleaning: true, ..two.clone() }), 580_000);
        all_agree(both_homes(Rules { operator: true, failover: true, ..two.clone() }), 1_200_000);
        all_agree(both_homes(Rules { failover: true, losses: true, recoverers: 1, ..two }), 650_000);
    }
    let forgets = Rules { owned: true, forgets: true, cleaning: true, ..Rules::quiet(THREE) };
    all_agree([Rules { recoverers: 2, kills: true, ..forgets.clone() }, Rules { losses: true, ..forgets }], 1_000_000);
    for grows in [true, false] {
        all_agree(each_predecessor(&Rules { grows, failover: true, ..Rules::of(TWO) }), 330_000);
        let promotion = Rules { grows, promotion: true, ..Rules::of(TWO) };
        all_agree(both_homes(Rules { recoverers: 2, ..promotion.clone() }), 250_000);
        all_agree([Rules { failover: true, ..promotion }], 200_000);
    }
    all_agree(each_predecessor(&Rules { cleaning: true, losses: true, ..Rules::quiet(THREE) }), 880_000);
    for roles in [THREE, &[Role::Idle, Role::Writes, Role::Writes]] {
        all_agree(
            both_homes(Rules { promotion: true, cleaning: true, unreachable: true, ..Rules::quiet(roles) }),
            165_000,
        );
    }
}
