//! Roles, databases, extensions, and what poolers and the service probe need in them.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_spec::{ClusterSpec, secrets};
use serde::Serialize;

use super::{SecretValues, patroni, pgbouncer};
use crate::{
    model::{Content, sha256_hex},
    scram,
};

/// Role of the service probe.
pub const PROBE_ROLE: &str = "reconcile_probe";
/// Database of the probe's table.
pub const PROBE_DATABASE: &str = "postgres";

/// Everything inside PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredSql {
    /// Roles by name, the system's own included.
    pub roles: BTreeMap<String, DesiredRole>,
    /// Databases by name; `postgres` and `template1` are there by nature.
    pub databases: BTreeMap<String, DesiredDatabase>,
    /// Databases that get the poolers' look-up function.
    pub lookup_in: BTreeSet<String>,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "PostgreSQL's own role attributes")]
pub struct DesiredRole {
    /// May log in.
    pub login: bool,
    /// Bound by no permission.
    pub superuser: bool,
    /// May create databases.
    pub createdb: bool,
    /// May create roles.
    pub createrole: bool,
    /// May replicate.
    pub replication: bool,
    /// Inherits.
    pub inherit: bool,
    /// Most connections, -1 for no limit.
    pub connection_limit: i64,
    /// Roles that it is a member of.
    pub member_of: BTreeSet<String>,
    /// SCRAM verifier.
    pub verifier: Option<Content>,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredDatabase {
    /// Owner.
    pub owner: String,
    /// Encoding, if said.
    pub encoding: Option<String>,
    /// Locale, if said.
    pub locale: Option<String>,
    /// Template.
    pub template: String,
    /// Extensions.
    pub extensions: BTreeSet<String>,
    /// Schemas.
    pub schemas: BTreeSet<String>,
}

/// What must be inside PostgreSQL.
pub(super) fn sql(spec: &ClusterSpec, values: &SecretValues<'_>) -> DesiredSql {
    let verifier = |role: &str, secret: &str| {
        Some(Content::secret(scram::verifier(role, &values.get(secret)).expose()))
    };
    let login = |role: &str, secret: &str| DesiredRole {
        login: true,
        superuser: false,
        createdb: false,
        createrole: false,
        replication: false,
        inherit: true,
        connection_limit: -1,
        member_of: BTreeSet::new(),
        verifier: verifier(role, secret),
    };
    let mut roles = BTreeMap::from([
        (pgbouncer::AUTH_ROLE.to_owned(), login(pgbouncer::AUTH_ROLE, secrets::PGBOUNCER_AUTH)),
        (PROBE_ROLE.to_owned(), login(PROBE_ROLE, secrets::RECONCILE_PROBE)),
        (
            patroni::REPLICATION_ROLE.to_owned(),
            DesiredRole {
                replication: true,
                ..login(patroni::REPLICATION_ROLE, secrets::POSTGRES_REPLICATION)
            },
        ),
        (patroni::REWIND_ROLE.to_owned(), login(patroni::REWIND_ROLE, secrets::POSTGRES_REWIND)),
        (
            patroni::SUPERUSER.to_owned(),
            DesiredRole {
                superuser: true,
                createdb: true,
                createrole: true,
                replication: true,
                ..login(patroni::SUPERUSER, secrets::POSTGRES_SUPERUSER)
            },
        ),
    ]);
    for role in &spec.postgresql.roles {
        let desired = DesiredRole {
            login: role.login,
            superuser: role.superuser,
            createdb: role.createdb,
            createrole: role.createrole,
            replication: role.replication,
            inherit: role.inherit,
            connection_limit: role.connection_limit.map_or(-1, i64::from),
            member_of: role.member_of.iter().map(ToString::to_string).collect(),
            verifier: role
                .password
                .as_ref()
                .and_then(|secret| verifier(role.name.as_str(), secret.name.as_str())),
        };
        roles.insert(role.name.to_string(), desired);
    }
    let databases: BTreeMap<_, _> = spec
        .postgresql
        .databases
        .iter()
        .map(|database| {
            let desired = DesiredDatabase {
                owner: database.owner.to_string(),
                encoding: database.encoding.clone(),
                locale: database.locale.clone(),
                template: database.template.clone(),
                extensions: database.extensions.iter().map(ToString::to_string).collect(),
                schemas: database.schemas.iter().map(ToString::to_string).collect(),
            };
            (database.name.to_string(), desired)
        })
        .collect();
    let lookup_in = databases
        .keys()
        .cloned()
        .chain([PROBE_DATABASE.to_owned(), "template1".to_owned()])
        .collect();
    DesiredSql { roles, databases, lookup_in }
}

/// A name as an SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Text as an SQL literal.
pub fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

impl DesiredRole {
    /// Statements that make the role so, whether it exists or not.
    pub fn statements(&self, name: &str, exists: bool) -> String {
        let word = |on: bool, word: &str| if on { word.to_owned() } else { format!("NO{word}") };
        let verb = if exists { "ALTER" } else { "CREATE" };
        // Without a verifier of ours a password that somebody else set stays.
        let password = self.verifier.as_ref().map_or_else(String::new, |verifier| {
            format!(" PASSWORD {}", literal(&String::from_utf8_lossy(verifier.bytes())))
        });
        let mut sql = format!(
            "{verb} ROLE {} WITH {} {} {} {} {} {} CONNECTION LIMIT {}{password};\n",
            identifier(name),
            word(self.login, "LOGIN"),
            word(self.superuser, "SUPERUSER"),
            word(self.createdb, "CREATEDB"),
            word(self.createrole, "CREATEROLE"),
            word(self.replication, "REPLICATION"),
            word(self.inherit, "INHERIT"),
            self.connection_limit,
        );
        for group in &self.member_of {
            sql.push_str(&format!("GRANT {} TO {};\n", identifier(group), identifier(name)));
        }
        sql
    }
}

impl DesiredDatabase {
    /// The statement that creates the database.
    pub fn create(&self, name: &str) -> String {
        let mut sql = format!(
            "CREATE DATABASE {} OWNER {} TEMPLATE {}",
            identifier(name),
            identifier(&self.owner),
            identifier(&self.template)
        );
        if let Some(encoding) = &self.encoding {
            sql.push_str(&format!(" ENCODING {}", literal(encoding)));
        }
        if let Some(locale) = &self.locale {
            sql.push_str(&format!(" LOCALE {}", literal(locale)));
        }
        sql + ";\n"
    }

