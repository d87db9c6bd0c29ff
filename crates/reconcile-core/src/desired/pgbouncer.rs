//! PgBouncer: one pooler for writes and one for reads on each node, each in front of its own
//! node's router. Passwords are looked up in the database, so a new role needs no new pooler.

use reconcile_spec::{ClusterSpec, secrets};

use super::{SecretValues, header, line};

/// Path of the configuration in the container.
pub const CONFIG_PATH: &str = "/etc/pgbouncer/pgbouncer.ini";
/// Name of the secret file in the container, below /run/secrets.
pub const USERLIST: &str = "userlist.txt";
/// Role that looks up passwords.
pub const AUTH_ROLE: &str = "pgbouncer";
/// User of the admin console; no PostgreSQL role.
pub const ADMIN_USER: &str = "pgbouncer_admin";
/// Schema of the look-up function.
pub const SCHEMA: &str = "pgbouncer";

/// `pgbouncer.ini` for the pooler that listens on `port` and goes to the router's `upstream`.
pub fn ini(spec: &ClusterSpec, port: u16, upstream: u16) -> String {
    let pgbouncer = &spec.pgbouncer;
    let mut text = header(";", spec.name.as_str());
    line(&mut text, format_args!("[databases]"));
    line(&mut text, format_args!("* = host=127.0.0.1 port={upstream}"));
    line(&mut text, format_args!("\n[pgbouncer]"));
    let mut settings: std::collections::BTreeMap<String, String> = [
        ("listen_addr", "0.0.0.0".to_owned()),
        ("listen_port", port.to_string()),
        ("unix_socket_dir", String::new()),
        ("auth_type", "scram-sha-256".to_owned()),
        ("auth_file", format!("/run/secrets/{USERLIST}")),
        ("auth_user", AUTH_ROLE.to_owned()),
        ("auth_query", format!("SELECT uname, phash FROM {SCHEMA}.user_lookup($1)")),
        ("admin_users", ADMIN_USER.to_owned()),
        ("pool_mode", pgbouncer.pool_mode.as_str().to_owned()),
        ("max_client_conn", pgbouncer.max_client_conn.to_string()),
        ("default_pool_size", pgbouncer.default_pool_size.to_string()),
        // 15 s by default: after a failover clients would be refused for that long.
        ("server_login_retry", "1".to_owned()),
        ("server_connect_timeout", "3".to_owned()),
        ("tcp_keepidle", "300".to_owned()),
        ("tcp_keepintvl", "10".to_owned()),
        ("tcp_keepcnt", "3".to_owned()),
        // Sent by JDBC and by libpq's options; they mean nothing to a pooled session.
        ("ignore_startup_parameters", "extra_float_digits,options".to_owned()),
        ("log_connections", "0".to_owned()),
        ("log_disconnections", "0".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if upstream == spec.haproxy.router_ports.replicas {
        // An hour by default. Connections that fell back to the primary are given up this soon after
        // a replica is there again, and none is cut for it.
        settings.insert("server_lifetime".to_owned(), "30".to_owned());
    }
    if let Some(prepared) = prepared_statements(spec) {
        settings.insert("max_prepared_statements".to_owned(), prepared.to_owned());
    }
    settings.extend(pgbouncer.parameters.clone());
    for (name, value) in settings {
        line(&mut text, format_args!("{name} = {value}"));
    }
    text
}

/// Protocol-level prepared statements in transaction pooling: known since 1.21, on by default since
/// 1.24, an unknown word before. The version is read off the image's tag.
fn prepared_statements(spec: &ClusterSpec) -> Option<&'static str> {
    let tag = spec.pgbouncer.image.tag.as_deref()?;
    let mut numbers = tag.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    let major: u32 = numbers.next()?.parse().ok()?;
    let minor: u32 = numbers.next()?.parse().ok()?;
    (major == 1 && (21..24).contains(&minor)).then_some("200")
}

/// `userlist.txt`: only the two users that cannot be looked up.
pub(super) fn userlist(values: &SecretValues<'_>) -> String {
    let mut text = String::new();
    for (user, secret) in
        [(AUTH_ROLE, secrets::PGBOUNCER_AUTH), (ADMIN_USER, secrets::PGBOUNCER_ADMIN)]
    {
        // Secrets hold no quotes: validated where they are read.
        line(&mut text, format_args!("\"{user}\" \"{}\"", values.get(secret).expose()));
    }
    text
}
