//! Bodies that take another role on PostgreSQL: what is prepared is the service's all the same.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::{Databases, Error, PgConn, Propagation, atomic, atomic_many, connection, schema};

use crate::fixture::{Kind, fresh_name, server};
use crate::postgres::across::own_rows;
use crate::postgres::*;
use crate::postgres_server::in_doubt::Far;

diesel::define_sql_function! {
    /// Takes a role, by a function that the test makes.
    fn act_as(role: Text) -> Text;
}

/// Both databases, whose rows are written by a role that may not see the library's tables.
struct World {
    fixture: Fixture,
    databases: Databases,
    role: String,
}

fn raw() -> PgConnection {
    PgConnection::establish(server(Kind::Postgres).unwrap()).unwrap()
}

/// Makes a role that may write the rows of both databases.
fn make_role(fixture: &Fixture) -> String {
    let role = fresh_name();
    raw().batch_execute(&format!("CREATE ROLE {role}")).unwrap();
    for alias in ["default", "other"] {
        let schema = fixture.urls[usize::from(alias == "other")].rsplit_once('=').unwrap().1;
        let grant = format!("GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON items TO {role}");
        let function = "CREATE FUNCTION act_as(role text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN \
                        set_config('role', role, true); END $$";
        fixture.observer(alias).batch_execute(&format!("{grant}; {function}")).unwrap();
    }
    role
}

fn world(size: u32) -> Option<World> {
    let fixture = fixture()?;
    let databases = fixture.builder(size).build().unwrap();
    schema::install(&databases).unwrap();
    let role = make_role(&fixture);
    Some(World { fixture, databases, role })
}

