//! Asking the server what a raw text has done, unless the text is proven harmless.
//!
//! In a scope a mark is set right before the text, which only the end of the transaction takes away, and looked for right
//! after it. Outside of any scope the server is asked whether a transaction is open.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager, TransactionManagerStatus};
use diesel::result::{DatabaseErrorKind, Error as DieselError, QueryResult};

use super::backend::Dialect;
use super::link::Link;
use super::pragma;
use super::text::{self, Effect, SessionEffect, Syntax};
use crate::error::Error;

/// What has to be asked once a text has run.
#[derive(Debug, Clone, Copy)]
#[must_use = "a question that is never asked leaves the transaction unproven"]
pub struct Question {
    /// What tells whether the transaction is still the same.
    mark: Option<u64>,
    /// Whether a transaction may be open that has no scope.
    leftover: bool,
    /// Whether an error may have come after what Diesel has read.
    late: bool,
}

/// What a text has done to the transaction of its scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// It has ended it.
    Ended,
    /// It has lifted its read-only mode, or would.
    Writable,
}

impl<B: Dialect> Link<B> {
    /// Refuses a text that certainly begins or ends a transaction, and prepares the questions about any other.
    pub fn before_text(&mut self, sql: &str) -> QueryResult<Question> {
        if sql.is_empty() && B::SYNTAX == Syntax::Mysql {
            // libmariadb takes the length 0 for an unknown one, and would read memory that is not its own. This is what the
            // server says of a text without a statement.
            let information = Box::new("Query was empty".to_owned());
            return Err(DieselError::DatabaseError(DatabaseErrorKind::Unknown, information));
        }
        let found = text::inspect(sql, B::SYNTAX);
        let inside = self.in_transaction();
        let database = self.database().clone();
        pragma::refuse_ignored::<B>(self.raw(), &database, inside, sql)?;
        let unknown = match found.effect {
            Effect::None => false,
            Effect::Unknown => true,
            Effect::Balanced(_) if !inside => true,
            Effect::Copy => return Err(Error::CopyByText { database }.into()),
            Effect::Balanced(statement) | Effect::Unbalanced(statement) => {
                return Err(Error::TransactionControl { database, statement }.into());
            }
        };
        if inside && found.may_allow_writes && self.is_read_only() {
            self.keep_read_only()?;
        }
        if found.forgets_statements {
            self.forget_statements();
        }
        self.note_unproven();
        self.doubt_session(found.session);
        let lets_through = found.is_tame && self.allows_ddl();
        if unknown && inside && lets_through {
            self.note_let_through();
        }
        let question = Question {
            mark: if unknown && inside && !lets_through { Some(self.set_mark()?) } else { None },
            leftover: unknown && !inside,
            late: found.may_fail_late,
        };
        Ok(question)
    }

    /// The questions about anything that Diesel's connection may be used for.
    pub fn before_lending(&mut self) -> QueryResult<Question> {
        let inside = self.in_transaction();
        if inside && self.is_read_only() && B::SYNTAX == Syntax::Postgres {
            self.keep_read_only()?;
        }
        Ok(Question { mark: if inside { Some(self.set_mark()?) } else { None }, leftover: !inside, late: true })
    }

    /// Asks them. An error is one that the text itself has not given.
    pub fn after_text(&mut self, question: Question, failed: bool) -> QueryResult<()> {
        let Question { mark, leftover, late } = question;
        let late = if late && !failed { self.late_error() } else { Ok(()) };
        if let Some(mark) = mark
            && !self.is_marked(mark)
        {
            self.note_end();
            return late;
        }
        if leftover && self.has_leftover() {
            late?;
            let statement = "BEGIN without an end".into();
            return Err(Error::TransactionControl { database: self.database().clone(), statement }.into());
        }
        late
    }

    /// Runs what sends a text, between its questions.
    pub fn guarded<T>(&mut self, sql: &str, send: impl FnOnce(&mut B::Raw) -> QueryResult<T>) -> QueryResult<T> {
        let inside = self.in_transaction();
        let question = self.before_text(sql)?;
        let result = send(self.raw());
        let value = self.answered(Some(question), result)?;
        if inside {
            let database = self.database().clone();
            pragma::refuse_unchanged::<B>(self.raw(), &database, sql)?;
        }
        Ok(value)
    }

    /// What a text has given, once its questions are asked. Its own error comes first.
    pub fn answered<T>(&mut self, question: Option<Question>, result: QueryResult<T>) -> QueryResult<T> {
        let Some(question) = question else { return result };
        let answer = self.after_text(question, result.is_err());
        result.and_then(|value| answer.map(|()| value))
    }

