//! Which incarnation a database is in, what an operator has said of those before it, and what the absence of a row says then.

use super::recoverer::{HomeSays, State, Trust};

/// Between an incarnation and the one that it replaces.
const REPLACES: char = '<';

/// The incarnations of a database, as it and its server tell them.
#[derive(Debug, Clone, Copy)]
pub struct Incarnations<'a> {
    /// The server's; `None` where this is no primary.
    pub now: Option<&'a str>,
    /// The one that it was installed or adopted in, and those that an operator has replaced by it, the last one first.
    pub adopted: &'a str,
    /// Whether a later incarnation is the greater one.
    pub grows: bool,
}

impl Incarnations<'_> {
    /// Whether its server was promoted since it was installed or adopted.
    pub fn is_promoted(self) -> bool {
        self.now.is_some_and(|now| Some(now) != self.adopted.split(REPLACES).next())
    }

    /// Whether an operator has said that it may be trusted about what was named in another incarnation. That one must have
    /// been before: an old primary, adopted long ago, knows nothing of what its successor has decided.
    pub fn replaces(self, named: &str) -> bool {
        let Some(now) = self.now.filter(|_| !self.is_promoted()) else { return false };
        let mut replaced = self.adopted.split(REPLACES).skip(1).peekable();
        replaced.peek().is_some() && (self.grows && named < now || replaced.any(|before| before == named))
    }

    /// Whether a transaction was named by a successor, of which this one knows nothing.
    pub fn is_before(self, named: &str) -> bool {
        self.grows && self.now.is_some_and(|now| now < named) && !self.replaces(named)
    }

    /// What it says as home of a transaction that was named in this incarnation, and that has no row. `forgotten`: a branch
    /// is prepared on a promoted standby, which may not have got its COMMIT, and rows as old were deleted. Any other branch
    /// that is prepared was not forgotten, since what is deleted was complete.
    pub fn absent(self, named: &str, forgotten: bool) -> HomeSays {
        let trusted = match () {
            () if self.is_before(named) => return HomeSays::Nothing,
            () if forgotten => Trust::Other,
            () if self.now == Some(named) => Trust::Same,
            () if self.replaces(named) => Trust::Adopted,
            () => Trust::Other,
        };
        HomeSays::Absent { trusted }
    }
}

/// What becomes of a branch that is prepared on a server before an operator adopts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopting {
    /// It is committed, as home has decided: the row may be deleted once this server is trusted.
    Commit,
    /// Recovery finds out.
    Leave,
    /// It may have been committed on the server before this one, and its decision be deleted since. Who trusted this server
    /// would roll it back, so an operator finishes it first.
    Refuse,
}

/// What an adoption does with a branch whose home has this row. `forgotten`: rows as old were deleted there.
pub fn adopting(row: Option<State>, forgotten: bool) -> Adopting {
    match row {
        Some(State::Committed) => Adopting::Commit,
        None if forgotten => Adopting::Refuse,
        Some(State::Aborted | State::Heuristic) | None => Adopting::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_has_adopted_is_trusted_about_what_was_before_and_not_about_what_came_after() {
        for (adopted, named, grows, trusted) in [
            // Installed, never adopted: whatever was named elsewhere came later.
            ("00000002", "00000001", true, false),
            ("00000002", "00000003", true, false),
            ("00000002<00000001", "00000001", true, true),
            ("00000002<00000001", "00000001", false, true),
            ("00000002<00000001", "00000003", true, false),
            ("00000002<00000001", "00000003", false, false),
            // It was failed over twice, and adopted after both.
            ("00000002<00000000", "00000001", true, true),
            ("00000002<00000000", "00000001", false, false),
            // Restored on a server that counts from the beginning.
            ("00000002<0000000F<00000001", "0000000F", true, true),
            ("00000002<0000000F<00000001", "00000001", false, true),
            // Failed over since.
            ("00000001<00000000", "00000000", true, false),
        ] {
            let incarnations = Incarnations { now: Some("00000002"), adopted, grows };
            assert_eq!(incarnations.replaces(named), trusted, "{adopted}, {named}, {grows}");
            let is_before = grows && named > "00000002" && !trusted;
            assert_eq!(incarnations.is_before(named), is_before, "{adopted}, {named}, {grows}");
        }
    }
}
