# shellcheck shell=bash
# What happens to servers as a whole: standbys, clones, and data put back.

# base_backup FROM OPTION..: the data of the running PostgreSQL in FROM.
base_backup() {
    local from=$1
    shift
    # The folder is there already, and empty.
    as postgres "$(postgres_bin)/pg_basebackup" --pgdata="$DIR/postgres/data" --checkpoint=fast --no-sync "$@" \
        --dbname="host=$from/postgres/socket port=$(cat "$from/postgres/port") user=tester" >"$DIR/postgres/make.log" 2>&1 ||
        return 1
    # The last one counts.
    echo "unix_socket_directories = '$DIR/postgres/socket'" |
        as postgres tee -a "$DIR/postgres/data/postgresql.conf" >/dev/null
}

# A stopped server's data, copied by its user, who owns them.
copy_data() { as "$1" cp -a "$2" "$3"; }

# copy SERVER FROM [standby]: a server like the one in FROM, and from now on its standby or independent.
copy() {
    local server=$1 from=$2 home=$DIR/$1
    local -a options=()
    [[ -f $from/$server/port ]] || die "$server was never started in $from"
    [[ $from != "$DIR" ]] || die "a copy needs a folder of its own"
    [[ ${3:-} != standby ]] || options=(--write-recovery-conf)
    pids=()
    begin "$server"
    furnish_folder "$server"
    if [[ $server == postgres ]]; then
        if ! base_backup "$from" "${options[@]}"; then
            show_log "$server" "$home/make.log"
            die "$server: its data could not be copied"
        fi
    else
        "$SCRIPT" stop "$from" "$server"
        rmdir "$home/data"
        copy_data "$server" "$from/$server/data" "$home/data"
        "$SCRIPT" restart "$from" "$server"
    fi
    (launch_somewhere "$server")
    write_env
    trap - EXIT INT TERM HUP
}

promote() {
    as postgres "$(postgres_bin)/pg_ctl" promote --wait --timeout="$START_LIMIT" --pgdata="$DIR/postgres/data" \
        >>"$DIR/postgres/make.log" 2>&1 || die "postgres in $DIR could not be promoted"
}

keep() {
    stop "$1"
    rm -rf "$DIR/$1/kept"
    copy_data "$1" "$DIR/$1/data" "$DIR/$1/tmp/kept"
    mv "$DIR/$1/tmp/kept" "$DIR/$1/kept"
    launch_again "$1"
}

restore() {
    [[ -d $DIR/$1/kept ]] || die "nothing was kept of $1 in $DIR"
    stop "$1"
    rm -rf "$DIR/$1/data"
    mv "$DIR/$1/kept" "$DIR/$1/data"
    launch_again "$1"
}
