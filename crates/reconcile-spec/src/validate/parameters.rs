//! Rules and defaults of PostgreSQL's server parameters.

use std::collections::BTreeMap;

use super::Rules;
use crate::fault::Fault;
use crate::gucs::{self, Wrong};
use crate::hints;
use crate::v1alpha1::Scalar;

/// Parameters that reconcile sets unless the user does. `max_connections`: a pool of 25 on each
/// of three hosts for writes and as many for reads that fall back, and a reserve.
const DEFAULT_PARAMETERS: &[(&str, &str)] = &[
    ("max_connections", "200"),
    ("max_replication_slots", "10"),
    ("max_wal_senders", "10"),
    ("password_encryption", "scram-sha-256"),
    ("wal_level", "replica"),
    ("wal_log_hints", "on"),
];

/// Numbers that Patroni hands to PostgreSQL, with the least that it takes.
const COUNTED: &[(&str, u32)] = &[
    ("max_connections", 25),
    ("max_locks_per_transaction", 32),
    ("max_prepared_transactions", 0),
    ("max_replication_slots", 4),
    ("max_wal_senders", 3),
    ("max_worker_processes", 2),
];

/// Parameters that are not for the user to set, and what is.
const OWNED: &[(&str, &str)] = &[
    ("archive_cleanup_command", "Patroni writes recovery settings itself"),
    ("cluster_name", "it is `metadata.name`"),
    ("config_file", "Patroni writes postgresql.conf"),
    ("data_directory", "set `spec.postgresql.dataDir`"),
    ("external_pid_file", "systemd supervises Patroni, Patroni supervises PostgreSQL"),
    ("hba_file", "add lines under `spec.postgresql.hba`"),
    ("hot_standby", "Patroni keeps it on, for replicas must answer"),
    ("ident_file", "Patroni writes it"),
    ("listen_addresses", "set `spec.postgresql.listen: nodeAddress` or `all`"),
    ("port", "set `spec.postgresql.port`"),
    ("primary_conninfo", "Patroni points each replica at the primary"),
    ("primary_slot_name", "Patroni makes one slot for each replica"),
    ("promote_trigger_file", "only Patroni promotes"),
    ("recovery_end_command", "Patroni writes recovery settings itself"),
    ("recovery_min_apply_delay", "a delayed replica could not take over"),
    ("synchronous_standby_names", "set `spec.patroni.synchronous`"),
    ("trigger_file", "only Patroni promotes"),
];

/// The value as PostgreSQL writes it: booleans are `on` and `off`.
fn setting(value: &Scalar) -> String {
    match value.0.to_ascii_lowercase().as_str() {
        "true" => "on".to_owned(),
        "false" => "off".to_owned(),
        _ => value.0.clone(),
    }
}

pub(super) fn parameters(
    rules: &mut Rules<'_>,
    version: u16,
    own: &BTreeMap<String, Scalar>,
) -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, String> = DEFAULT_PARAMETERS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    for (name, value) in own {
        let path = format!("spec.postgresql.parameters.{name}");
        let lower = name.to_ascii_lowercase();
        if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| *owned == lower) {
            rules.push(
                Fault::error(
                    path,
                    format!("`{name}` is not for `parameters`: Patroni or reconcile sets it"),
                )
                .at_key()
                .help(*instead),
            );
            continue;
        }
        if lower.starts_with("recovery_target") || lower == "restore_command" {
            rules.push(
                Fault::error(
                    path,
                    format!("`{name}` is not for `parameters`: it would hold a replica back"),
                )
                .at_key()
                .help("recovery to a point in time is a command, not a setting"),
            );
            continue;
        }
        if *name != lower
            || !lower.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
            || !lower.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        {
            let lower = lower.replace('-', "_");
            rules.push(
                Fault::error(path, format!("{name:?} is no name of a parameter"))
                    .at_key()
                    .help(format!("lower-case letters, digits, '_': `{lower}`")),
            );
            continue;
        }
        let value = setting(value);
        parameter_value(rules, version, &path, name, &value);
        out.insert(name.clone(), value);
    }
    out
}

/// Values that would break the cluster or its promises.
fn parameter_value(rules: &mut Rules<'_>, version: u16, path: &str, name: &str, value: &str) {
    match (name, value) {
        ("wal_level", "replica" | "logical") => {}
        ("wal_level", _) => rules.push(
            Fault::error(path, format!("`wal_level` cannot be `{}`: replicas could not follow", hints::clip(value)))
                .help("`replica` (the default) or `logical`"),
        ),
        ("password_encryption", value) if value != "scram-sha-256" => rules.push(
            Fault::error(path, format!("`password_encryption` cannot be `{}`", hints::clip(value)))
                .help("leave it out: passwords are SCRAM, and pg_hba.conf admits nothing weaker"),
        ),
        ("fsync" | "full_page_writes", "off") => rules.push(
            Fault::error(path, format!("`{name}: off` loses the database with the next power cut"))
                .help("for speed at the price of the last transactions, not of the database: `synchronous_commit: off`"),
        ),
        ("wal_log_hints", value) if value != "on" => rules.push(
            Fault::error(path, "`wal_log_hints` stays on: Patroni sets it, for pg_rewind")
                .help("leave it out"),
        ),
        (name, value) if COUNTED.iter().any(|(counted, _)| *counted == name) => {
            let least = COUNTED.iter().find(|(counted, _)| *counted == name).map_or(0, |(_, n)| *n);
            match value.parse::<u32>() {
                Err(_) => rules.push(Fault::error(
                    path,
                    format!("`{name}` must be a whole number, not `{}`", hints::clip(value)),
                )),
                Ok(number) if number < least => rules.push(
                    Fault::error(path, format!("`{name}` cannot be `{number}`"))
                        .help(format!("at least {least}: with less, Patroni takes its own default instead")),
                ),
                Ok(_) => of_postgresql(rules, version, path, name, value),
            }
        }
        _ => of_postgresql(rules, version, path, name, value),
    }
}

/// What PostgreSQL itself would refuse, or Patroni silently leave out.
fn of_postgresql(rules: &mut Rules<'_>, version: u16, path: &str, name: &str, value: &str) {
    if version != gucs::VERSION {
        return;
    }
    match gucs::wrong(name, value) {
        Some(Wrong::Name(said, help)) => rules.push(Fault::error(path, said).at_key().help(help)),
        Some(Wrong::Value(said, help)) => rules.push(Fault::error(path, said).help(help)),
        None => {}
    }
}
