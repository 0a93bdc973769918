//! Killing the run at a named point, to see that nothing is left half-done.

use multidb::fault::{self, Stop};

use crate::error::BankError;

/// The points of a transfer. Those of the library come after them.
const OWN: [&str; 4] = ["transfer.debited", "transfer.credited", "transfer.recorded", "transfer.committed"];

/// How many branches the points of the library are listed for: home, and the other one.
const BRANCHES: usize = 2;

/// All points that `--crash` takes.
pub fn points() -> Vec<String> {
    let numbered = |point: &str| match point.strip_suffix(".N") {
        Some(base) => (0..BRANCHES).map(|branch| format!("{base}.{branch}")).collect(),
        None => vec![point.to_owned()],
    };
    OWN.into_iter().chain(fault::POINTS.iter().copied()).flat_map(numbered).collect()
}

/// Lets the process be killed when it passes the point once more than `after` times.
pub fn arm(point: &str, after: u32) -> Result<(), BankError> {
    if !points().iter().any(|known| known == point) {
        return Err(BankError::NoSuchPoint(point.to_owned()));
    }
    fault::arm(point, after, Stop::Kill);
    Ok(())
}

/// A transfer passes one of its points.
pub fn point(name: &'static str) {
    fault::point(name);
}
