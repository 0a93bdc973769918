//! PostgreSQL that says something else than it is: what the library calls is replaced, in one database.

use crate::places::Places;

/// Replaces a function of the system's, which is `real_..` then, or a view.
pub(crate) fn fake(places: &Places, at: usize, name: &str, made: &str) {
    let is = if name.ends_with(')') { "FUNCTION" } else { "VIEW" };
    let plain = name.split('(').next().unwrap();
    let rename = format!("SET allow_system_table_mods = on; ALTER {is} pg_catalog.{name} RENAME TO real_{plain}");
    places.execute(at, &format!("{rename}; CREATE {is} pg_catalog.{name} {made}"));
}

/// Takes that back.
pub(crate) fn restore(places: &Places, at: usize, name: &str) {
    let is = if name.ends_with(')') { "FUNCTION" } else { "VIEW" };
    let plain = name.split('(').next().unwrap();
    let drop = format!("SET allow_system_table_mods = on; DROP {is} pg_catalog.{name}");
    places.execute(at, &format!("{drop}; ALTER {is} pg_catalog.real_{name} RENAME TO {plain}"));
}

/// What says that there are standbys to wait for.
pub(crate) const HAS_STANDBYS: &str = "RETURNS text LANGUAGE sql AS $$ SELECT CASE $1 WHEN 'synchronous_standby_names' THEN 'one' ELSE \
                            pg_catalog.real_current_setting($1) END $$";
