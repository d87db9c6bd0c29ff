//! The statements that reconcile runs, recognised one by one and applied to a database.
//!
//! A statement that is not recognised is an error: the model must grow with what is generated.

use std::collections::BTreeSet;

use reconcile_core::model::{DatabaseFact, RoleFact, sha256_hex};

use crate::Database;

/// Applies a script inside `database`, stopping at the first error. Returns the objects changed,
/// and the error, if there was one. `cut` leaves the last statement out. A transaction that does
/// not come to its end leaves no trace.
pub(crate) fn run(
    cluster: &mut Database,
    available: &[String],
    database: &str,
    script: &str,
    cut: bool,
) -> (Vec<String>, Result<(), String>) {
    let mut changed = Vec::new();
    if !cluster.sql.databases.contains_key(database) {
        return (changed, Err(format!("database \"{database}\" does not exist")));
    }
    let mut statements = statements(script);
    if cut {
        statements.pop();
    }
    let mut begun = None;
    let mut result = Ok(());
    for statement in statements {
        match statement.as_str() {
            "BEGIN" => begun = Some((cluster.clone(), changed.clone())),
            "COMMIT" => begun = None,
            statement => match apply(cluster, available, database, statement) {
                Ok(object) => changed.extend(object),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            },
        }
    }
    if let Some(before) = begun {
        (*cluster, changed) = before;
    }
    (changed, result)
}

