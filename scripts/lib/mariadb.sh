# shellcheck shell=bash
# How scripts/servers makes and starts MariaDB.

make_mariadb() {
    local home=$DIR/mariadb
    # A server that starts deletes what others have left in the folder for temporary files.
    as mariadb env "TMPDIR=$home/tmp" "$(mariadb_program mariadb-install-db)" --no-defaults --datadir="$home/data" \
        --auth-root-authentication-method=socket --auth-root-socket-user="$(user_of mariadb)" \
        --skip-test-db --innodb-log-file-size=16M >"$home/make.log" 2>&1
}

mariadb_command() {
    local home=$DIR/mariadb
    COMMAND=(
        "$(mariadb_program mariadbd)" --no-defaults
        --datadir="$home/data" --tmpdir="$home/tmp" --pid-file="$home/server.pid"
        --socket="$home/socket/s" --bind-address=127.0.0.1 --port="$1"
        --skip-name-resolve --max-connections=1000
        --default-storage-engine=InnoDB --innodb-buffer-pool-size=32M --innodb-log-file-size=16M
        --skip-log-bin --skip-ssl
        --character-set-server=utf8mb4 --collation-server=utf8mb4_general_ci --default-time-zone=+00:00
        --general-log --general-log-file="$home/statements.log"
    )
}

mariadb_answers() {
    # `ping` succeeds as soon as the server answers, even with "access denied".
    as mariadb "$(mariadb_program mariadb-admin)" --no-defaults --connect-timeout=3 \
        --socket="$DIR/mariadb/socket/s" ping >/dev/null 2>&1
}

furnish_mariadb() {
    as mariadb "$(mariadb_program mariadb)" --no-defaults --socket="$DIR/mariadb/socket/s" \
        >>"$DIR/mariadb/make.log" 2>&1 <<'SQL'
CREATE DATABASE IF NOT EXISTS test;
CREATE USER tester@'%' IDENTIFIED BY 'secret';
GRANT ALL PRIVILEGES ON *.* TO tester@'%' WITH GRANT OPTION;
SQL
}
