//! What the documents show is what the tests run.

use crate::fixture::PROPAGATION;

const SHOWN: &str = include_str!("../../docs/PROPAGATION.md");

#[test]
fn the_document_shows_the_table_of_propagations_line_by_line() {
    let run: Vec<Vec<&str>> = PROPAGATION
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect())
        .collect();
    // Below the head and the line under it.
    let shown: Vec<Vec<&str>> = SHOWN
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for (run, shown) in run.iter().zip(&shown) {
        assert_eq!(shown, run);
    }
    assert_eq!(shown.len(), run.len());
}
