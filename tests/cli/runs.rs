//! What a run leaves behind, and what the next one makes of it.

use crate::bank::{Bank, Run, SMALL};

#[test]
fn both_files_are_in_rollback_journal_mode() {
    let bank = Bank::new();
    bank.run("1,2,5\n").went_well();
    for database in ["bank.db", "ledger.db"] {
        assert_eq!(bank.journal_mode(database), "delete");
    }
}

#[test]
fn a_file_that_was_made_wal_is_taken_back() {
    let bank = Bank::new();
    bank.run("1,2,5\n").went_well();
    bank.execute("ledger.db", "PRAGMA journal_mode = wal");
    assert_eq!(bank.journal_mode("ledger.db"), "wal");
    bank.run("1,2,5\n").went_well();
    assert_eq!(bank.journal_mode("ledger.db"), "delete");
}

#[test]
fn a_rejected_transfer_leaves_nothing_in_either_file() {
    let bank = Bank::new();
    let run = bank.run("1,2,1001\n1,9,5\n").went_well();
    assert_eq!(run.count("rejected"), 2);
    assert_eq!(bank.balances(), [1000; 4]);
    assert_eq!(bank.entries(), []);
}

#[test]
fn the_shipped_file_commits_a_thousand_and_shows_every_reason() {
    let bank = Bank::new();
    let run = Run::of(&mut bank.command()).went_well();
    assert!(run.count("committed") >= 1000, "{run:#?}");
    for reason in [
        "insufficient funds",
        "unknown account",
        "not a number",
        "number too large",
        "zero or negative amount",
        "from and to are the same",
        "too few columns",
        "too many columns",
        "unbalanced quote",
        "line too long",
        "not UTF-8",
    ] {
        assert!(run.count(reason) >= 1, "{reason}: {run:#?}");
    }
    assert_eq!(run.rejected().len() as u64, run.count("rejected"));
    assert_eq!(bank.balances().len(), 100);
    assert_eq!(bank.balances().iter().sum::<i64>(), 100 * 100_000);
    assert_eq!(bank.entries().len() as u64, 2 * run.count("committed"));
}

#[test]
fn without_a_terminal_there_is_no_bar() {
    let bank = Bank::new();
    let run = bank.run("1,2,5\n").went_well();
    assert_eq!(run.stderr, "");
}

#[test]
fn a_run_says_first_what_it_had_to_recover() {
    let run = Bank::new().run("").went_well();
    assert!(run.stdout.starts_with("recovery: nothing was left to be done\n"), "{run:#?}");
}

#[test]
fn a_second_run_goes_on_where_the_first_one_ended() {
    let bank = Bank::new();
    bank.run("1,2,300\n").went_well();
    let run = bank.run_with(&[], "2,3,1300\n1,2,701\n").went_well();
    assert_eq!(run.rejected(), [(2, "insufficient funds on account 1")]);
    assert_eq!(bank.balances(), [700, 0, 2300, 1000]);
    let transfers: Vec<i64> = bank.entries().iter().map(|entry| entry.transfer).collect();
    assert_eq!(transfers, [1, 1, 2, 2]);
}

#[test]
fn another_opening_is_refused_and_nothing_is_done() {
    let bank = Bank::new();
    bank.run("1,2,300\n").went_well();
    let run = bank.run_with(&["--opening", "999"], "1,2,300\n").stopped_with("leave `--opening` out");
    assert!(run.stderr.contains("1000") && run.stderr.contains("999"), "{run:#?}");
    assert_eq!(bank.balances(), [700, 1300, 1000, 1000]);
    bank.run_with(&["--opening", "1000"], "1,2,300\n").went_well();
}

#[test]
fn more_accounts_are_added_with_the_same_opening() {
    let bank = Bank::new();
    bank.run("1,2,300\n").went_well();
    let run = bank.run_with(&["--accounts", "2500"], "2500,1,1000\n").went_well();
    assert_eq!(run.count("committed"), 1);
    let balances = bank.balances();
    assert_eq!(balances.len(), 2500);
    assert_eq!(balances[..5], [1700, 1300, 1000, 1000, 1000]);
    assert_eq!(balances[2499], 0);
}

