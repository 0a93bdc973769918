//! How decisions are closed and forgotten in the modelled world.

use super::rules::{HOME, Mistake, Role, Rules, Tombstone};
use super::server::Row;
use super::world::{How, Move, World};
use crate::two_phase::protocol::{Closing, Participant, State, closing};

/// What is asked of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Question {
    Receipt,
    Listing,
    ReceiptAgain,
}

/// The closing of a decision that somebody has read as committed and open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Look {
    at: usize,
    question: Question,
    so_far: Option<Closing>,
}

impl Look {
    fn note(&mut self, participant: Participant) {
        // What was found of those before stands for one of them.
        let before = match self.so_far {
            None | Some(Closing::Close) => Participant::Receipt,
            Some(Closing::Leave) => Participant::Unknown,
            Some(Closing::Heuristic) => Participant::Gone,
        };
        self.so_far = Some(closing([before, participant]));
        self.at += 1;
        self.question = Question::Receipt;
    }
}

impl World {
    /// The participant that is asked has failed over or restarted.
    pub(super) fn look_elsewhere(&mut self, rules: &Rules, at: usize) {
        if let Some(look) = self.closer.as_mut().filter(|look| look.at == at) {
            look.note(Participant::Unknown);
        }
        self.skip(rules);
    }

    pub(super) fn cleaning_moves(&self, rules: &Rules, moves: &mut Vec<Move>) {
        let Some(row) = self.servers[HOME].row else { return };
        if self.closer.is_some() {
            moves.push(Move::Looks(How::Well));
            if rules.unreachable {
                moves.push(Move::Looks(How::Refused));
            }
        } else if self.is_unclosed() {
            moves.push(Move::ReadsUnclosed);
        }
        if self.is_unclosed() && self.client.is_through() && !rules.has(Mistake::ReceiptsDeletedEarly) {
            moves.push(Move::ClosesOwn);
        }
        // Nothing is deleted by who can't ask all databases.
        if !rules.participants().all(|at| self.asks(rules, at)) {
            return;
        }
        let receipts = rules.participants().filter(|at| self.servers[*at].receipt);
        if self.may_forget(rules) {
            moves.extend(receipts.clone().map(Move::DeletesReceipt));
        }
        let deletable = match row.state {
            State::Committed => rules.has(Mistake::RowDeletedEarly) || self.may_forget(rules) && receipts.count() == 0,
            // It has done its work as soon as it is committed.
            State::Aborted => rules.mistake != Some(Mistake::LateRow(Tombstone::Kept)),
            State::Heuristic => false,
        };
        if deletable {
            moves.push(Move::DeletesRow);
        }
    }

    pub(super) fn clean(&mut self, rules: &Rules, happens: Move) {
        match happens {
            Move::ReadsUnclosed => self.start_look(rules),
            Move::Looks(how) => self.look(rules, how),
            Move::ClosesOwn => self.close(),
            Move::DeletesReceipt(at) => self.servers[at].receipt = false,
            _ => {
                self.servers[HOME].row = None;
                self.forgotten = true;
            }
        }
    }

    /// Home's row says committed, and is not closed.
    pub fn is_unclosed(&self) -> bool {
        self.servers[HOME].row == Some(Row { state: State::Committed, closed: false })
    }

    pub fn start_look(&mut self, rules: &Rules) {
        self.closer = Some(Look { at: HOME, question: Question::Receipt, so_far: None });
        self.skip(rules);
    }

    pub fn look(&mut self, rules: &Rules, how: How) {
        let Some(mut look) = self.closer else { return };
        if look.at == rules.roles.len() {
            self.closer = None;
            match look.so_far {
                _ if how == How::Refused => {}
                None | Some(Closing::Close) => self.close(),
                Some(Closing::Leave) => {}
                // Closed meanwhile: the receipts were deleted, and nothing is wrong.
                Some(Closing::Heuristic) if !self.is_unclosed() && !rules.has(Mistake::MarkUnasked) => {}
                Some(Closing::Heuristic) => {
                    self.servers[HOME].row = Some(Row { state: State::Heuristic, closed: false });
                    self.told = true;
                }
            }
            return;
        }
        let server = &self.servers[look.at];
        let no_listing = rules.has(Mistake::ClosedWhenNotListed);
        match look.question {
            Question::Listing if no_listing && (how == How::Refused || !server.prepared()) => {
                look.note(Participant::Receipt);
            }
            _ if how == How::Refused || !self.asks(rules, look.at) => look.note(Participant::Unknown),
            Question::Receipt | Question::ReceiptAgain if server.receipt => look.note(Participant::Receipt),
            Question::Receipt => look.question = Question::Listing,
            Question::Listing if server.prepared() => look.note(Participant::Listed),
            Question::Listing => look.question = Question::ReceiptAgain,
            Question::ReceiptAgain if server.is_forgotten() && !rules.has(Mistake::TakenAtItsWord) => {
                look.note(Participant::Held);
            }
            Question::ReceiptAgain => look.note(Participant::Gone),
        }
        self.closer = Some(look);
        self.skip(rules);
    }

    /// On to the next database that has written.
    fn skip(&mut self, rules: &Rules) {
        if let Some(look) = &mut self.closer {
            let next = rules.participants().filter(|at| rules.roles[*at] == Role::Writes).find(|at| *at >= look.at);
            look.at = next.unwrap_or(rules.roles.len());
        }
    }

    fn close(&mut self) {
        if self.is_unclosed() {
            self.servers[HOME].row = Some(Row { state: State::Committed, closed: true });
        }
    }
}