    /// Runs what sends a text as one statement. SQLite would run the first one of several, and pass over the others.
    pub fn guarded_statement<T>(
        &mut self,
        sql: &str,
        send: impl FnOnce(&mut B::Raw) -> QueryResult<T>,
    ) -> QueryResult<T> {
        Self::only_one(sql)?;
        self.guarded(sql, send)
    }

    /// Refuses several statements in one text.
    pub fn only_one(sql: &str) -> QueryResult<()> {
        if B::SYNTAX != Syntax::Sqlite {
            return Ok(());
        }
        let found = text::inspect(sql, B::SYNTAX);
        // What certainly ends a transaction has an error of its own.
        if found.has_several && !matches!(found.effect, Effect::Unbalanced(_)) {
            let information =
                "a query of several statements, of which SQLite would run the first alone; use `batch_execute`";
            return Err(DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(information.to_owned())));
        }
        Ok(())
    }

    /// Sees to it that a text can't lift the read-only mode of the open transaction, or refuses the text.
    fn keep_read_only(&mut self) -> QueryResult<()> {
        if let Some(sql) = B::KEEPS_READ_ONLY {
            return self.raw().batch_execute(sql);
        }
        self.breach = Some(Breach::Writable);
        let statement = "PRAGMA query_only".into();
        Err(Error::TransactionControl { database: self.database().clone(), statement }.into())
    }

    fn set_mark(&mut self) -> QueryResult<u64> {
        self.marks += 1;
        let number = self.marks;
        let mark = B::mark(number);
        self.raw().batch_execute(&mark)?;
        Ok(number)
    }

    /// Whether the transaction is certainly the one in which the mark was set.
    fn is_marked(&mut self, mark: u64) -> bool {
        matches!(B::is_marked(self.raw(), mark), Ok(true))
    }

    /// An error that came after the results that Diesel has read, as a procedure's may.
    fn late_error(&mut self) -> QueryResult<()> {
        match B::late_error(self.raw())? {
            Some(message) => Err(DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message))),
            None => Ok(()),
        }
    }

    /// Whether a transaction was open that no scope has. It is rolled back.
    pub fn has_leftover(&mut self) -> bool {
        let found = B::finds_leftover(self.raw());
        if found && B::SYNTAX == Syntax::Sqlite {
            // The file has no session that could be in any other state.
            self.set_outside();
        } else if found {
            self.break_off();
        }
        found
    }

    /// The transaction of the scope has ended. What has begun since is rolled back, and nothing goes on in it.
    pub(super) fn note_end(&mut self) {
        self.breach = Some(Breach::Ended);
        if !self.alive() {
            return;
        }
        if B::SYNTAX == Syntax::Sqlite {
            // It fails if nothing has begun.
            let _ = self.raw().batch_execute("ROLLBACK");
        } else {
            self.break_off();
        }
        self.set_outside();
    }

    pub(super) fn set_outside(&mut self) {
        *AnsiTransactionManager::transaction_manager_status_mut(self.raw()) = TransactionManagerStatus::default();
    }

    /// What a text has done to the scope's transaction, since it was asked last.
    #[inline]
    pub fn take_breach(&mut self) -> Option<Breach> {
        if self.breach.is_some() { self.breach.take() } else { None }
    }

    /// Takes note that the session may not be what it was when it was opened.
    pub(super) fn doubt_session(&mut self, effect: SessionEffect) {
        let effect = if effect == SessionEffect::Settings { self.compare_later() } else { effect };
        let lent = self.lent();
        lent.session = lent.session.max(effect);
    }

    /// Notes the settings of the session, to be compared once the connection goes back.
    fn compare_later(&mut self) -> SessionEffect {
        if self.settings_before.is_none() {
            self.settings_before = B::session_settings(self.raw()).ok().flatten();
        }
        if self.settings_before.is_some() { SessionEffect::Settings } else { SessionEffect::Unknown }
    }

    /// Makes the session what it was when it was opened, or proves that it is. Otherwise the pool discards the connection.
    pub fn renew_session(&mut self, effect: SessionEffect) {
        let renewed = match (effect, self.renewal()) {
            (SessionEffect::None, _) => true,
            (_, Some(renewal)) => B::detach(self.raw()).and_then(|()| self.raw().batch_execute(&renewal)).is_ok(),
            (SessionEffect::Settings, None) => {
                let found = B::release_locks(self.raw()).and_then(|()| B::session_settings(self.raw()));
                found.is_ok_and(|found| found == self.settings_before)
            }
            (SessionEffect::Unknown, None) => false,
        };
        if !renewed {
            self.break_off();
        }
    }
}