    /// Statements, run inside the database, that create its schemas.
    pub fn schemas(&self) -> String {
        let create = |schema: &String| {
            format!(
                "CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {};\n",
                identifier(schema),
                identifier(&self.owner)
            )
        };
        self.schemas.iter().map(create).collect()
    }
}

/// Body of the look-up function. Superusers cannot come through a pooler; an expired password
/// is none (CVE-2025-2291); the search path is fixed (CVE-2025-12819).
const LOOKUP_BODY: &str = "
SELECT usename::text, CASE WHEN valuntil < pg_catalog.now() THEN NULL ELSE passwd END
FROM pg_catalog.pg_shadow WHERE usename = i_username AND NOT usesuper
";

/// Digest of the look-up function's source, as the probe sees it.
pub fn lookup_digest() -> String {
    sha256_hex(LOOKUP_BODY.as_bytes())
}

/// Statements, run inside a database, that make the poolers' look-up function: all or nothing,
/// for a function without its grants would look finished to the next pass.
pub fn lookup_statements() -> String {
    let role = identifier(pgbouncer::AUTH_ROLE);
    let schema = identifier(pgbouncer::SCHEMA);
    format!(
        "BEGIN;
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE OR REPLACE FUNCTION {schema}.user_lookup(i_username text, OUT uname text, OUT phash text)
RETURNS record LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $reconcile${LOOKUP_BODY}$reconcile$;
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;
REVOKE ALL ON FUNCTION {schema}.user_lookup(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT EXECUTE ON FUNCTION {schema}.user_lookup(text) TO {role};
COMMIT;
"
    )
}

/// Statements that make the service probe's table: all or nothing, like those above.
pub fn probe_table_statements() -> String {
    let role = identifier(PROBE_ROLE);
    format!(
        "BEGIN;
CREATE SCHEMA IF NOT EXISTS reconcile;
CREATE TABLE IF NOT EXISTS reconcile.probe (
  node text PRIMARY KEY, token text NOT NULL, at timestamptz NOT NULL);
REVOKE ALL ON SCHEMA reconcile FROM PUBLIC;
GRANT USAGE ON SCHEMA reconcile TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON reconcile.probe TO {role};
COMMIT;
"
    )
}
