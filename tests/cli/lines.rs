//! What the program makes of a line.

use crate::bank::{Bank, Entry};

/// Runs `csv`, in which one line after another is wrong in its own way, between two good ones.
#[track_caller]
fn rejected_for(bad: &[u8], reason: &str) {
    let bank = Bank::new();
    let csv = [b"1,2,100\n", bad, b"\n3,4,7\n"].concat();
    let run = bank.run(csv).went_well();
    assert_eq!(run.rejected(), [(2, reason)], "{run:#?}");
    assert_eq!((run.count("committed"), run.count("rejected")), (2, 1), "{run:#?}");
    let name = run.stdout.lines().find_map(|line| line.strip_prefix("  ")).expect("a reason in the summary");
    let name = name.trim_end_matches([' ', '1']);
    assert!(reason.starts_with(name), "the summary says `{name}` and the line `{reason}`");
    assert_eq!(bank.balances(), [900, 1100, 993, 1007]);
    assert_eq!(bank.entries().len(), 4);
}

#[test]
fn a_good_line_moves_the_money_and_enters_both_sides() {
    let bank = Bank::new();
    let run = bank.run("1,2,300\n2,3,1300\n").went_well();
    assert_eq!((run.count("committed"), run.count("rejected")), (2, 0), "{run:#?}");
    assert_eq!(bank.balances(), [700, 0, 2300, 1000]);
    let side = |transfer, account, cents| Entry { transfer, account, cents };
    assert_eq!(bank.entries(), [side(1, 1, -300), side(1, 2, 300), side(2, 2, -1300), side(2, 3, 1300)]);
}

#[test]
fn a_line_that_is_not_utf8_is_rejected_and_the_next_one_runs() {
    rejected_for(b"1,\xFF,5", "not UTF-8 at byte 3");
    rejected_for(b"1,2,5\xC3", "not UTF-8 at byte 6");
}

#[test]
fn a_line_with_too_few_or_too_many_columns_is_rejected() {
    rejected_for(b"1,2", "too few columns: 2 instead of 3");
    rejected_for(b"1", "too few columns: 1 instead of 3");
    rejected_for(b"   ", "too few columns: 1 instead of 3");
    rejected_for(b"1,2,3,4", "too many columns: 4 instead of 3");
    rejected_for(b"1,2,3,", "too many columns: 4 instead of 3");
}

#[test]
fn a_field_that_is_no_whole_number_is_rejected() {
    rejected_for(b"one,2,3", "not a number: `from` is \"one\"");
    rejected_for(b"1,,3", "not a number: `to` is \"\"");
    rejected_for(b"1,2,3.00", "not a number: `cents` is \"3.00\"");
    rejected_for(b"1,2,1e3", "not a number: `cents` is \"1e3\"");
}

#[test]
fn a_field_is_shown_so_that_it_can_not_command_a_terminal_or_fill_it() {
    rejected_for(b"1,2,\x1B[2J", "not a number: `cents` is \"\\u{1b}[2J\"");
    let shown = format!("not a number: `cents` is \"{}\"..", "x".repeat(40));
    rejected_for(&[b"1,2,".as_slice(), &[b'x'; 500]].concat(), &shown);
}

#[test]
fn a_lone_carriage_return_hides_nothing() {
    rejected_for(b"1,2,5\r3,4,5", "too many columns: 5 instead of 3");
}

#[test]
fn a_number_that_does_not_fit_is_rejected_as_too_large() {
    rejected_for(b"1,2,9223372036854775808", "number too large: `cents` is \"9223372036854775808\"");
    rejected_for(b"1,-9223372036854775809,5", "number too large: `to` is \"-9223372036854775809\"");
}

#[test]
fn the_largest_number_is_only_more_than_the_account_holds() {
    rejected_for(b"1,2,9223372036854775807", "insufficient funds on account 1");
}

#[test]
fn an_amount_of_zero_or_less_is_rejected() {
    rejected_for(b"1,2,0", "zero or negative amount: 0");
    rejected_for(b"1,2,-5", "zero or negative amount: -5");
    rejected_for(b"1,2,-9223372036854775808", "zero or negative amount: -9223372036854775808");
}

#[test]
fn a_transfer_from_an_account_to_itself_is_rejected() {
    rejected_for(b"3,3,5", "from and to are the same: account 3");
}

#[test]
fn an_unknown_account_is_rejected_by_its_number() {
    rejected_for(b"0,2,5", "unknown account 0");
    rejected_for(b"-1,2,5", "unknown account -1");
    rejected_for(b"1,5,5", "unknown account 5");
    rejected_for(b"7,5,5", "unknown account 7");
    rejected_for(b"1,9223372036854775807,5", "unknown account 9223372036854775807");
}