/// Splits at semicolons outside quotes and dollar quotes.
fn statements(script: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut text = String::new();
    let (mut quote, mut body) = (None::<char>, false);
    let mut rest = script;
    while let Some(letter) = rest.chars().next() {
        if quote.is_none() && rest.starts_with("$reconcile$") {
            body = !body;
            text.push_str("$reconcile$");
            rest = &rest["$reconcile$".len()..];
            continue;
        }
        rest = &rest[letter.len_utf8()..];
        match (quote, letter) {
            (None, ';') if !body => {
                out.push(std::mem::take(&mut text).trim().to_owned());
                continue;
            }
            (None, '\'' | '"') if !body => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
        text.push(letter);
    }
    if !text.trim().is_empty() {
        out.push(text.trim().to_owned());
    }
    out
}

/// A quoted identifier or a plain word at the front, and what follows it.
fn name(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    if let Some(quoted) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut letters = quoted.char_indices().peekable();
        while let Some((index, letter)) = letters.next() {
            match letter {
                '"' if letters.peek().is_some_and(|(_, next)| *next == '"') => {
                    letters.next();
                    value.push('"');
                }
                '"' => return Some((value, &quoted[index + 1..])),
                other => value.push(other),
            }
        }
        return None;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

/// The literal at the front.
fn literal(text: &str) -> Option<String> {
    let text = text.trim_start();
    let inner = text.strip_prefix("E'").or_else(|| text.strip_prefix('\''))?;
    Some(
        inner
            .replace("''", "\u{1}")
            .split('\'')
            .next()?
            .replace('\u{1}', "'")
            .replace("\\\\", "\\"),
    )
}

fn apply(
    cluster: &mut Database,
    available: &[String],
    database: &str,
    statement: &str,
) -> Result<Option<String>, String> {
    let unknown = || format!("the simulator does not know the statement: {}", head(statement));
    let after = |prefix: &str| statement.strip_prefix(prefix);
    if let Some(rest) = after("CREATE ROLE ") {
        let (role, rest) = name(rest).ok_or_else(unknown)?;
        if cluster.sql.roles.contains_key(&role) {
            return Err(format!("role \"{role}\" already exists"));
        }
        cluster.sql.roles.insert(role.clone(), attributes(rest, BTreeSet::new()));
        return Ok(Some(format!("role/{role}")));
    }
    if let Some(rest) = after("ALTER SYSTEM RESET ") {
        let (parameter, _) = name(rest).ok_or_else(unknown)?;
        let gone = cluster.sql.altered.remove(&parameter);
        return Ok(gone.map(|_| format!("alter-system/{parameter}")));
    }
    if statement == "SELECT pg_reload_conf()" {
        return Ok(None);
    }
    if let Some(rest) = after("ALTER ROLE ") {
        let (role, rest) = name(rest).ok_or_else(unknown)?;
        let fact = cluster
            .sql
            .roles
            .get_mut(&role)
            .ok_or_else(|| format!("role \"{role}\" does not exist"))?;
        let new = attributes(rest, fact.member_of.clone());
        let changed = *fact != new;
        *fact = new;
        return Ok(changed.then(|| format!("role/{role}")));
    }
    if let Some(rest) = after("CREATE DATABASE ") {
        return create_database(cluster, rest).ok_or_else(unknown)?;
    }
    if let Some(rest) = after("ALTER DATABASE ") {
        let (database, rest) = name(rest).ok_or_else(unknown)?;
        let rest = rest.trim_start().strip_prefix("OWNER TO ").ok_or_else(unknown)?;
        let (owner, _) = name(rest).ok_or_else(unknown)?;
        role_exists(cluster, &owner)?;
        let fact = cluster
            .sql
            .databases
            .get_mut(&database)
            .ok_or_else(|| format!("database \"{database}\" does not exist"))?;
        let changed = fact.owner != owner;
        fact.owner = owner;
        return Ok(changed.then(|| format!("database/{database}")));
    }
    if let Some(rest) = after("CREATE EXTENSION IF NOT EXISTS ") {
        let (extension, _) = name(rest).ok_or_else(unknown)?;
        if !available.contains(&extension) {
            return Err(format!("extension \"{extension}\" is not available"));
        }
        let there = inside(cluster, database)?.extensions.get_or_insert_default();
        let new = there.insert(extension.clone(), "1.0".to_owned()).is_none();
        return Ok(new.then(|| format!("database/{database}/extension/{extension}")));
    }
    if let Some(rest) = after("CREATE SCHEMA IF NOT EXISTS ") {
        let (schema, rest) = name(rest).ok_or_else(unknown)?;
        if let Some(owner) = rest.trim_start().strip_prefix("AUTHORIZATION ") {
            let (owner, _) = name(owner).ok_or_else(unknown)?;
            role_exists(cluster, &owner)?;
        }
        let new = inside(cluster, database)?.schemas.get_or_insert_default().insert(schema.clone());
        return Ok(new.then(|| format!("database/{database}/schema/{schema}")));
    }
    if statement.starts_with("CREATE OR REPLACE FUNCTION ") {
        let body = statement.split("$reconcile$").nth(1).ok_or_else(unknown)?;
        let digest = Some(sha256_hex(body.as_bytes()));
        let fact = inside(cluster, database)?;
        let changed = fact.pooler_lookup != digest;
        fact.pooler_lookup = digest;
        return Ok(changed.then(|| format!("database/{database}/pooler-lookup")));
    }
    if statement.starts_with("CREATE TABLE IF NOT EXISTS reconcile.probe") {
        let new = !std::mem::replace(&mut cluster.sql.probe_table, true);
        return Ok(new.then(|| "database/postgres/probe-table".to_owned()));
    }
    if let Some(rest) = after("GRANT ") {
        return grant(cluster, database, statement, rest).ok_or_else(unknown)?;
    }
    if statement.starts_with("REVOKE ALL ON ") {
        return Ok(None);
    }
    Err(unknown())
}

fn head(statement: &str) -> String {
    statement.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn role_exists(cluster: &Database, role: &str) -> Result<(), String> {
    if cluster.sql.roles.contains_key(role) {
        Ok(())
    } else {
        Err(format!("role \"{role}\" does not exist"))
    }
}

fn inside<'a>(cluster: &'a mut Database, database: &str) -> Result<&'a mut DatabaseFact, String> {
    cluster
        .sql
        .databases
        .get_mut(database)
        .ok_or_else(|| format!("database \"{database}\" does not exist"))
}

fn attributes(text: &str, member_of: BTreeSet<String>) -> RoleFact {
    let password = text.split_once(" PASSWORD ").map(|(_, value)| value.trim());
    let words: BTreeSet<&str> =
        text.split(" PASSWORD ").next().unwrap_or_default().split_whitespace().collect();
    let limit = text
        .split_once("CONNECTION LIMIT ")
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    RoleFact {
        login: words.contains("LOGIN"),
        superuser: words.contains("SUPERUSER"),
        createdb: words.contains("CREATEDB"),
        createrole: words.contains("CREATEROLE"),
        replication: words.contains("REPLICATION"),
        inherit: words.contains("INHERIT"),
        connection_limit: limit.unwrap_or(-1),
        member_of,
        password_digest: password.and_then(literal).map(|verifier| sha256_hex(verifier.as_bytes())),
    }
}

/// None: not understood.
fn create_database(cluster: &mut Database, rest: &str) -> Option<Result<Option<String>, String>> {
    let (database, rest) = name(rest)?;
    let (owner, rest) = name(rest.trim_start().strip_prefix("OWNER ")?)?;
    let (template, rest) = name(rest.trim_start().strip_prefix("TEMPLATE ")?)?;
    if cluster.sql.databases.contains_key(&database) {
        return Some(Err(format!("database \"{database}\" already exists")));
    }
    if let Err(error) = role_exists(cluster, &owner) {
        return Some(Err(error));
    }
    let Some(mut fact) = cluster.sql.databases.get(&template).cloned() else {
        return Some(Err(format!("template database \"{template}\" does not exist")));
    };
    fact.owner = owner;
    if let Some((_, encoding)) = rest.split_once("ENCODING ") {
        fact.encoding = literal(encoding)?;
    }
    cluster.sql.databases.insert(database.clone(), fact);
    let inherited: Vec<String> = cluster
        .grants
        .iter()
        .filter_map(|grant| grant.strip_prefix(&format!("{template}: ")))
        .map(|grant| format!("{database}: {grant}"))
        .collect();
    cluster.grants.extend(inherited);
    Some(Ok(Some(format!("database/{database}"))))
}

fn grant(
    cluster: &mut Database,
    database: &str,
    statement: &str,
    rest: &str,
) -> Option<Result<Option<String>, String>> {
    let (what, role) = rest.rsplit_once(" TO ")?;
    let (role, _) = name(role)?;
    if let Err(error) = role_exists(cluster, &role) {
        return Some(Err(error));
    }
    if what.contains(" ON ") {
        cluster.grants.insert(format!("{database}: {statement}"));
        return Some(Ok(None));
    }
    let (group, _) = name(what)?;
    if let Err(error) = role_exists(cluster, &group) {
        return Some(Err(error));
    }
    let new = cluster.sql.roles.get_mut(&role)?.member_of.insert(group);
    Some(Ok(new.then(|| format!("role/{role}/membership"))))
}
