//! What happens, in plain lines. The calls are the same for every layout of the databases.

use std::fmt::Display;
use std::io::{self, Write};

use multidb::Error;

use crate::astakos::{Quota, import_users, quotas};
use crate::cyclades::{Server, boot_all, servers};
use crate::error::AppError;
use crate::launch::{launch, launch_apart, launch_nested};
use crate::{astakos, cyclades};

/// The fifth line has a name that the second one has taken.
const USERS: [&str; 6] = ["alice,2", "bob,1", "carol,1", "dave,2", "bob,3", "erin,1"];
const EVERY: usize = 3;

pub fn tell() -> Result<(), AppError> {
    make_tables()?;
    import()?;

    report("launch alice debian", launch("alice", "debian"))?;
    report("launch bob beos", launch("bob", "beos"))?;
    report("launch_nested carol beos", launch_nested("carol", "beos"))?;
    report("launch_nested carol debian", launch_nested("carol", "debian"))?;
    report("launch_apart dave debian", launch_apart("dave", "debian"))?;
    report("launch_apart dave plan9", launch_apart("dave", "plan9"))?;
    report("launch_apart dave debian", launch_apart("dave", "debian"))?;
    report("launch_apart erin beos", launch_apart("erin", "beos"))?;

    let booted = boot_all()?;
    say(format_args!("boot_all: {booted} booted"))?;
    show()
}

fn make_tables() -> Result<(), AppError> {
    let made = || Ok((astakos::create_tables()?, cyclades::create_tables()?));
    let (users, servers) = made().map_err(|error| AppError::Tables(Box::new(error)))?;
    say(format_args!("astakos is on `{users}`, cyclades is on `{servers}`"))
}

/// The first import stops at the bad line. The second one leaves it out, and begins behind what is committed.
fn import() -> Result<(), AppError> {
    let error = match import_users(&USERS, EVERY) {
        Ok(added) => return say(format_args!("import: {added} users")),
        Err(error) => error,
    };
    let AppError::Import { line: bad, committed, .. } = error else { return Err(error) };
    say(format_args!("import: {error}"))?;
    let lines = USERS.iter().zip(1..).skip(committed).filter(|(_, line)| *line != bad);
    let rest: Vec<&str> = lines.map(|(text, _)| *text).collect();
    let added = import_users(&rest, EVERY)?;
    say(format_args!("import: {added} more from line {} on, without line {bad}", committed + 1))
}

/// Says what became of a launch. What the applications refuse is part of the story, and so is what the layout of the
/// databases does not allow.
fn report(what: &str, launched: Result<i64, AppError>) -> Result<(), AppError> {
    match launched {
        Ok(server) => say(format_args!("{what}: server {server}")),
        Err(error @ (AppError::NoQuota(_) | AppError::UnknownImage(_))) => say(format_args!("{what}: {error}")),
        Err(AppError::Database(error @ Error::NotAtomic { .. })) => say(format_args!("{what}: NotAtomic: {error}")),
        Err(error) => Err(error),
    }
}

fn show() -> Result<(), AppError> {
    for Quota { user, servers, used } in quotas()? {
        say(format_args!("quota of {user}: {used} of {servers} used"))?;
    }
    for Server { id, owner, image, state } in servers()? {
        say(format_args!("server {id} of {owner}: {image}, {state}"))?;
    }
    Ok(())
}

fn say(line: impl Display) -> Result<(), AppError> {
    writeln!(io::stdout(), "{line}").map_err(AppError::Output)
}