#[test]
fn more_than_the_account_holds_is_rejected_and_all_that_it_holds_is_not() {
    rejected_for(b"1,2,901", "insufficient funds on account 1");
    let bank = Bank::new();
    bank.run("1,2,1000\n").went_well();
    assert_eq!(bank.balances(), [0, 2000, 1000, 1000]);
}

#[test]
fn of_several_faults_the_first_of_the_fixed_order_is_named() {
    rejected_for(b"\xFF", "not UTF-8 at byte 1");
    rejected_for(b"\"x", "unbalanced quote");
    rejected_for(b"x,99999999999999999999,0", "not a number: `from` is \"x\"");
    rejected_for(b"1,1,0", "zero or negative amount: 0");
    rejected_for(b"9,9,5", "from and to are the same: account 9");
    rejected_for(b"1,9,99999", "unknown account 9");
}

#[test]
fn a_balance_never_grows_beyond_the_largest_number() {
    let bank = Bank::new();
    let opening = (i64::MAX - 5).to_string();
    let run = bank.run_with(&["--accounts", "3", "--opening", &opening], "1,2,6\n1,2,5\n1,3,5\n").went_well();
    assert_eq!(run.rejected(), [(1, "balance too large on account 2")]);
    assert_eq!(bank.balances(), [i64::MAX - 15, i64::MAX, i64::MAX]);
    assert_eq!(bank.entries().len(), 4);
}

#[test]
fn an_unbalanced_quote_spoils_only_its_own_line() {
    rejected_for(b"\"1,2,5", "unbalanced quote");
    rejected_for(b"1,2,\"5", "unbalanced quote");
}

#[test]
fn quotes_and_spaces_around_a_number_and_a_plus_before_it_are_taken() {
    let bank = Bank::new();
    let run = bank.run("\"1\",\"2\",\"100\"\n  1 ,\t2 , 100  \n01,2,+100\n").went_well();
    assert_eq!(run.count("committed"), 3, "{run:#?}");
    assert_eq!(bank.balances(), [700, 1300, 1000, 1000]);
}

#[test]
fn a_header_is_skipped_as_the_first_line_only() {
    let bank = Bank::new();
    let run = bank.run("from,to,cents\n1,2,5\nfrom,to,cents\n").went_well();
    assert_eq!(run.rejected(), [(3, "not a number: `from` is \"from\"")]);
    assert_eq!(run.count("committed"), 1);
}

#[test]
fn a_file_of_windows_reads_as_any_other() {
    let bank = Bank::new();
    let run = bank.run("\u{FEFF}from,to,cents\r\n1,2,5\r\n\r\n1,2,x\r\n1,2,5").went_well();
    assert_eq!(run.rejected(), [(4, "not a number: `cents` is \"x\"")]);
    assert_eq!(run.count("committed"), 2);
}

#[test]
fn a_byte_order_mark_is_skipped_where_files_were_joined_too_and_not_within_a_line() {
    let bank = Bank::new();
    let run = bank.run("\u{FEFF}1,2,5\n\u{FEFF}1,2,5\n\u{FEFF}\n1,\u{FEFF}2,5\n").went_well();
    assert_eq!(run.rejected(), [(4, "not a number: `to` is \"\\u{feff}2\"")]);
    assert_eq!(run.count("committed"), 2);
}

#[test]
fn empty_lines_are_skipped_and_counted() {
    let bank = Bank::new();
    let run = bank.run("\n\r\n1,2,5\n\n\nx\n").went_well();
    assert_eq!(run.rejected(), [(6, "too few columns: 1 instead of 3")]);
    assert_eq!((run.count("committed"), run.count("rejected")), (1, 1));
}

#[test]
fn a_line_of_the_greatest_length_is_taken_and_a_longer_one_is_not() {
    let mut fits = b"1,2,5".to_vec();
    fits.resize(1024, b' ');
    let bank = Bank::new();
    let run = bank.run([&fits[..], b"\r\n", &fits[..], b" \r\n1,2,5\n"].concat()).went_well();
    assert_eq!(run.rejected(), [(2, "line too long: more than 1024 bytes")]);
    assert_eq!(run.count("committed"), 2);
}

#[test]
fn a_huge_line_is_one_rejected_line() {
    rejected_for(&vec![b'1'; 10_000_000], "line too long: more than 1024 bytes");
}

#[test]
fn an_empty_file_is_a_run_without_transfers() {
    let bank = Bank::new();
    let run = bank.run("").went_well();
    assert_eq!((run.count("committed"), run.count("rejected")), (0, 0));
    assert_eq!(bank.balances(), [1000; 4]);
}
