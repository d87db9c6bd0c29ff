//! Rules and defaults of PostgreSQL: version, directories, roles, databases.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rules, hba, parameters};
use crate::fault::Fault;
use crate::hints;
use crate::names::{DatabaseName, ExtensionName, RoleName, SchemaName, SecretName};
use crate::packaged;
use crate::v1alpha1;
use crate::valid::{Database, Initdb, Listen, Postgresql, Role, SecretRef};

/// Major versions that this release knows.
const VERSIONS: std::ops::RangeInclusive<u16> = 13..=17;
/// What the user's project runs.
const DEFAULT_VERSION: u16 = 15;

/// Roles of the system, for which reconcile and Patroni set passwords and permissions.
const SYSTEM_ROLES: &[&str] = &["postgres", "replicator", "rewind", "pgbouncer", "reconcile_probe"];

pub(super) fn postgresql(
    rules: &mut Rules<'_>,
    postgresql: Option<&v1alpha1::Postgresql>,
) -> Postgresql {
    let none = v1alpha1::Postgresql::default();
    let v1alpha1::Postgresql {
        version,
        package_version,
        port,
        data_dir,
        bin_dir,
        listen,
        initdb,
        parameters: own_parameters,
        hba: hba_rules,
        roles: own_roles,
        databases: own_databases,
    } = postgresql.unwrap_or(&none);
    let version = version.unwrap_or(DEFAULT_VERSION);
    if !VERSIONS.contains(&version) {
        rules.push(
            Fault::error(
                "spec.postgresql.version",
                format!("PostgreSQL {version} is not supported"),
            )
            .help(format!(
                "major versions {} to {}; {DEFAULT_VERSION} is the default",
                VERSIONS.start(),
                VERSIONS.end()
            )),
        );
    }
    let path = "spec.postgresql.packageVersion";
    let package_version = super::core::version(rules, path, package_version.as_ref());
    let major = |package: &String| {
        package.split(|c: char| !c.is_ascii_digit()).next() == Some(&version.to_string())
    };
    if let Some(package) = package_version.as_ref().filter(|package| !major(package)) {
        rules.push(
            Fault::error(path, format!("{package} is no package of PostgreSQL {version}"))
                .help("another major version needs its data to be converted; reconcile does not"),
        );
    }
    let no_initdb = v1alpha1::Initdb::default();
    let v1alpha1::Initdb { data_checksums, encoding, locale } =
        initdb.as_ref().unwrap_or(&no_initdb);
    let initdb = Initdb {
        data_checksums: data_checksums.unwrap_or(true),
        encoding: encoding.clone().unwrap_or_else(|| "UTF8".to_owned()),
        locale: locale.clone().unwrap_or_else(|| "C.UTF-8".to_owned()),
    };
    check_encoding(rules, "spec.postgresql.initdb", Some(&initdb.encoding), Some(&initdb.locale));
    let role_list = roles(rules, own_roles);
    Postgresql {
        version,
        package_version,
        port: port.unwrap_or(5432),
        data_dir: rules.directory(
            "spec.postgresql.dataDir",
            data_dir.as_ref(),
            format!("/var/lib/postgresql/{version}/main"),
        ),
        bin_dir: rules.directory(
            "spec.postgresql.binDir",
            bin_dir.as_ref(),
            format!("/usr/lib/postgresql/{version}/bin"),
        ),
        listen: match listen {
            None | Some(v1alpha1::Listen::NodeAddress) => Listen::NodeAddress,
            Some(v1alpha1::Listen::All) => Listen::All,
        },
        initdb,
        parameters: parameters::parameters(rules, version, own_parameters),
        hba: hba::rules_of(rules, hba_rules),
        databases: databases(rules, own_databases, own_roles, version),
        roles: role_list,
    }
}

