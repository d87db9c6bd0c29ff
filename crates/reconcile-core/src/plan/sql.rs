//! Roles, databases, extensions and helpers inside PostgreSQL: created and altered, never dropped.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    HoldReason, Impact, Verb,
    draft::{Draft, Drafts, View},
};
use crate::{
    action::{Action, HostAction},
    desired::{
        patroni::{self, SOCKET_DIR},
        pgbouncer,
        postgresql::{self, DesiredDatabase, DesiredRole, PROBE_DATABASE, PROBE_ROLE, identifier},
    },
    model::{
        Content, DatabaseFact, HostName, ObjectId, Observation, PatroniRole, RoleFact, SqlFacts,
        sha256_hex,
    },
};

/// Roles that Patroni's bootstrap makes.
pub(super) const INITIAL_ROLES: [&str; 3] =
    [patroni::SUPERUSER, patroni::REPLICATION_ROLE, patroni::REWIND_ROLE];

/// Patroni's own, where an older copy of a standby left them.
const STANDBY: [&str; 3] = ["primary_conninfo", "primary_slot_name", "recovery_target_timeline"];

/// Where statements run and what is there.
struct Target<'a> {
    host: &'a HostName,
    port: u16,
    facts: SqlFacts,
    /// The database is yet to be initialised.
    fresh: bool,
}

/// Plans everything inside PostgreSQL.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    let Some(target) = target(view, drafts) else { return };
    let sql = &view.desired.sql;
    for (name, role) in &sql.roles {
        // Patroni makes these when it initialises the database; after that they are kept here,
        // so that a new password reaches the catalogue before the replicas use it.
        if target.fresh && INITIAL_ROLES.contains(&name.as_str()) {
            continue;
        }
        plan_role(view, &target, name, role, drafts);
    }
    for (name, database) in &sql.databases {
        plan_database(&target, name, database, drafts);
    }
    for (name, value) in &target.facts.altered {
        reset(&target, name, value, drafts);
    }
    for (replica, altered) in replicas(view, target.host) {
        for (name, value) in altered {
            reset(&replica, name, value, drafts);
        }
    }
    let digest = postgresql::lookup_digest();
    for database in &sql.lookup_in {
        let fact = target.facts.databases.get(database);
        if fact.and_then(|fact| fact.pooler_lookup.as_ref()) == Some(&digest) {
            continue;
        }
        let draft = statement(
            &target,
            ObjectId::PoolerLookup(database.clone()),
            database,
            postgresql::lookup_statements(),
            "the poolers' look-up function is missing or differs",
        );
        drafts.step(draft.needs([
            ObjectId::Database(database.clone()),
            ObjectId::Role(pgbouncer::AUTH_ROLE.to_owned()),
        ]));
    }
    if !target.facts.probe_table {
        let draft = statement(
            &target,
            ObjectId::ProbeTable,
            PROBE_DATABASE,
            postgresql::probe_table_statements(),
            "the service probe's table is missing",
        );
        drafts.step(draft.needs([
            ObjectId::Role(PROBE_ROLE.to_owned()),
            ObjectId::PoolerLookup(PROBE_DATABASE.to_owned()),
        ]));
    }
}

/// What each replica has set by `ALTER SYSTEM`: it takes effect there with a restart, or when that one is the
/// primary.
fn replicas<'a>(
    view: &View<'a>,
    primary: &'a HostName,
) -> Vec<(Target<'a>, &'a BTreeMap<String, String>)> {
    let members = view.desired.patroni.members.iter();
    let replicas = members.filter(|(host, _)| *host != primary && !view.leaves(host));
    replicas
        .filter_map(|(host, member)| {
            let facts = view.host(host)?;
            // It is asked for in the same session: what was not told as a whole is left alone.
            facts.sql.known()?;
            let fact =
                facts.patroni.present().filter(|fact| super::patroni::ours(view, facts, fact))?;
            let runs = fact.role == PatroniRole::Replica
                && matches!(&*fact.state, "running" | "streaming");
            let target = Target {
                host,
                port: member.postgresql_port,
                facts: SqlFacts::default(),
                fresh: false,
            };
            runs.then_some((target, &fact.altered))
        })
        .collect()
}

/// Takes a parameter out of a server's `postgresql.auto.conf`.
fn reset(target: &Target<'_>, name: &str, value: &str, drafts: &mut Drafts) {
    if STANDBY.contains(&name) {
        return;
    }
    let statements =
        format!("ALTER SYSTEM RESET {};\nSELECT pg_reload_conf();\n", identifier(name));
    let reason = "set by ALTER SYSTEM, which overrides the file";
    let object = ObjectId::AlterSystem(target.host.clone(), name.to_owned());
    let mut draft = statement(target, object, PROBE_DATABASE, statements, reason)
        .impact(Impact::Reload)
        .change("value", Some(value.to_owned()), None);
    draft.verb = Verb::Update;
    drafts.step(draft);
}

