//! Every text of an error, so that none changes unseen. `INSTA_UPDATE=always cargo test -p multidb --all-features --lib texts::`
//! writes what has changed into `snapshots/`, where a review sees it.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::alias::Alias;
use crate::error::Error;
use crate::failure::{Failure, FailureClass};
use crate::reported::named;
use crate::transaction_id::TransactionId;

/// The samples of every variant, and a match that a new variant doesn't compile with until it has some here.
macro_rules! every {
    ($type:ident: $($variant:ident => [$($sample:expr),+ $(,)?]),+ $(,)?) => {{
        #[expect(dead_code, reason = "compiled, to be exhaustive")]
        fn is_exhaustive(value: &$type) {
            match value { $($type::$variant { .. } => {})+ }
        }
        vec![$((stringify!($variant), vec![$($sample),+])),+]
    }};
}

fn alias(name: &'static str) -> Alias {
    Alias::from(name)
}

fn both() -> Vec<Alias> {
    vec![alias("bank"), alias("ledger")]
}

const OUTER: &str = "`pay_all` (src/pay.rs:10)";
const PLACE: (&str, &str, u32) = ("pay", "src/pay.rs", 20);

fn doomed(class: FailureClass, refused: u32) -> Error {
    let (function, file, line) = PLACE;
    Error::Doomed {
        first: Arc::new(Failure::new(class, "what the database said").on(&alias("bank"))),
        function,
        file,
        line,
        refused,
    }
}

fn refused() -> DieselError {
    DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, Box::new("what the database said".to_owned()))
}

fn id() -> TransactionId {
    "4f9c2e00000040008000000000000001".parse().expect("an id")
}

fn samples() -> Vec<(&'static str, Vec<Error>)> {
    let (function, file, line) = PLACE;
    let (problem, remedy) = ("what is wrong", "what to do");
    let (outer, asked) = (OUTER.to_owned(), "`pay` (src/pay.rs:20) for model `Account` of app `bank`".to_owned());
    let config = |at: Option<&'static str>, key: Option<&str>| Error::Config {
        alias: at.map(alias),
        key: key.map(str::to_owned),
        problem: problem.into(),
        remedy: remedy.into(),
    };
    every! { Error:
        UnknownDatabase => [Error::UnknownDatabase { alias: alias("bnak"), asked: asked.clone(), remedy: remedy.into() }],
        WrongBackend => [Error::WrongBackend {
            database: alias("bank"),
            actual: "PostgreSQL",
            handle: "SqliteConn",
            fitting: "PgConn",
            asked: asked.clone(),
        }],
        RouteRefused => [Error::RouteRefused {
            router: "app::ByTenant",
            subject: "model `Account` of app `bank`".into(),
            reason: "the tenant is missing".into(),
        }],
        RouteChanged => [Error::RouteChanged {
            subject: "model `Account` of app `bank`".into(),
            was: alias("bank"),
            now: alias("ledger"),
            outer: outer.clone(),
        }],
        Config => [config(None, None), config(Some("bank"), None), config(Some("bank"), Some("url")), config(None, Some("key"))],
        Pool => [Error::Pool { database: alias("bank"), problem: problem.into() }],
        PoolExhausted => [Error::PoolExhausted {
            database: alias("bank"),
            size: 10,
            waited: Duration::from_secs(2),
            holders: "`pay` (src/pay.rs:20) in thread `worker 1`".into(),
            remedy,
        }],
        Busy => [Error::Busy { database: alias("bank"), reason: "what it is in the middle of; what to do" }],
        Closed => [Error::Closed { database: alias("bank") }],
        NoScope => [Error::no_scope("`set_rollback`")],
        AlreadyEnded => [
            Error::AlreadyEnded { what: "savepoint `before_fees`".into() },
            Error::AlreadyEnded { what: "this level of a transaction".into() },
        ],
        Durable => [Error::Durable { function, outer: outer.clone() }],
        Mandatory => [Error::Mandatory { function }],
        Never => [Error::Never { function, outer: outer.clone() }],
        Doomed => [doomed(FailureClass::Other, 0), doomed(FailureClass::Other, 1), doomed(FailureClass::Other, 2)],
        NotAtomic => [Error::NotAtomic { databases: both(), reason: "the reason".into(), remedies: remedy.into() }],
        NotPreparable => [Error::NotPreparable { database: alias("bank"), problem: problem.into(), remedy: remedy.into() }],
        OtherDatabase => [Error::OtherDatabase {
            what: "table `entries`".into(),
            database: alias("bank"),
            other: alias("ledger"),
            remedy: remedy.into(),
        }],
        OptionConflict => [Error::OptionConflict { outer: outer.clone(), inner: "`timeout` of `pay`".into(), remedy }],
        Unsupported => [Error::Unsupported {
            asked: asked.clone(),
            option: "deferrable",
            database: alias("bank"),
            backend: "SQLite",
            remedy,
        }],
        ReadOnly => [Error::ReadOnly { database: alias("bank"), function, file, line }],
        OnceMismatch => [Error::OnceMismatch { key: "42".into(), function: function.into(), problem: "was taken away while the scope ran".into() }],
        RelationRefused => [
            Error::RelationRefused { a: "Account", b: "Entry", databases: both(), router: Some("app::ByApp") },
            Error::RelationRefused { a: "Account", b: "Entry", databases: both(), router: None },
        ],
        Migration => [Error::Migration { database: alias("bank"), problem: problem.into() }],
        PartialCommit => [Error::PartialCommit { committed: vec![alias("bank")], failed: vec![alias("ledger")] }],
        OutcomeUnknown => [
            Error::OutcomeUnknown { id: id(), databases: both() },
            Error::OutcomeUnknown { id: id(), databases: vec![alias("bank")] },
            Error::OutcomeUnknown { id: id(), databases: Vec::new() },
        ],
        ImplicitCommit => [
            Error::implicit_commit(alias("bank")),
            Error::ImplicitCommit { database: alias("bank"), failing: Some("OnPurpose".into()) },
        ],
        TransactionControl => [Error::TransactionControl { database: alias("bank"), statement: "COMMIT".into() }],
        NotManual => [Error::NotManual { asked: "`commit`", function, file, line }],
        PendingWork => [Error::PendingWork { function, file, line, statements: 3 }],
        HookFailed => [
            Error::HookFailed { function, file, line, problem: problem.into(), committed: true },
            Error::HookFailed { function, file, line, problem: problem.into(), committed: false },
        ],
        IneffectivePragma => [Error::IneffectivePragma { database: alias("bank"), pragma: "foreign_keys", remedy }],
        CopyByText => [Error::CopyByText { database: alias("bank") }],
        LimitExceeded => [Error::LimitExceeded { what: "levels of one transaction", limit: 1_000 }],
        Query => [
            Error::Query(named(refused(), &alias("bank"))),
            Error::Query(refused()),
            Error::Query(DieselError::NotFound),
        ],
    }
}

