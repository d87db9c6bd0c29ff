//! The SQL of a probe: one psql process that goes through the databases, one JSON object a row.

use std::{collections::BTreeSet, fmt::Write as _};

use reconcile_core::probe::SqlProbe;

/// Everything that is asked of the local PostgreSQL. A standby tells only that it is one, what it
/// runs with, what `ALTER SYSTEM` set on it, and whether it streams. Verifiers of passwords stay where they are; their digests travel.
const START: &str = r"\set QUIET on
select pg_is_in_recovery() as standby \gset
select json_build_object('kind', 'server', 'standby', pg_is_in_recovery());
";

/// What takes effect only with a restart, as it is in force now.
const SETTINGS: &str = "select json_build_object('kind', 'setting', 'name', name, 'value', setting,
    'unit', coalesce(unit, ''), 'type', vartype,
    'altered', coalesce(sourcefile like '%/postgresql.auto.conf', false))
    from pg_settings where context = 'postmaster' and name in (";

const HEAD: &str = r"\if :standby
select json_build_object('kind', 'receiver', 'status', status) from pg_stat_wal_receiver;
select json_build_object('kind', 'altered', 'name', name, 'value', setting)
    from pg_file_settings where sourcefile like '%/postgresql.auto.conf' order by seqno;
\else
select json_build_object('kind', 'role', 'name', r.rolname, 'login', r.rolcanlogin,
    'superuser', r.rolsuper, 'createdb', r.rolcreatedb, 'createrole', r.rolcreaterole,
    'replication', r.rolreplication, 'inherit', r.rolinherit, 'limit', r.rolconnlimit,
    'password', encode(sha256(convert_to(r.rolpassword, 'UTF8')), 'hex'),
    'memberOf', (select coalesce(json_agg(g.rolname order by g.rolname), '[]'::json)
        from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid))
    from pg_authid r where r.rolname !~ '^pg_' order by r.rolname;
select json_build_object('kind', 'database', 'name', d.datname,
    'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding))
    from pg_database d order by d.datname;
select json_build_object('kind', 'altered', 'name', name, 'value', setting)
    from pg_file_settings where sourcefile like '%/postgresql.auto.conf' order by seqno;
select json_build_object('kind', 'archiver',
    'archivedAt', floor(extract(epoch from last_archived_time))::bigint,
    'failedAt', floor(extract(epoch from last_failed_time))::bigint)
    from pg_stat_archiver where current_setting('archive_mode') <> 'off';
select json_build_object('kind', 'probe-table', 'exists', to_regclass('reconcile.probe') is not null);
";

/// The database in which psql begins.
pub(crate) const FIRST: &str = "postgres";

/// What is asked inside one database.
const INSIDE: &str = "select json_build_object('kind', 'inside', 'name', current_database(),
    'extensions', (select coalesce(json_object_agg(extname, extversion), '{}'::json) from pg_extension),
    'schemas', (select coalesce(json_agg(nspname order by nspname), '[]'::json) from pg_namespace
        where nspname !~ '^pg_' and nspname <> 'information_schema'),
    'lookup', (select encode(sha256(convert_to(prosrc, 'UTF8')), 'hex') from pg_proc
        where oid = to_regprocedure('pgbouncer.user_lookup(text)')));
";

/// The script for psql. Databases that do not exist are passed over; one that refuses connections
/// leaves an error and no row.
pub(super) fn probe(databases: &BTreeSet<String>, settings: &BTreeSet<String>) -> String {
    let mut text = String::from(START);
    let quoted = settings.iter().map(|name| format!("'{}'", name.replace('\'', "''")));
    let quoted: Vec<String> = quoted.collect();
    if !quoted.is_empty() {
        let _infallible = writeln!(text, "{SETTINGS}{}) order by name;", quoted.join(", "));
    }
    text.push_str(HEAD);
    let names: Vec<&String> =
        databases.iter().filter(|name| !name.chars().any(char::is_control)).collect();
    for (index, name) in names.iter().enumerate().filter(|(_, name)| **name != FIRST) {
        let literal = name.replace('\'', "''");
        let _infallible = writeln!(
            text,
            "select exists (select from pg_database where datname = '{literal}' and datallowconn) \
             as db{index} \\gset"
        );
    }
    // A connection takes longer than all that is asked in it, and this one is open already.
    if names.iter().any(|name| *name == FIRST) {
        text.push_str(INSIDE);
    }
    for (index, name) in names.iter().enumerate().filter(|(_, name)| **name != FIRST) {
        // Two languages in one line: a value of a connection string in a psql argument.
        let value = name.replace('\\', r"\\").replace('\'', r"\'").replace('"', "\"\"");
        let _infallible = write!(
            text,
            "\\if :db{index}\n\\connect -reuse-previous=on \"dbname='{value}'\"\n{INSIDE}\\endif\n"
        );
    }
    text.push_str("\\endif\n");
    text
}

/// The same without databases that need a connection of their own.
pub(crate) fn first(probe: &SqlProbe) -> String {
    let first = probe.databases.get(FIRST).cloned();
    self::probe(&first.into_iter().collect(), &probe.settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_for_both_languages() {
        let text = probe(
            &BTreeSet::from([r#"a'b"c\d"#.to_owned(), "line\nbreak".to_owned()]),
            &BTreeSet::new(),
        );
        assert!(text.contains(r#"\connect -reuse-previous=on "dbname='a\'b""c\\d'""#));
        assert!(text.contains(r#"datname = 'a''b"c\d'"#));
        assert!(!text.contains("break"));
    }

    #[test]
    fn the_first_database_needs_no_connection_of_its_own() {
        let names = [FIRST, "shop"].map(str::to_owned);
        let text = probe(&BTreeSet::from(names), &BTreeSet::new());
        assert_eq!(text.matches("\\connect").count(), 1);
        assert_eq!(text.matches("'kind', 'inside'").count(), 2);
    }
}