fn target<'a>(view: &View<'a>, drafts: &mut Drafts) -> Option<Target<'a>> {
    let patroni = &view.desired.patroni;
    let cluster = super::patroni::cluster(view);
    if let Some((host, _)) = cluster.primary {
        let port = patroni.members.get(host)?.postgresql_port;
        return match &view.host(host)?.sql {
            Observation::Known(Some(facts)) => {
                Some(Target { host, port, facts: facts.clone(), fresh: false })
            }
            Observation::Known(None) => {
                let reason = format!("{host} says that it is the primary, its PostgreSQL does not");
                drafts.hold(ObjectId::ProbeTable, HoldReason::Unknown(reason));
                None
            }
            Observation::Unknown { reason } => {
                drafts.hold(ObjectId::ProbeTable, HoldReason::Unknown(reason.clone()));
                None
            }
        };
    }
    let host = patroni.bootstrap.as_ref().filter(|_| cluster.fresh)?;
    let port = patroni.members.get(host)?.postgresql_port;
    Some(Target { host, port, facts: SqlFacts::default(), fresh: true })
}

fn statement(
    target: &Target<'_>,
    object: ObjectId,
    database: &str,
    sql: String,
    reason: &str,
) -> Draft {
    let action = HostAction::Sql {
        socket_dir: SOCKET_DIR.to_owned(),
        port: target.port,
        database: database.to_owned(),
        sql: Content::secret(sql),
    };
    Draft::new(object, Verb::Create, reason, 60, Action::Host(target.host.clone(), action))
        .needs([ObjectId::PatroniMember(target.host.clone())])
}

/// Where a role's password stands besides the database: what has to change along with it, and the
/// servers that have to be known for that.
fn users(view: &View<'_>, role: &str) -> BTreeSet<ObjectId> {
    let swarm = &view.desired.swarm;
    if role == pgbouncer::AUTH_ROLE {
        let nodes = swarm.nodes.iter().flat_map(|(host, _)| {
            [ObjectId::Host(host.clone()), ObjectId::SwarmNode(host.clone())]
        });
        let poolers = swarm.services.iter().filter(|service| !service.secrets.is_empty());
        let secrets = swarm.secrets.iter().map(|secret| ObjectId::Secret(secret.name.clone()));
        return nodes
            .chain(poolers.map(|service| ObjectId::Service(service.name.clone())))
            .chain(secrets)
            .chain([ObjectId::Swarm])
            .collect();
    }
    if INITIAL_ROLES.contains(&role) {
        let members = view.desired.patroni.members.keys();
        return members
            .flat_map(|host| {
                let file = ObjectId::File(host.clone(), patroni::CONFIG.to_owned());
                [ObjectId::Host(host.clone()), file]
            })
            .collect();
    }
    BTreeSet::new()
}

fn plan_role(
    view: &View<'_>,
    target: &Target<'_>,
    name: &str,
    role: &DesiredRole,
    drafts: &mut Drafts,
) {
    let fact = target.facts.roles.get(name);
    let changes = role_changes(role, fact);
    if fact.is_some() && changes.is_empty() {
        return;
    }
    let reason = if fact.is_some() { "it differs" } else { "it does not exist" };
    let mut draft = statement(
        target,
        ObjectId::Role(name.to_owned()),
        PROBE_DATABASE,
        role.statements(name, fact.is_some()),
        reason,
    )
    .needs(role.member_of.iter().map(|group| ObjectId::Role(group.clone())));
    if fact.is_some() {
        draft.verb = Verb::Update;
        if changes.iter().any(|(field, ..)| *field == "password") {
            draft.together = users(view, name);
        }
    }
    for (field, from, to) in changes {
        draft = draft.change(field, from, Some(to));
    }
    drafts.step(draft);
}

