//! What the protocol must not be: each mistake leads to a state that must never be, and the explorer finds it.

use super::explorer::{Violation, explore, explore_for};
use super::rules::{Mistake, Predecessor, Role, Rules, Tombstone};
use super::world::{How, Move};

const TWO: &[Role] = &[Role::Writes; 2];

/// What it is called when the databases disagree.
const SPLIT: &str = "split: ";
const FALSE_ALARM: &str = "somebody was told";

/// The shortest way to what must never be.
fn violation(rules: &Rules, mistake: Mistake, wanted: &str) -> Violation {
    let rules = Rules { mistake: Some(mistake), ..rules.clone() };
    let violation = explore_for(&rules, wanted).expect_err("a mistake that leads to nothing wrong");
    println!("{mistake:?}: {violation}");
    let sound = Rules { mistake: None, ..rules };
    assert!(explore(&sound).is_ok(), "the same world without the mistake");
    *violation
}

#[test]
fn a_row_inserted_by_the_decision_itself_splits() {
    let late = violation(&Rules::quiet(TWO), Mistake::LateRow(Tombstone::None), SPLIT);
    assert!(!late.trace.contains(&Move::CoordinatorDies), "nobody has died: {late}");
}

#[test]
fn a_late_row_holds_as_long_as_the_aborted_one_is_kept() {
    let cleaning = Rules { cleaning: true, ..Rules::quiet(TWO) };
    let kept = Rules { mistake: Some(Mistake::LateRow(Tombstone::Kept)), ..cleaning.clone() };
    explore(&kept).unwrap_or_else(|violation| panic!("{violation}"));

    let collected = violation(&cleaning, Mistake::LateRow(Tombstone::Collected), SPLIT);
    assert!(collected.trace.contains(&Move::DeletesRow), "{collected}");
}

#[test]
fn a_probe_that_only_reads_splits() {
    let read = violation(&Rules::quiet(TWO), Mistake::SelectOnly, SPLIT);
    assert!(!read.trace.contains(&Move::CoordinatorDies), "nobody has died: {read}");
}

#[test]
fn a_prepare_sent_before_the_reply_to_the_intent_splits() {
    let early = violation(&Rules::quiet(TWO), Mistake::PrepareBeforeReply, SPLIT);
    assert!(!early.trace.contains(&Move::CoordinatorDies), "nobody has died: {early}");
}

#[test]
fn on_sqlite_a_probe_that_is_rolled_back_splits() {
    let sqlite = Rules { sqlite: true, ..Rules::quiet(TWO) };
    let rolled_back = violation(&sqlite, Mistake::SqliteProbeRolledBack, SPLIT);
    assert!(rolled_back.trace.contains(&Move::CoordinatorDiesBeforeSync), "{rolled_back}");
}

#[test]
fn on_sqlite_a_probe_with_an_old_list_calls_a_forgotten_commit_aborted() {
    let sqlite = Rules { sqlite: true, cleaning: true, ..Rules::quiet(TWO) };
    let unasked = violation(&sqlite, Mistake::TombstoneUnasked, "home's row says aborted");
    assert!(unasked.trace.contains(&Move::DeletesRow), "{unasked}");
}

#[test]
fn a_decision_deleted_before_it_is_closed_splits() {
    let early = violation(&Rules { cleaning: true, ..Rules::quiet(TWO) }, Mistake::RowDeletedEarly, SPLIT);
    assert!(early.trace.contains(&Move::DeletesRow), "{early}");
}

#[test]
fn receipts_deleted_before_the_decision_is_closed_raise_a_false_alarm() {
    let early = violation(&Rules { cleaning: true, ..Rules::quiet(TWO) }, Mistake::ReceiptsDeletedEarly, FALSE_ALARM);
    assert!(early.trace.contains(&Move::DeletesReceipt(1)), "{early}");
}

#[test]
fn a_mark_that_does_not_ask_what_became_of_the_decision_raises_a_false_alarm() {
    let unasked = violation(&Rules { cleaning: true, ..Rules::quiet(TWO) }, Mistake::MarkUnasked, FALSE_ALARM);
    assert!(unasked.trace.contains(&Move::ClosesOwn), "{unasked}");
}

#[test]
fn closing_a_decision_because_a_failed_listing_is_empty_splits() {
    let rules = Rules { cleaning: true, unreachable: true, ..Rules::quiet(TWO) };
    let empty = violation(&rules, Mistake::ClosedWhenNotListed, SPLIT);
    assert!(empty.trace.contains(&Move::Looks(How::Refused)), "{empty}");
}

#[test]
fn taking_a_branch_for_gone_when_its_listing_failed_raises_a_false_alarm() {
    let empty = violation(&Rules { unreachable: true, ..Rules::quiet(TWO) }, Mistake::EmptyListing, FALSE_ALARM);
    assert!(empty.trace.contains(&Move::Recoverer(0, How::Refused)), "{empty}");
}