#[test]
fn fewer_accounts_take_none_away_and_the_run_says_so() {
    let bank = Bank::new();
    bank.run("").went_well();
    let run = bank.run_with(&["--accounts", "2"], "4,3,5\n").went_well();
    assert!(run.stdout.contains("none is taken away"), "{run:#?}");
    assert_eq!(bank.balances(), [1000, 1000, 1005, 995]);
}

#[test]
fn a_balance_that_was_changed_behind_the_ledger_fails_the_check() {
    let bank = Bank::new();
    bank.run("1,2,300\n").went_well();
    bank.execute("bank.db", "UPDATE accounts SET balance = balance + 1 WHERE id = 3");
    let run = bank.run("1,2,300\n");
    assert_eq!(run.status, Some(1), "{run:#?}");
    let told = "account 3: its balance is 1001, its opening plus its entries is 1000";
    assert!(run.stdout.contains("FAILED") && run.stdout.contains(told), "{run:#?}");
    assert_eq!(run.count("committed"), 1);
}

#[test]
fn a_check_that_fails_everywhere_names_a_few_and_counts_the_rest() {
    let bank = Bank::new();
    bank.run_with(&["--accounts", "50"], "").went_well();
    bank.execute("bank.db", "UPDATE accounts SET balance = balance - 1");
    let run = bank.run_with(&[], "");
    assert_eq!(run.status, Some(1), "{run:#?}");
    assert!(run.stdout.contains("FAILED, 51 differences") && run.stdout.contains("and 46 more"), "{run:#?}");
}

#[test]
fn entries_that_are_no_transfer_fail_the_check() {
    for (damage, told) in [
        ("DELETE FROM entries WHERE account = 2", "transfer 1: the sum of its entries is -300 and their number 1"),
        ("INSERT INTO entries VALUES (77, 1, 77, 0)", "their number 3"),
        ("UPDATE entries SET cents = cents + 1 WHERE account = 2", "transfer 1: the sum of its entries is 1"),
        ("UPDATE entries SET account = 77 WHERE account = 2", "account 77: it does not exist"),
    ] {
        let bank = Bank::new();
        bank.run("1,2,300\n").went_well();
        bank.execute("ledger.db", damage);
        let run = bank.run("");
        assert_eq!(run.status, Some(1), "{damage}: {run:#?}");
        assert!(run.stdout.contains("FAILED") && run.stdout.contains(told), "{damage}: {run:#?}");
    }
}

#[test]
fn a_file_that_can_not_be_read_stops_before_anything_is_made() {
    let bank = Bank::new();
    let missing = bank.path("missing.csv");
    Run::of(bank.command().arg(&missing)).stopped_with("missing.csv` can't be read");
    Run::of(bank.command().arg(bank.path("."))).stopped_with("can't be read");
    assert!(!bank.dir().exists());
}

#[test]
fn bad_usage_is_refused() {
    let bank = Bank::new();
    for bad in [
        &["--accounts", "0"][..],
        &["--accounts", "1000001"],
        &["--accounts", "many"],
        &["--opening", "-1"],
        &["--opening", "9223372036854775808"],
        &["--colour"],
    ] {
        bank.run_with(bad, "").stopped_with(bad[0]);
    }
    assert!(!bank.dir().exists());
}

#[test]
fn a_folder_that_can_not_be_made_is_named() {
    let bank = Bank::new();
    std::fs::write(bank.path("deep"), "a file").expect("a file in the way");
    Run::of(bank.command().args(SMALL)).stopped_with("can't be used");
}

#[test]
fn an_opening_of_zero_is_a_bank_without_money() {
    let bank = Bank::new();
    let run = bank.run_with(&["--accounts", "2", "--opening", "0"], "1,2,1\n").went_well();
    assert_eq!(run.rejected(), [(1, "insufficient funds on account 1")]);
    assert_eq!(bank.balances(), [0, 0]);
}