/// Field by field; destructured without `..`, so that no new attribute is forgotten.
fn role_changes(
    role: &DesiredRole,
    fact: Option<&RoleFact>,
) -> Vec<(&'static str, Option<String>, String)> {
    let DesiredRole {
        login,
        superuser,
        createdb,
        createrole,
        replication,
        inherit,
        connection_limit,
        member_of,
        verifier,
    } = role;
    let mut changes = Vec::new();
    let mut compare = |field, from: Option<String>, to: String| {
        if from.as_ref() != Some(&to) {
            changes.push((field, from, to));
        }
    };
    compare("login", fact.map(|fact| fact.login.to_string()), login.to_string());
    compare("superuser", fact.map(|fact| fact.superuser.to_string()), superuser.to_string());
    compare("createdb", fact.map(|fact| fact.createdb.to_string()), createdb.to_string());
    compare("createrole", fact.map(|fact| fact.createrole.to_string()), createrole.to_string());
    compare("replication", fact.map(|fact| fact.replication.to_string()), replication.to_string());
    compare("inherit", fact.map(|fact| fact.inherit.to_string()), inherit.to_string());
    compare(
        "connection limit",
        fact.map(|fact| fact.connection_limit.to_string()),
        connection_limit.to_string(),
    );
    // Memberships beyond the desired ones were granted by somebody else and stay.
    let missing: BTreeSet<_> = member_of
        .iter()
        .filter(|group| fact.is_none_or(|fact| !fact.member_of.contains(*group)))
        .collect();
    for group in missing {
        compare("member of", None, group.clone());
    }
    let short = |digest: &str| format!("verifier sha256:{}", &digest[..digest.len().min(12)]);
    if let Some(verifier) = verifier {
        compare(
            "password",
            fact.and_then(|fact| fact.password_digest.as_deref()).map(short),
            short(&sha256_hex(verifier.bytes())),
        );
    }
    changes
}

fn plan_database(target: &Target<'_>, name: &str, database: &DesiredDatabase, drafts: &mut Drafts) {
    let object = ObjectId::Database(name.to_owned());
    let fact = target.facts.databases.get(name);
    let owner = ObjectId::Role(database.owner.clone());
    match fact {
        None => {
            let create = database.create(name);
            let draft =
                statement(target, object.clone(), PROBE_DATABASE, create, "it does not exist")
                    .change("owner", None, Some(database.owner.clone()))
                    // A template that somebody is connected to cannot be copied.
                    .needs([owner, ObjectId::PoolerLookup("template1".to_owned())]);
            drafts.step(draft);
        }
        Some(fact) if fact.owner != database.owner => {
            let sql = format!(
                "ALTER DATABASE {} OWNER TO {};\n",
                identifier(name),
                identifier(&database.owner)
            );
            let mut draft =
                statement(target, object.clone(), PROBE_DATABASE, sql, "its owner differs")
                    .change("owner", Some(fact.owner.clone()), Some(database.owner.clone()))
                    .needs([owner]);
            draft.verb = Verb::Update;
            drafts.step(draft);
        }
        Some(_) => {}
    }
    if let (Some(wanted), Some(fact)) = (&database.encoding, fact)
        && !fact.encoding.eq_ignore_ascii_case(wanted)
    {
        let reason = format!("its encoding is {}, which cannot be changed", fact.encoding);
        drafts.hold(object.clone(), HoldReason::Impossible(reason));
        return;
    }
    plan_inside(target, name, database, fact, drafts);
}

/// Extensions and schemas.
fn plan_inside(
    target: &Target<'_>,
    name: &str,
    database: &DesiredDatabase,
    fact: Option<&DatabaseFact>,
    drafts: &mut Drafts,
) {
    let object = ObjectId::Database(name.to_owned());
    if fact.is_some_and(|fact| fact.extensions.is_none()) && !target.fresh {
        let reason = "it could not be looked into".to_owned();
        drafts.hold(object, HoldReason::Unknown(reason));
        return;
    }
    let there = fact.and_then(|fact| fact.extensions.as_ref());
    for extension in &database.extensions {
        if there.is_some_and(|there| there.contains_key(extension)) {
            continue;
        }
        let sql = format!("CREATE EXTENSION IF NOT EXISTS {};\n", identifier(extension));
        let draft = statement(
            target,
            ObjectId::Extension(name.to_owned(), extension.clone()),
            name,
            sql,
            "it does not exist",
        );
        drafts.step(draft.needs([object.clone()]));
    }
    let there = fact.and_then(|fact| fact.schemas.as_ref());
    let missing: Vec<_> = database
        .schemas
        .iter()
        .filter(|schema| there.is_none_or(|there| !there.contains(*schema)))
        .cloned()
        .collect();
    if !missing.is_empty() {
        let draft = statement(
            target,
            ObjectId::Extension(name.to_owned(), "schemas".to_owned()),
            name,
            database.schemas(),
            "schemas are missing",
        )
        .change("schemas", None, Some(missing.join(", ")));
        drafts.step(draft.needs([object]));
    }
}
