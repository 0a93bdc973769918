//! Where the examples are.

use std::path::PathBuf;

/// The example, which Cargo builds beside the tests: in `examples` where they are in `deps`.
pub fn program(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a test is in the folder `deps` of its profile");
    let program = profile.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.exists(),
        "{} does not exist; `cargo test --test` builds no examples, run `cargo build --example {example}` before it",
        program.display()
    );
    program
}