fn roles(rules: &mut Rules<'_>, own: &[v1alpha1::Role]) -> Vec<Role> {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    let names: Vec<&str> = own.iter().map(|role| role.name.as_str()).collect();
    let mut out = Vec::new();
    for (index, role) in own.iter().enumerate() {
        let path = format!("spec.postgresql.roles[{index}]");
        let v1alpha1::Role {
            name,
            password,
            login,
            superuser,
            createdb,
            createrole,
            replication,
            inherit,
            connection_limit,
            member_of,
        } = role;
        if name.is_empty() {
            continue;
        }
        let name_path = format!("{path}.name");
        if let Some(first) = first.insert(name, index) {
            rules.push(
                Fault::error(&*name_path, format!("role `{name}` is there twice"))
                    .related(format!("spec.postgresql.roles[{first}].name"), "first here"),
            );
        }
        if SYSTEM_ROLES.contains(&name.as_str())
            || name.starts_with("pg_")
            || matches!(name.as_str(), "public" | "none")
        {
            rules.push(
                Fault::error(&*name_path, format!("the role name `{name}` is reserved")).help(
                    format!(
                        "reserved: {}, public, none, and all that start with pg_",
                        SYSTEM_ROLES.join(", ")
                    ),
                ),
            );
        }
        let parsed =
            rules.name(&name_path, name, RoleName::new).unwrap_or_else(RoleName::placeholder);
        let members = memberships(rules, &path, name, member_of, &names);
        out.push(Role {
            name: parsed,
            password: password.as_ref().and_then(|password| secret(rules, &path, password)),
            login: login.unwrap_or(true),
            superuser: superuser.unwrap_or(false),
            createdb: createdb.unwrap_or(false),
            createrole: createrole.unwrap_or(false),
            replication: replication.unwrap_or(false),
            inherit: inherit.unwrap_or(true),
            connection_limit: *connection_limit,
            member_of: members,
        });
    }
    cycles(rules, own);
    out
}

fn secret(
    rules: &mut Rules<'_>,
    path: &str,
    password: &v1alpha1::PasswordRef,
) -> Option<SecretRef> {
    let path = format!("{path}.password.secret");
    let name = rules.name(&path, &password.secret, SecretName::new)?;
    if let Some((_, owner)) =
        crate::secrets::SYSTEM_SECRETS.iter().find(|(system, _)| name == *system)
    {
        rules.push(
            Fault::error(path, format!("the secret `{name}` belongs to the system ({owner})"))
                .help("give the role a secret of its own"),
        );
    }
    Some(SecretRef { name })
}

fn memberships(
    rules: &mut Rules<'_>,
    path: &str,
    role: &str,
    groups: &[String],
    known: &[&str],
) -> Vec<RoleName> {
    let mut out = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, group) in groups.iter().enumerate() {
        let path = format!("{path}.memberOf[{index}]");
        let Some(name) = rules.name(&path, group, RoleName::new) else { continue };
        if !seen.insert(group) {
            rules.push(Fault::error(path, format!("`{group}` is listed twice")));
        } else if group == role {
            rules.push(Fault::error(path, format!("role `{role}` cannot be a member of itself")));
        } else if !known.contains(&group.as_str()) && !group.starts_with("pg_") {
            rules.push(unknown_role(
                path,
                group,
                known,
                &["one of PostgreSQL's own, such as pg_monitor"],
            ));
        }
        out.push(name);
    }
    out
}

fn unknown_role(path: impl Into<String>, name: &str, known: &[&str], others: &[&str]) -> Fault {
    let known: Vec<&str> = known.iter().copied().filter(|name| !name.is_empty()).collect();
    let fault = Fault::error(path, format!("`{name}` is none of `spec.postgresql.roles`"));
    if let Some(meant) = hints::nearest(name, &known) {
        return fault.help(format!("did you mean `{meant}`?"));
    }
    let choices: Vec<&str> = known.into_iter().chain(others.iter().copied()).collect();
    fault.help(format!("add the role, or take one of these: {}", hints::listed(&choices)))
}

/// Memberships that lead back to where they started; PostgreSQL refuses them.
fn cycles(rules: &mut Rules<'_>, own: &[v1alpha1::Role]) {
    let groups: BTreeMap<&str, &[String]> =
        own.iter().map(|role| (role.name.as_str(), role.member_of.as_slice())).collect();
    let mut reported: BTreeSet<&str> = BTreeSet::new();
    for (index, role) in own.iter().enumerate() {
        let start = role.name.as_str();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut open: Vec<&str> =
            role.member_of.iter().map(String::as_str).filter(|group| *group != start).collect();
        while let Some(group) = open.pop() {
            if seen.insert(group) {
                open.extend(
                    groups.get(group).copied().unwrap_or_default().iter().map(String::as_str),
                );
            }
        }
        if seen.contains(start) && !reported.contains(start) {
            reported.extend(&seen);
            rules.push(
                Fault::error(
                    format!("spec.postgresql.roles[{index}].memberOf"),
                    format!("role `{start}` would be a member of itself through its groups"),
                )
                .help("break the circle"),
            );
        }
    }
}

