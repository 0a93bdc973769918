# shellcheck shell=bash
# How scripts/servers makes and starts PostgreSQL.

make_postgres() {
    local bin=$1 home=$DIR/postgres
    echo secret >"$home/password"
    chmod a+r "$home/password"
    # No sync here: only the server's own writes have to survive a kill.
    as postgres "$bin/initdb" --pgdata="$home/data" --username=tester --pwfile="$home/password" \
        --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C --no-sync --no-instructions \
        >"$home/make.log" 2>&1
    rm -f "$home/password"
    as postgres tee -a "$home/data/postgresql.conf" >/dev/null <<CONF

listen_addresses = '127.0.0.1'
unix_socket_directories = '$home/socket'
max_connections = 1000
max_prepared_transactions = 64
shared_buffers = 16MB
fsync = on
# Its workers would visit the hundreds of databases that the tests make, and a test counts
# what the server forces to disk. Nothing lives here for long.
autovacuum = off
# A killed server must leave no files in the system's shared memory.
dynamic_shared_memory_type = mmap
# The tests' proxy reads what passes.
ssl = off
timezone = 'UTC'
log_timezone = 'UTC'
log_destination = stderr
logging_collector = off
log_statement = all
log_line_prefix = '%m [%p] app=%a '
CONF
}

postgres_command() {
    COMMAND=("$(postgres_bin)/postgres" -D "$DIR/postgres/data" -p "$1")
}

postgres_answers() {
    as postgres "$(postgres_bin)/pg_isready" --quiet --host="$DIR/postgres/socket" --port="$1" \
        --username=tester --dbname=postgres --timeout=3
}

furnish_postgres() {
    as postgres "$(postgres_bin)/psql" --no-psqlrc --quiet --host="$DIR/postgres/socket" --port="$1" \
        --username=tester --dbname=postgres --set=ON_ERROR_STOP=1 --command='CREATE DATABASE test' \
        >>"$DIR/postgres/make.log" 2>&1
}
