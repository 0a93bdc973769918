//! Two applications, each of which fixes its database once.
//!
//! ```sh
//! cargo run --example two_apps -- [--databases FILE] [--dir DIR]
//! ```
//!
//! `astakos` has users and quotas, `cyclades` has servers. Each is a module with models, a router and annotated
//! functions. A bare `#[transactional]`, `#[commit_on_success]` or `#[commit_manually]` takes the application from the
//! module, and its router says `Route::prefer`: the database of that name where one is configured, else `default`. So
//! `one.toml` puts both on one database and `two.toml` gives each its own. **Between the two no function changes**, only
//! what the configuration says.
//!
//! `launch` reserves quota in one application and starts a server in the other. It lists both models, so it does both or
//! neither: on one database in a local transaction, on two in one that commits on both. `launch_nested` lists one model alone;
//! on two SQLite files that is refused with `NotAtomic`, which says to list the other one. `launch_apart` is two transactions,
//! with what that costs.
//!
//! # Exit status
//!
//! 0 when the story was told, with what it refuses in it; 2 for bad usage and for any other error.

mod astakos;
mod cyclades;
mod error;
mod launch;
mod story;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use multidb::prelude::*;

use crate::astakos::{AstakosRouter, Quota, User};
use crate::cyclades::{CycladesRouter, Server};
use crate::error::AppError;

/// In the program itself, so that it runs from any folder.
const ONE_DATABASE: &str = include_str!("one.toml");

const STOPPED: u8 = 2;

/// Imports users and launches servers, over one database or several
#[derive(Debug, Parser)]
#[command(name = "two_apps", after_help = "Exit status: 0 done, 2 bad usage or stopped by an error")]
struct Arguments {
    /// The databases, such as two.toml beside the source of this example; all on one database if left out
    #[arg(long, value_name = "FILE")]
    databases: Option<PathBuf>,

    /// The folder that relative paths of the databases begin in, created if it is missing; a temporary one, which is
    /// removed at the end, if left out
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "error: {error}"));
            ExitCode::from(STOPPED)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), AppError> {
    // Read first: the path of the file may be relative to the folder that the program was started in.
    let databases = match &arguments.databases {
        Some(file) => Databases::from_config(file)?,
        None => Databases::from_toml(ONE_DATABASE)?,
    };
    let temporary;
    let dir = if let Some(dir) = &arguments.dir {
        dir.as_path()
    } else {
        temporary = tempfile::tempdir().map_err(|source| AppError::folder(&std::env::temp_dir(), source))?;
        temporary.path()
    };
    enter(dir)?;
    databases.router(AstakosRouter).router(CycladesRouter).models::<(User, Quota, Server)>().install()?;
    story::tell()
}

/// A relative path in the configuration is one of the process.
fn enter(dir: &Path) -> Result<(), AppError> {
    let entered = fs::create_dir_all(dir).and_then(|()| std::env::set_current_dir(dir));
    entered.map_err(|source| AppError::folder(dir, source))
}