impl World {
    /// The rows are in both databases, and nothing is left prepared.
    fn has(&self, rows: usize, what: &str) {
        assert_eq!((self.fixture.rows("default").len(), self.fixture.rows("other").len()), (rows, rows), "{what}");
        assert_eq!(prepared(&self.fixture, "other"), 0, "{what}");
        let report = self.databases.recover().unwrap();
        assert!(report.is_clear(), "{what}: {report}");
    }
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct Role {
    #[diesel(sql_type = Text)]
    role: String,
}

fn current_role(conn: &mut PgConn) -> QueryResult<String> {
    Ok(diesel::sql_query("SELECT current_user::text AS role").get_result::<Role>(conn)?.role)
}

/// How many branches of one database are prepared.
fn prepared(fixture: &Fixture, alias: &str) -> i64 {
    let count =
        "SELECT COUNT(*) AS number FROM pg_prepared_xacts WHERE gid LIKE '%' || (SELECT database_id FROM multidb_meta)";
    diesel::sql_query(count).get_result::<Counted>(&mut fixture.observer(alias)).unwrap().number
}

/// Takes the role by a text in both databases, then puts a row into each.
fn put_both_as(id: i64, text: &str) -> Result<(), Error> {
    atomic_many::<(Item, Record)>().run(|scope| {
        scope.conn::<Item, PgConn>()?.batch_execute(text)?;
        scope.conn::<Record, PgConn>()?.batch_execute(text)?;
        put(id, 10)?;
        put_record(id, 20)
    })
}

#[test]
fn a_branch_that_a_body_has_written_as_another_role_is_committed() {
    let Some(world) = world(2) else { return };
    let _entered = world.databases.enter();
    let World { fixture, role, .. } = &world;
    let texts = [
        format!("SET LOCAL ROLE {role}"),
        format!("SET ROLE {role}"),
        format!("SET LOCAL SESSION AUTHORIZATION {role}"),
        format!("SET SESSION AUTHORIZATION {role}"),
        format!("SELECT act_as('{role}')"),
        format!("SET ROLE {role}; SET LOCAL search_path TO {}", fixture.urls[1].rsplit_once('=').unwrap().1),
    ];
    for (at, text) in texts.iter().take(5).enumerate() {
        put_both_as(i64::try_from(at).unwrap(), text).unwrap_or_else(|error| panic!("{text}: {error}"));
        world.has(at + 1, text);
        assert_eq!([own_rows(fixture, "default"), own_rows(fixture, "other")], [0, 0], "{text}: recovery has cleaned");
    }
}

#[test]
fn a_role_that_was_left_on_a_connection_prepares_nothing() {
    let Some(world) = world(1) else { return };
    let _entered = world.databases.enter();
    for (at, set) in ["SET ROLE", "SET SESSION AUTHORIZATION"].into_iter().enumerate() {
        let text = format!("{set} {}", world.role);
        connection::<Item, PgConn>().unwrap().batch_execute(&text).unwrap();
        connection::<Record, PgConn>().unwrap().batch_execute(&text).unwrap();
        let run = atomic_many::<(Item, Record)>().run(|_| {
            put(i64::try_from(at).unwrap(), 10)?;
            put_record(i64::try_from(at).unwrap(), 20)
        });
        run.unwrap_or_else(|error| panic!("{text}: {error}"));
        world.has(at + 1, &text);
    }
}

#[test]
fn a_role_that_a_function_or_a_trigger_takes_prepares_nothing() {
    let Some(world) = world(2) else { return };
    let _entered = world.databases.enter();
    let World { fixture, role, .. } = &world;
    let by_function = atomic_many::<(Item, Record)>().run(|scope| {
        put(1, 10)?;
        put_record(1, 20)?;
        let taken: String = diesel::select(act_as(role)).get_result(&mut scope.conn::<Record, PgConn>()?)?;
        assert_eq!(taken, *role);
        Ok::<_, Error>(())
    });
    by_function.unwrap();
    world.has(1, "a function");
    let trigger = format!(
        "CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET LOCAL ROLE {role}; RETURN NEW; END $$; CREATE \
         TRIGGER take AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION take(); GRANT ALL ON multidb_receipt TO {role}"
    );
    fixture.observer("other").batch_execute(&trigger).unwrap();
    let by_trigger = atomic_many::<(Item, Record)>().run(|_| {
        put(2, 10)?;
        put_record(2, 20)
    });
    by_trigger.unwrap();
    world.has(2, "a trigger");
    // Nothing but Diesel's statements was ever sent, and this role may not leave a receipt.
    let fresh = world.fixture.databases();
    let _entered = fresh.enter();
    fixture.observer("other").batch_execute(&format!("REVOKE ALL ON multidb_receipt FROM {role}")).unwrap();
    let refused = atomic_many::<(Item, Record)>().run(|_| {
        put(3, 10)?;
        put_record(3, 20)
    });
    let text = refused.unwrap_err().to_string();
    for named in ["`other`", "permission denied", "trigger"] {
        assert!(text.contains(named), "{named} is missing in: {text}");
    }
    world.has(2, "refused");
}

#[test]
fn the_users_own_statements_keep_the_role_until_the_end() {
    let Some(world) = world(1) else { return };
    let _entered = world.databases.enter();
    let role = &world.role;
    let run = atomic::<Item>().verify_commit().run(|conn: &mut PgConn| {
        conn.batch_execute(&format!("SET LOCAL ROLE {role}"))?;
        // A further database joins, which asks home what it is.
        put(1, 10)?;
        put_record(1, 20)?;
        assert_eq!(current_role(conn)?, *role);
        let key = || atomic::<Item>().label("inner").once("key").run(|_: &mut PgConn| put(2, 10));
        key()?;
        key()?;
        assert!(multidb::scope::current().is_some());
        assert_eq!(current_role(conn)?, *role);
        let read = conn.batch_execute("SELECT * FROM multidb_once");
        assert!(read.unwrap_err().to_string().contains("permission denied"));
        Err::<(), _>(Error::from(diesel::result::Error::RollbackTransaction))
    });
    assert!(run.is_err());
    let run = atomic::<Item>().verify_commit().run(|conn: &mut PgConn| {
        conn.batch_execute(&format!("SET LOCAL ROLE {role}"))?;
        put(1, 10)?;
        put_record(1, 20)?;
        atomic::<Item>().label("inner").once("key").run(|_: &mut PgConn| put(2, 10))?;
        assert_eq!(current_role(conn)?, *role);
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!((world.fixture.rows("default").len(), world.fixture.rows("other").len()), (2, 1));
    assert_eq!(prepared(&world.fixture, "other"), 0);
    let mut observer = world.fixture.observer("default");
    let asked = "SELECT COUNT(*) AS number FROM multidb_once";
    assert_eq!(diesel::sql_query(asked).get_result::<Counted>(&mut observer).unwrap().number, 1);
}

#[test]
fn a_key_and_a_proof_of_a_commit_are_written_as_the_service() {
    let Some(world) = world(1) else { return };
    let _entered = world.databases.enter();
    for (at, set) in (1..).zip(["SET LOCAL ROLE", "SET ROLE", "SET SESSION AUTHORIZATION"]) {
        let call = |id: i64| {
            atomic::<Item>().label("call").once(at).verify_commit().run(|conn: &mut PgConn| {
                conn.batch_execute(&format!("{set} {}", world.role))?;
                put(id, 10)?;
                Ok::<_, Error>(current_role(conn)?)
            })
        };
        assert_eq!(call(at).unwrap(), world.role, "{set}");
        assert_eq!(call(at + 10).unwrap(), world.role, "{set}: it is stored");
        let rows = usize::try_from(at).unwrap();
        // A repeat is proved too.
        assert_eq!((world.fixture.rows("default").len(), own_rows(&world.fixture, "default")), (rows, 2 * at), "{set}");
    }
    let keys = multidb::scope::forget_once(&world.databases, multidb::scope::ONCE_RETENTION);
    assert_eq!(keys.unwrap(), 0);
    let role = current_role(&mut connection::<Item, PgConn>().unwrap()).unwrap();
    assert_ne!(role, world.role, "a role does not stay on the connection");
}

#[test]
fn a_deferred_trigger_runs_as_the_role_of_the_body() {
    let Some(world) = world(2) else { return };
    let _entered = world.databases.enter();
    let trigger = "CREATE TABLE who (role text); GRANT INSERT ON who TO PUBLIC; CREATE FUNCTION note() RETURNS trigger LANGUAGE \
                   plpgsql AS $$ BEGIN INSERT INTO who VALUES (current_user); RETURN NULL; END $$; CREATE CONSTRAINT TRIGGER \
                   note AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()";
    for alias in ["default", "other"] {
        world.fixture.observer(alias).batch_execute(trigger).unwrap();
    }
    put_both_as(1, &format!("SET LOCAL ROLE {}", world.role)).unwrap();
    let run = atomic::<Item>().verify_commit().run(|conn: &mut PgConn| {
        conn.batch_execute(&format!("SET LOCAL ROLE {}", world.role))?;
        put(2, 10)
    });
    run.unwrap();
    for (alias, rows) in [("default", 2), ("other", 1)] {
        let asked = "SELECT role FROM who";
        let found: Vec<Role> = diesel::sql_query(asked).load(&mut world.fixture.observer(alias)).unwrap();
        assert_eq!(found.len(), rows, "{alias}");
        assert!(found.iter().all(|row| row.role == world.role), "{alias}");
    }
}

/// Both databases, reached by a user of its own that takes a role when it connects.
fn service() -> Option<(World, [String; 2])> {
    let mut fixture = fixture()?;
    let role = make_role(&fixture);
    let (user, owner) = (fresh_name(), fresh_name());
    let made = format!(
        "CREATE ROLE {owner}; CREATE ROLE {user} LOGIN PASSWORD 'secret' IN ROLE {owner}, {role}; ALTER ROLE {user} SET role \
         = {owner}; GRANT {role} TO {owner}; GRANT EXECUTE ON FUNCTION pg_control_system() TO {owner}"
    );
    raw().batch_execute(&made).unwrap();
    for alias in ["default", "other"] {
        let at = usize::from(alias == "other");
        let schema = fixture.urls[at].rsplit_once('=').unwrap().1;
        let grant = format!("GRANT ALL ON SCHEMA {schema} TO {owner}");
        fixture.observer(alias).batch_execute(&grant).unwrap();
    }
    for url in &mut fixture.urls {
        *url = url.replacen("tester:", &format!("{user}:"), 1);
    }
    let databases = fixture.builder(2).build().unwrap();
    schema::install(&databases).unwrap();
    Some((World { fixture, databases, role }, [user, owner]))
}

#[test]
fn the_role_that_a_service_is_born_with_is_taken_back() {
    let Some((world, [_, owner])) = service() else { return };
    let _entered = world.databases.enter();
    for (at, set) in ["SET LOCAL ROLE", "SET ROLE"].into_iter().enumerate() {
        let text = format!("{set} {}", world.role);
        put_both_as(i64::try_from(at).unwrap(), &text).unwrap_or_else(|error| panic!("{text}: {error}"));
        world.has(at + 1, &text);
    }
    put_both_as(5, "SET ROLE NONE").unwrap();
    world.has(3, "no role at all");
    let owners = "SELECT DISTINCT tableowner AS role FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE 'multidb%'";
    let owners: Vec<Role> = diesel::sql_query(owners).load(&mut world.fixture.observer("other")).unwrap();
    assert_eq!(owners.into_iter().map(|row| row.role).collect::<Vec<_>>(), [owner]);
}

#[test]
fn a_role_that_can_not_be_taken_back_is_told_with_its_database() {
    let Some((world, [user, owner])) = service() else { return };
    for alias in ["default", "other"] {
        let databases = world.fixture.databases();
        let _entered = databases.enter();
        let run = atomic_many::<(Item, Record)>().run(|scope| {
            // The other one is open by then.
            put(1, 10)?;
            put_record(1, 20)?;
            let mut conn =
                if alias == "default" { scope.conn::<Item, PgConn>()? } else { scope.conn::<Record, PgConn>()? };
            conn.batch_execute(&format!("SET LOCAL ROLE {}", world.role))?;
            raw().batch_execute(&format!("REVOKE {owner} FROM {user}")).unwrap();
            Ok::<_, Error>(())
        });
        let text = run.unwrap_err().to_string();
        raw().batch_execute(&format!("GRANT {owner} TO {user}")).unwrap();
        let named = format!("`{alias}`");
        for part in [&*named, "role", "requires_new"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        assert_eq!((world.fixture.rows("default").len(), prepared(&world.fixture, "other")), (0, 0));
    }
}

#[test]
fn what_other_processes_recover_they_can_finish() {
    let Some(far) = Far::new() else { return };
    let role = make_role(&far.fixture);
    far.put_both(100).result.unwrap();
    far.proxies[1].lose_once(b"COMMIT PREPARED", crate::support::proxy::Loses::Request);
    let run = {
        let _entered = far.databases.enter();
        atomic_many::<(Item, Record)>().run(|scope| {
            scope.conn::<Record, PgConn>()?.batch_execute(&format!("SET LOCAL ROLE {role}"))?;
            put(1, 10)?;
            put_record(1, 20)
        })
    };
    run.unwrap();
    assert_eq!(far.prepared(), 1);
    far.recover();
    assert_eq!(far.prepared(), 0);
    assert!(far.agree(1, "it has committed"));
}

#[test]
fn a_scope_beside_one_with_another_role_keeps_its_own() {
    let Some(world) = world(2) else { return };
    let _entered = world.databases.enter();
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        conn.batch_execute(&format!("SET LOCAL ROLE {}", world.role))?;
        put(1, 10)?;
        let apart = atomic::<Item>().propagation(Propagation::RequiresNew);
        let inner = apart.run(|conn: &mut PgConn| Ok::<_, Error>(current_role(conn)?))?;
        assert_ne!(inner, world.role);
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(world.fixture.rows("default"), [(1, 10)]);
}
