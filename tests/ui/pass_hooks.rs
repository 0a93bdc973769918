//! What a hook may return. Compiled, not run.

use multidb::scope::{on_commit, on_commit_robust, on_rollback};

fn nothing() {}

fn fails() -> Result<(), std::fmt::Error> {
    Err(std::fmt::Error)
}

fn never() -> ! {
    std::process::abort()
}

fn main() {}

pub fn hooks() {
    on_commit(|| ());
    on_commit(nothing);
    on_commit(fails);
    on_commit(|| Ok::<(), std::io::Error>(()));
    on_commit(|| Err::<(), _>("no"));
    on_commit(never);
    on_commit(|| panic!("the machine is on fire"));
    on_commit_robust(|| todo!());
    on_rollback(|| unimplemented!());
    on_rollback(|| std::process::exit(1));
    on_commit(|| {
        loop {
            std::thread::park();
        }
    });
    on_commit(|| {
        nothing();
        unreachable!()
    });
}