#[test]
fn a_server_that_is_taken_at_its_word_that_a_branch_has_ended_raises_a_false_alarm() {
    let rules = Rules { owned: true, forgets: true, cleaning: true, ..Rules::quiet(TWO) };
    let taken = violation(&rules, Mistake::TakenAtItsWord, FALSE_ALARM);
    assert!(taken.trace.contains(&Move::Recoverer(0, How::InVain)), "{taken}");
}

#[test]
fn a_coordinator_that_ignores_what_was_forgotten_breaks_its_word() {
    let rules = Rules { cleaning: true, losses: true, ..Rules::quiet(TWO) };
    let ignored = violation(&rules, Mistake::MarkIgnored, "the coordinator has said rolled back");
    assert!(ignored.trace.contains(&Move::DeletesRow), "{ignored}");
}

#[test]
fn what_an_operator_has_split_stays_silent_if_nobody_looks_for_receipts_without_a_decision() {
    let silent =
        violation(&Rules { operator: true, ..Rules::quiet(TWO) }, Mistake::NoAudit, "split, and nobody is told");
    assert!(silent.trace.iter().any(|happens| matches!(happens, Move::ByHand(_, true))), "{silent}");
}

/// Home has taken the place of a primary that nobody has fenced.
fn with_predecessor() -> Rules {
    Rules { predecessor: Some(Predecessor::Installed), ..Rules::quiet(TWO) }
}

#[test]
fn an_old_primary_that_counts_as_adopted_because_it_was_installed_splits() {
    for grows in [true, false] {
        let installed = violation(&Rules { grows, ..with_predecessor() }, Mistake::InstalledIsAdopted, SPLIT);
        assert!(
            installed.trace.iter().any(|happens| matches!(happens, Move::Lists { stale: true, .. })),
            "{installed}"
        );
    }
}

#[test]
fn an_old_primary_that_is_asked_about_what_its_successor_has_named_raises_a_false_alarm() {
    let rules = Rules { cleaning: true, ..with_predecessor() };
    let asked = violation(&rules, Mistake::OldPrimaryAsked, FALSE_ALARM);
    assert!(asked.trace.iter().any(|happens| matches!(happens, Move::Lists { stale: true, .. })), "{asked}");
}

#[test]
fn a_branch_of_a_promoted_participant_that_is_rolled_back_because_its_decision_is_gone_splits() {
    let rules = Rules { promotion: true, cleaning: true, ..Rules::quiet(TWO) };
    let trusted = violation(&rules, Mistake::PromotedTrusted, SPLIT);
    assert!(trusted.trace.contains(&Move::DeletesRow), "{trusted}");
}

#[test]
fn on_sqlite_a_probe_that_leaves_its_row_where_the_decision_was_deleted_splits() {
    let rules = Rules { sqlite: true, promotion: true, cleaning: true, ..Rules::quiet(TWO) };
    let left = violation(&rules, Mistake::TombstoneOfForgotten, SPLIT);
    assert!(left.trace.contains(&Move::Promotes { at: 1, kept: false }), "{left}");
}

#[test]
fn an_operator_who_looks_for_the_rows_at_home_alone_splits_where_home_has_written_nothing() {
    let others_wrote = [Role::Idle, Role::Writes, Role::Writes];
    let rules = Rules { recoverers: 0, promotion: true, cleaning: true, ..Rules::quiet(&others_wrote) };
    let settled = violation(&rules, Mistake::SettledAsHome, SPLIT);
    assert!(settled.trace.iter().any(|happens| matches!(happens, Move::Settles(_))), "{settled}");
}

#[test]
fn a_promoted_participant_that_is_adopted_before_its_branches_are_finished_splits() {
    for grows in [true, false] {
        let rules = Rules { grows, promotion: true, cleaning: true, ..Rules::quiet(TWO) };
        for mistake in [Mistake::AdoptedUnsettled, Mistake::AdoptedUndecided] {
            let unsettled = violation(&rules, mistake, SPLIT);
            assert!(unsettled.trace.contains(&Move::AdoptsParticipant(1)), "{unsettled}");
        }
    }
}

/// A limit of what MySQL and MariaDB tell: there servers have numbers, and not their promotions.
#[test]
fn where_a_server_that_is_promoted_again_has_its_old_number_the_one_in_between_splits_if_nobody_fences_it() {
    let between = Rules { predecessor: Some(Predecessor::Between), grows: false, ..Rules::quiet(TWO) };
    let unfenced = explore_for(&between, SPLIT).expect_err("nothing tells which of them was before");
    assert!(unfenced.trace.iter().any(|happens| matches!(happens, Move::Lists { stale: true, .. })), "{unfenced}");
    println!("{unfenced}");
}
