//! What PostgreSQL said: one JSON object a line.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_core::{
    model::{ArchiverFact, DatabaseFact, Observation, RoleFact, SettingFact, SqlFacts},
    probe::ProbeRequest,
};
use serde::Deserialize;

use super::sections::Sections;
use crate::fault::{one_line, tail};

/// One row of the probe's SQL; `kind` says which.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Row {
    Server {
        standby: bool,
    },
    Receiver {
        status: Option<String>,
    },
    Role(Role),
    Database {
        name: String,
        owner: String,
        encoding: String,
    },
    Altered {
        name: Option<String>,
        value: Option<String>,
    },
    Setting(Setting),
    #[serde(rename_all = "camelCase")]
    Archiver {
        archived_at: Option<u64>,
        failed_at: Option<u64>,
    },
    ProbeTable {
        exists: bool,
    },
    Inside(Inside),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "PostgreSQL's own role attributes")]
struct Role {
    name: String,
    login: bool,
    superuser: bool,
    createdb: bool,
    createrole: bool,
    replication: bool,
    inherit: bool,
    limit: i64,
    password: Option<String>,
    member_of: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Setting {
    name: String,
    value: String,
    unit: String,
    #[serde(rename = "type")]
    kind: String,
    altered: bool,
}

#[derive(Debug, Deserialize)]
struct Inside {
    name: String,
    extensions: BTreeMap<String, String>,
    schemas: BTreeSet<String>,
    lookup: Option<String>,
}

fn rows(sections: &Sections) -> Result<Vec<Row>, String> {
    let text = sections.text("sql");
    let parse = |line: &str| {
        serde_json::from_str(line).map_err(|e| {
            let start: String = line.chars().take(80).collect();
            format!("psql printed `{}`: {e}", one_line(&start))
        })
    };
    text.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// Whether a local standby's WAL receiver streams; None where there is no word of it.
pub(super) fn receiver_streams(sections: &Sections) -> Option<bool> {
    if sections.status("sql") != Some(0) {
        return None;
    }
    let rows = rows(sections).ok()?;
    if !rows.iter().any(|row| matches!(row, Row::Server { standby: true })) {
        return None;
    }
    Some(
        rows.iter().any(
            |row| matches!(row, Row::Receiver { status: Some(status) } if status == "streaming"),
        ),
    )
}

/// What the local PostgreSQL runs with, of a primary or a standby; None where it did not tell.
pub(super) fn settings(sections: &Sections) -> Option<BTreeMap<String, SettingFact>> {
    if sections.status("sql") != Some(0) {
        return None;
    }
    let settings: BTreeMap<_, _> = rows(sections)
        .ok()?
        .into_iter()
        .filter_map(|row| match row {
            Row::Setting(Setting { name, value, unit, kind, altered }) => {
                Some((name, SettingFact { value, unit, kind, altered }))
            }
            _ => None,
        })
        .collect();
    (!settings.is_empty()).then_some(settings)
}

/// What `ALTER SYSTEM` has set on a local standby; the last line of its file wins, and rows are in its order.
pub(super) fn altered(sections: &Sections) -> BTreeMap<String, String> {
    if receiver_streams(sections).is_none() {
        return BTreeMap::new();
    }
    let rows = rows(sections).unwrap_or_default().into_iter();
    rows.filter_map(|row| match row {
        Row::Altered { name: Some(name), value } => Some((name, value.unwrap_or_default())),
        _ => None,
    })
    .collect()
}

pub(super) fn sql(request: &ProbeRequest, sections: &Sections) -> Observation<Option<SqlFacts>> {
    if request.sql.is_none() {
        return Observation::unknown("was not asked");
    }
    if sections.bytes("sql").is_none() && sections.bytes("sql.rc").is_none() {
        // Without a socket psql was not even started: there is no server, so no primary.
        return Observation::Known(None);
    }
    let Some(status) = sections.status("sql") else {
        return Observation::unknown("psql was cut off");
    };
    let errors = sections.errors("sql");
    let said = || one_line(&tail(&errors, 1));
    if status == 2 && errors.contains("Connection refused") {
        // A socket file that a killed server left behind.
        return Observation::Known(None);
    }
    if status == 124 {
        return Observation::unknown("PostgreSQL did not answer within 3 s");
    }
    let rows = match rows(sections) {
        Ok(rows) => rows,
        Err(why) => return Observation::unknown(why),
    };
    let standby = rows.iter().find_map(|row| match row {
        Row::Server { standby } => Some(*standby),
        _ => None,
    });
    match standby {
        Some(true) => Observation::Known(None),
        None => Observation::unknown(format!("PostgreSQL cannot be asked: {}", said())),
        // One question that failed would read as "none of these".
        Some(false) if errors.contains("ERROR:") => {
            Observation::unknown(format!("PostgreSQL answered only in part: {}", said()))
        }
        Some(false) => facts(rows).map_or_else(
            || Observation::unknown(format!("PostgreSQL answered only in part: {}", said())),
            |facts| Observation::Known(Some(facts)),
        ),
    }
}

/// The facts of a primary; None where a part is missing: a role that was not told is not absent.
fn facts(rows: Vec<Row>) -> Option<SqlFacts> {
    let mut facts = SqlFacts::default();
    let mut probe_table = None;
    let mut insides = Vec::new();
    for row in rows {
        match row {
            Row::Role(role) => {
                facts.roles.insert(
                    role.name,
                    RoleFact {
                        login: role.login,
                        superuser: role.superuser,
                        createdb: role.createdb,
                        createrole: role.createrole,
                        replication: role.replication,
                        inherit: role.inherit,
                        connection_limit: role.limit,
                        member_of: role.member_of,
                        password_digest: role.password,
                    },
                );
            }
            Row::Database { name, owner, encoding } => {
                let fact = DatabaseFact {
                    owner,
                    encoding,
                    extensions: None,
                    schemas: None,
                    pooler_lookup: None,
                };
                facts.databases.insert(name, fact);
            }
            Row::Altered { name: Some(name), value } => {
                // The last line of the file wins, and rows are in its order.
                facts.altered.insert(name, value.unwrap_or_default());
            }
            Row::Archiver { archived_at, failed_at } => {
                facts.archiver = Some(ArchiverFact { archived_at, failed_at });
            }
            Row::ProbeTable { exists } => probe_table = Some(exists),
            Row::Inside(inside) => insides.push(inside),
            Row::Altered { .. } | Row::Server { .. } | Row::Receiver { .. } | Row::Setting(_) => {}
        }
    }
    for inside in insides {
        if let Some(database) = facts.databases.get_mut(&inside.name) {
            database.extensions = Some(inside.extensions);
            database.schemas = Some(inside.schemas);
            database.pooler_lookup = inside.lookup;
        }
    }
    facts.probe_table = probe_table?;
    (!facts.roles.is_empty() && !facts.databases.is_empty()).then_some(facts)
}