/// The texts below their titles.
fn listed(titled: Vec<(&'static str, Vec<String>)>) -> String {
    let mut list = String::new();
    for (title, texts) in titled {
        writeln!(list, "{title}").expect("a String takes everything");
        for text in texts {
            writeln!(list, "    {text}").expect("a String takes everything");
        }
    }
    list
}

#[test]
fn the_text_of_every_error_is_the_one_that_was_reviewed() {
    let texts = |errors: Vec<Error>| errors.iter().map(ToString::to_string).collect();
    let all = samples().into_iter().map(|(variant, errors)| (variant, texts(errors))).collect();
    insta::assert_snapshot!("errors", listed(all));
}

#[test]
fn the_remedy_of_every_class_of_failure_is_the_one_that_was_reviewed() {
    let all = every! { FailureClass:
        Serialization => [FailureClass::Serialization],
        Deadlock => [FailureClass::Deadlock],
        LockTimeout => [FailureClass::LockTimeout],
        Locked => [FailureClass::Locked],
        NotConnected => [FailureClass::NotConnected],
        NotCommitted => [FailureClass::NotCommitted],
        ConnectionLost => [FailureClass::ConnectionLost],
        Timeout => [FailureClass::Timeout],
        Constraint => [FailureClass::Constraint],
        Other => [FailureClass::Other],
    };
    let texts = |classes: Vec<FailureClass>| classes.iter().map(|class| doomed(*class, 0).to_string()).collect();
    let all = all.into_iter().map(|(class, classes)| (class, texts(classes))).collect();
    insta::assert_snapshot!("failures", listed(all));
}

/// What the library writes into the errors above.
#[cfg(all(feature = "postgres", feature = "mysql", feature = "testing"))]
#[test]
fn the_remedies_that_depend_on_what_happened_are_those_that_were_reviewed() {
    use crate::connection::backend::Dialect;
    use crate::connection::characteristics::{Characteristics, Isolation, Limits, Lock};
    use crate::connection::own::explained;
    use crate::databases::{instead_of, kind_of};

    let plain = Characteristics::PLAIN;
    let time = |seconds| Limits { timeout: Some(Duration::from_secs(seconds)), ..Limits::NONE };
    let read_only = Limits { read_only: true, ..Limits::NONE };
    let conflicts = [
        (plain, Characteristics { isolation: Some(Isolation::Serializable), ..plain }),
        (
            Characteristics { isolation: Some(Isolation::RepeatableRead), ..plain },
            Characteristics { isolation: Some(Isolation::Serializable), ..plain },
        ),
        (plain, Characteristics { deferrable: true, ..plain }),
        (plain, Characteristics { lock: Lock::Exclusive, ..plain }),
        (Characteristics { limits: read_only, ..plain }, plain),
        (Characteristics { limits: time(5), ..plain }, Characteristics { limits: time(6), ..plain }),
    ];
    let conflicts = conflicts.into_iter().map(|(outer, inner)| {
        let found = outer.conflict(outer.limits, &inner).expect("they contradict each other");
        format!("{} in {}: {}", found.inner, found.outer, found.remedy())
    });
    let unprepared = [
        "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY",
        "cannot PREPARE a transaction that has operated on temporary objects",
        "cannot PREPARE a transaction that has exported snapshots",
        "cannot PREPARE a transaction that has created a cursor WITH HOLD",
        "cannot PREPARE while holding both session-level and transaction-level locks on the same object",
        "cannot PREPARE a transaction that modified relation mapping",
        "PREPARE kann nicht f\u{fc}r eine Transaktion ausgef\u{fc}hrt werden, die tempor\u{e4}re Objekte bearbeitet hat",
        "prepared transactions are disabled",
        "maximum number of prepared transactions reached",
        "an exception of a trigger",
    ];
    let unprepared = unprepared.map(|text| format!("{text}: {:?}", crate::Postgres::not_prepared(text)));
    let in_branch = [
        "XAER_RMFAIL: The command cannot be executed when global transaction is in the  ACTIVE state",
        "XAER_RMFAIL: Der DDL-Befehl kann nicht ausgef\u{fc}hrt werden, wenn die globale Transaktion im Zustand ACTIVE ist",
        "XAER_RMFAIL: The command cannot be executed when global transaction is in the  IDLE state",
        "XA: Temporary tables cannot be accessed inside XA transactions when xa_detach_on_prepare=ON.",
        "an exception of a trigger",
    ];
    let in_branch = in_branch.map(|text| format!("{text}: {:?}", crate::Mysql::not_in_branch(text)));
    let own = [
        "relation \"bank.multidb_once\" does not exist",
        "Table 'bank.multidb_once' doesn't exist",
        "no such table: main.multidb_once",
        "permission denied for schema bank",
        "permission denied for table multidb_once",
        "INSERT, SELECT command denied to user 'x'@'localhost' for table `bank`.`multidb_once`",
        "cannot execute INSERT in a read-only transaction",
        "The MariaDB server is running with the --read-only option so it cannot execute this statement",
        "attempt to write a readonly database",
        "savepoint \"multidb_1\" does not exist",
        "SAVEPOINT multidb_0 does not exist",
        "an exception of a trigger",
    ];
    let own = own.map(|text| {
        let error = DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text.to_owned()));
        explained(Error::Query(error), &alias("bank")).to_string()
    });
    let urls = [
        "jdbc:postgresql://h/d",
        "jdbc:mariadb://h/d",
        "jdbc:sqlite:a.db",
        "r2dbc:mysql://h/d",
        "postgresql+psycopg2://h/d",
        "pgsql:host=h",
        "postgres:/h/d",
        "mysql2://h/d",
        "mysql:h/d",
        "sqlite3:a.db",
        "oracle://h/d",
        "me:password@h/d",
    ];
    let urls = urls.map(|url| format!("{url}: {}; {}", kind_of(url).expect_err("refused"), instead_of(url)));
    let all = vec![
        ("options that contradict each other", conflicts.collect()),
        ("what PostgreSQL does not prepare", unprepared.to_vec()),
        ("what MySQL and MariaDB refuse in a branch", in_branch.to_vec()),
        ("statements on the library's own tables", own.to_vec()),
        ("URLs", urls.to_vec()),
        ("a pool of a test", vec![crate::connection::rehearsal::SHARED.to_owned()]),
    ];
    insta::assert_snapshot!("remedies", listed(all));
}
