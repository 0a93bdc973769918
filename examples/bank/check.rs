//! Whether the two databases agree.

use std::collections::BTreeMap;
use std::fmt;

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use multidb::prelude::*;

use crate::error::BankError;
use crate::store::{Account, Entry, accounts, entries, lock_bank, lock_ledger};

/// How many differences are described; the others are counted.
const DESCRIBED: usize = 5;

/// What the check found.
#[derive(Default)]
pub struct Report {
    accounts: usize,
    entries: u64,
    differences: Differences,
}

impl Report {
    pub fn is_ok(&self) -> bool {
        self.differences.count == 0
    }
}

/// Compares balances with entries.
///
/// It holds the locks of both, in a file SQLite's write lock. A transfer holds them until its part is committed there, so
/// both are read as of one moment.
#[transactional(Account, Entry)]
pub fn check(#[conn(Account)] conn: &mut AnyConn, opening: i64) -> Result<Report, BankError> {
    lock_bank()?;
    let balances: BTreeMap<i64, i64> =
        accounts::table.select((accounts::id, accounts::balance)).load(conn)?.into_iter().collect();
    lock_ledger()?;
    let mut ledger = read_ledger()?;
    let mut report = Report { accounts: balances.len(), entries: ledger.entries, ..Report::default() };
    let mut total = 0;
    for (id, balance) in &balances {
        let expected = i128::from(opening) + ledger.sums.remove(id).unwrap_or(0);
        report.differences.expect(i128::from(*balance) == expected, || {
            format!("account {id}: its balance is {balance}, its opening plus its entries is {expected}")
        });
        total += i128::from(*balance);
    }
    for (id, sum) in &ledger.sums {
        report.differences.expect(false, || format!("account {id}: it does not exist, its entries sum to {sum}"));
    }
    let expected = i128::from(opening) * balances.len() as i128;
    report.differences.expect(total == expected, || {
        format!("all accounts: their balances are {total}, their openings are {expected}")
    });
    report.differences.add(ledger.differences);
    Ok(report)
}

#[derive(Default)]
struct Ledger {
    entries: u64,
    /// What the entries of each account sum to. Wider than an entry: a damaged ledger may overflow.
    sums: BTreeMap<i64, i128>,
    differences: Differences,
}

#[transactional(Entry)]
fn read_ledger(#[conn] conn: &mut AnyConn) -> Result<Ledger, BankError> {
    let mut ledger = Ledger::default();
    let columns = (entries::transfer, entries::account, entries::cents);
    let rows = entries::table
        .select(columns)
        .order(entries::transfer)
        .load_iter::<(i64, i64, i64), DefaultLoadingMode>(conn)?;
    let mut open: Option<Sides> = None;
    for row in rows {
        let (transfer, account, cents) = row?;
        ledger.entries += 1;
        *ledger.sums.entry(account).or_default() += i128::from(cents);
        match &mut open {
            Some(sides) if sides.transfer == transfer => sides.add(cents),
            _ => {
                let next = Sides { transfer, count: 1, sum: i128::from(cents) };
                open.replace(next).inspect(|done| done.compare(&mut ledger.differences));
            }
        }
    }
    open.inspect(|done| done.compare(&mut ledger.differences));
    Ok(ledger)
}

/// The entries of one transfer.
struct Sides {
    transfer: i64,
    count: u64,
    sum: i128,
}

impl Sides {
    fn add(&mut self, cents: i64) {
        self.count += 1;
        self.sum += i128::from(cents);
    }

    fn compare(&self, differences: &mut Differences) {
        let Self { transfer, count, sum } = self;
        differences.expect(*count == 2 && *sum == 0, || {
            format!("transfer {transfer}: the sum of its entries is {sum} and their number {count}, not 0 and 2")
        });
    }
}

#[derive(Default)]
struct Differences {
    count: u64,
    described: Vec<String>,
}

impl Differences {
    fn expect(&mut self, holds: bool, describe: impl FnOnce() -> String) {
        if holds {
            return;
        }
        self.count += 1;
        if self.described.len() < DESCRIBED {
            self.described.push(describe());
        }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        let room = DESCRIBED - self.described.len();
        self.described.extend(other.described.into_iter().take(room));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accounts, entries, differences } = self;
        let verdict = match differences.count {
            0 => "ok".to_owned(),
            1 => "FAILED, 1 difference".to_owned(),
            count => format!("FAILED, {count} differences"),
        };
        write!(
            f,
            "check: every balance equals its opening plus its entries: {verdict} ({accounts} accounts, {entries} \
             entries)"
        )?;
        for described in &differences.described {
            write!(f, "\n  {described}")?;
        }
        match differences.count - differences.described.len() as u64 {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}