fn databases(
    rules: &mut Rules<'_>,
    own: &[v1alpha1::Database],
    role_list: &[v1alpha1::Role],
    version: u16,
) -> Vec<Database> {
    let known: Vec<&str> = role_list.iter().map(|role| role.name.as_str()).collect();
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    let mut out = Vec::new();
    for (index, database) in own.iter().enumerate() {
        let path = format!("spec.postgresql.databases[{index}]");
        let v1alpha1::Database { name, owner, encoding, locale, template, extensions, schemas } =
            database;
        if name.is_empty() {
            continue;
        }
        let name_path = format!("{path}.name");
        if let Some(first) = first.insert(name, index) {
            rules.push(
                Fault::error(&*name_path, format!("database `{name}` is there twice"))
                    .related(format!("spec.postgresql.databases[{first}].name"), "first here"),
            );
        }
        let reserved = match name.as_str() {
            "postgres" | "template0" | "template1" => Some("PostgreSQL makes it itself"),
            "pgbouncer" => Some("it is the name of PgBouncer's admin console"),
            _ if name.starts_with("pg_") => Some("names that start with pg_ are PostgreSQL's own"),
            _ => None,
        };
        if let Some(why) = reserved {
            rules.push(
                Fault::error(&*name_path, format!("the database name `{name}` is reserved"))
                    .help(why),
            );
        }
        let owner_path = format!("{path}.owner");
        let owner_name = owner.clone().unwrap_or_else(|| "postgres".to_owned());
        let owner = rules
            .name(&owner_path, &owner_name, RoleName::new)
            .unwrap_or_else(RoleName::placeholder);
        if owner_name != "postgres"
            && !known.contains(&owner_name.as_str())
            && !owner.as_str().is_empty()
        {
            rules.push(unknown_role(owner_path, &owner_name, &known, &["postgres"]));
        }
        check_encoding(rules, &path, encoding.as_ref(), locale.as_ref());
        for (index, extension) in extensions.iter().enumerate() {
            if let Some((message, help)) = packaged::strange_extension(version, extension)
                && !extension.is_empty()
            {
                let path = format!("{path}.extensions[{index}]");
                rules.push(Fault::warning(path, message).help(help));
            }
        }
        let default =
            if encoding.is_some() || locale.is_some() { "template0" } else { "template1" };
        out.push(Database {
            name: rules
                .name(&name_path, name, DatabaseName::new)
                .unwrap_or_else(DatabaseName::placeholder),
            owner,
            encoding: encoding.clone(),
            locale: locale.clone(),
            template: template.clone().unwrap_or_else(|| default.to_owned()),
            extensions: distinct(
                rules,
                &format!("{path}.extensions"),
                extensions,
                ExtensionName::new,
            ),
            schemas: distinct(rules, &format!("{path}.schemas"), schemas, SchemaName::new),
        });
    }
    out
}

/// An encoding that PostgreSQL has, and that goes with the locale. What is not said is as the
/// template has it.
fn check_encoding(
    rules: &mut Rules<'_>,
    path: &str,
    encoding: Option<&String>,
    locale: Option<&String>,
) {
    let Some(encoding) = encoding else { return };
    let locale = locale.map(String::as_str);
    if let Some((message, help)) = packaged::wrong_encoding(encoding, locale) {
        rules.push(Fault::error(format!("{path}.encoding"), message).help(help));
    }
}

/// A list of names without repetition.
fn distinct<T>(
    rules: &mut Rules<'_>,
    path: &str,
    texts: &[String],
    new: fn(String) -> Result<T, crate::names::NameError>,
) -> Vec<T> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if !text.is_empty() && !seen.insert(text) {
            rules.push(Fault::error(path, format!("`{text}` is listed twice")));
        } else {
            out.extend(rules.name(&path, text, new));
        }
    }
    out
}
