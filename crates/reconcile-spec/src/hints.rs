//! What to tell a user who wrote something else than the format knows: near misses, and the
//! literal forms of other tools (and of the documents that this program grew from) with the
//! reason why they cannot work and what to write instead.

use serde_json::Value as Json;

use crate::tree::Value;

/// Message for a secret's value in the file.
pub(crate) const SECRET_IN_THE_OPEN: &str =
    "a secret's value must not stand in this file; it looks like one";
/// Help for one that no field could refer to.
pub(crate) const SECRET_ELSEWHERE: &str = "take it out: only the passwords of roles can refer to secrets, as \
    `password: { secret: NAME }`.\nIf this file was ever committed, change the secret.";
/// Help for a password.
pub(crate) const SECRET_HELP: &str = "write `{ secret: NAME }` and put the value under NAME into the secrets source \
    (`spec.secrets`).\nIf this file was ever committed, change the secret.";

const HOST_NETWORK: &str = "`docker stack deploy` ignores network_mode, and HAProxy on the host network could not bind \
    5432 beside PostgreSQL.\nNothing needs to be said: HAProxy joins the overlay `spec.swarm.network`, PgBouncer \
    and the router join the network `host`.";
const UPSTREAM: &str = "localhost:5432 is a standby on all hosts but one. PgBouncer reaches PostgreSQL through its \
    node's router,\nwhich knows the primary (`spec.haproxy.routerPorts`); nothing needs to be said.";
const MASTER: &str = "`/master` is gone from Patroni's documented API. The router checks `/primary` and `/replica` with \
    OPTIONS;\nonly the rhythm can be set: `checks: { inter: 1s, fall: 2, rise: 2 }`";

/// Names in a sentence.
pub(crate) fn listed(names: &[&str]) -> String {
    names.join(", ")
}

/// A text short enough for a message.
pub(crate) fn clip(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

/// Help for a secret's value at a path.
pub(crate) fn secret_help(path: &str) -> &'static str {
    if path.starts_with("spec.postgresql.roles[") { SECRET_HELP } else { SECRET_ELSEWHERE }
}

/// Whether a field of that name would hold a secret.
pub(crate) fn secret_name(name: &str) -> bool {
    let name = plain(name);
    if edit_distance(&name, "password") == 1 {
        return true;
    }
    ["password", "passwd", "secret", "secretkey", "passphrase", "pgpass", "privatekey"]
        .iter()
        .any(|word| name.ends_with(word))
}

/// Whether a field of that name, known to the format or not, is not shown.
pub(crate) fn hides(name: &str) -> bool {
    let plain = plain(name);
    let more = [
        "pass",
        "pwd",
        "token",
        "apikey",
        "accesskey",
        "secretaccesskey",
        "credential",
        "credentials",
        "dsn",
        "passwords",
        "tokens",
        "apikeys",
        "accesskeys",
    ];
    secret_name(name) || more.iter().any(|word| plain.ends_with(word))
}

/// Whether a text has a secret in it that its form gives away: a connection string with a
/// password, an address with `user:password@`, a private key.
pub(crate) fn secret_value(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let assigned = ["password=", "passwd=", "pwd="].iter().any(|word| {
        lower.match_indices(word).any(|(at, _)| {
            let rest = lower[at + word.len()..].trim_start();
            !rest.is_empty() && !rest.starts_with(['&', ';', ' '])
        })
    });
    let in_address = lower.match_indices("://").any(|(at, _)| {
        let rest = &lower[at + 3..];
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or(rest);
        authority
            .rsplit_once('@')
            .and_then(|(user, _)| user.split_once(':'))
            .is_some_and(|(_, password)| !password.is_empty())
    });
    let key = ["-----begin ", "age-secret-key-1", "scram-sha-256$"]
        .iter()
        .any(|mark| lower.contains(mark));
    assigned || in_address || key
}

/// Lower case without separators: `network_mode` and `networkMode` are the same slip.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The name that was likely meant, if one is clearly nearer than chance.
pub(crate) fn nearest<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    let wanted = plain(written);
    if wanted.is_empty() || written.len() > 64 {
        return None;
    }
    let (name, distance) = names
        .iter()
        .map(|name| (*name, edit_distance(&wanted, &plain(name))))
        .min_by_key(|(_, distance)| *distance)?;
    // A third of the letters may differ; very short words only by one.
    let bearable = (wanted.len().max(name.len()) / 3).clamp(1, 3);
    (distance <= bearable && distance < wanted.len()).then_some(name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

/// Advice for an unknown field, by its name and where it stands.
pub(crate) fn unknown(path: &str, key: &str, value: Option<&str>) -> Option<String> {
    let name = plain(key);
    let says_master = value.is_some_and(|value| value.contains("/master"));
    let advice = match name.as_str() {
        "networkmode" | "hostnetwork" => HOST_NETWORK,
        "databaseurl" | "upstream" | "dbhost" | "databasehost" | "serverhost"
            if path.starts_with("spec.pgbouncer") =>
        {
            UPSTREAM
        }
        _ if says_master => MASTER,
        "check" | "checkpath" | "healthcheck" | "httpchk" | "httpcheck"
            if path.starts_with("spec.haproxy") =>
        {
            "the router checks Patroni's `/primary` and `/replica` with OPTIONS; only the rhythm can be set: \
             `checks: { inter: 1s, fall: 2, rise: 2 }`"
        }
        "replicas" if path == "spec.haproxy" || path == "spec.pgbouncer" => {
            "the utilities are global services: one task on every node of the Swarm"
        }
        "mode" if path == "spec.haproxy" || path == "spec.pgbouncer" => {
            "the utilities are global services; what runs them is `runtime: swarm`"
        }
        "volumes" | "environment" | "configs" | "command" | "entrypoint"
            if path == "spec.haproxy" || path == "spec.pgbouncer" =>
        {
            "this is no compose file: reconcile writes the configuration and mounts it. \
             PgBouncer's further settings go under `parameters`"
        }
        "services" | "version" | "networks" | "volumes" if path.is_empty() || path == "spec" => {
            "this is no compose file; see examples/three-servers.yaml for the shape"
        }
        "pghba" if path == "spec.postgresql" => {
            "write `hba`, a list of { type, database, user, address, method }"
        }
        "age" | "sops" | "vault" if path == "spec.secrets" => {
            "a file that is encrypted with age or SOPS is named by `file` as well; the key is given \
             by --identity. For other programs there is `exec: [PROGRAM, ARGUMENT]`"
        }
        "env" | "file" | "exec" | "value" | "name" | "secretref" | "valuefrom"
            if path.ends_with(".password") =>
        {
            "a secret is referred to by its name: `{ secret: NAME }`; where names are looked up is \
             said once, in `spec.secrets`"
        }
        "hostkey" if path.rsplit('.').next() == Some("ssh") => {
            "`hostKey` stands beside `name` and `address` of the host"
        }
        "archive" | "backups" | "backup" if path == "spec" => {
            "archives and backups are not part of this release"
        }
        "replicator" | "users" if path == "spec.postgresql" => "write `roles`",
        "masterstarttimeout" if path == "spec.patroni" => {
            "Patroni calls it primary_start_timeout now: write `primaryStartTimeout`"
        }
        "scope" | "namespace" if path == "spec.patroni" => "the scope is `metadata.name`",
        "initialclustertoken" | "token" if path == "spec.etcd" => {
            "the token is made from `metadata.name`"
        }
        "status" if path.is_empty() => {
            "the status is what reconcile tells, not what it is told: `reconcile status`"
        }
        _ => return None,
    };
    Some(advice.to_owned())
}

/// Where else the format knows a field of that name.
pub(crate) fn elsewhere(definitions: &Json, key: &str) -> Option<String> {
    let owners: Vec<&str> = definitions
        .as_object()?
        .iter()
        .filter(|(_, schema)| schema["properties"].get(key).is_some())
        .map(|(name, _)| name.as_str())
        .collect();
    match owners.as_slice() {
        [one] if *one != "Spec" => Some(format!("`{key}` is a field of {}", in_words(one))),
        ["Spec"] => Some(format!("`{key}` stands directly under `spec`")),
        _ => None,
    }
}

/// `FrontPorts` as a user may look for it.
fn in_words(definition: &str) -> String {
    let mut out = String::new();
    for (index, c) in definition.char_indices() {
        if c.is_uppercase() && index > 0 {
            out.push(' ');
        }
        out.extend(c.to_lowercase());
    }
    format!("`{out}`")
}

/// Advice for a known field with a value that it cannot have.
pub(crate) fn value(path: &str, text: &str) -> Option<String> {
    let advice = match path {
        _ if text.contains("/master") && path.starts_with("spec.haproxy") => MASTER,
        _ if path.ends_with(".swarm.role") && text == "leader" => {
            "the Swarm elects its leader among the managers: write `manager`"
        }
        _ if path.contains(".components[")
            && matches!(plain(text).as_str(), "postgresql" | "postgres") =>
        {
            "PostgreSQL comes with `patroni`, which starts and stops it"
        }
        _ if path.contains(".components[")
            && matches!(plain(text).as_str(), "haproxy" | "pgbouncer" | "router") =>
        {
            "the utilities run on every node of the Swarm; a host is kept out by `swarm: { role: none }`"
        }
        "spec.patroni.watchdog" if text == "on" => {
            "write `automatic` (if the device is there) or `required`"
        }
        "spec.patroni.synchronous" => {
            "write `synchronous: { mode: on }`; modes are off, on, quorum"
        }
        "spec.patroni.synchronous.mode" if plain(text) == "true" => "write `on`, or `quorum`",
        "spec.patroni.synchronous.mode" if plain(text) == "false" => "write `off`",
        "spec.postgresql.listen" => {
            "`all` listens on 0.0.0.0 and [::], `nodeAddress` on the host's address and loopback"
        }
        "spec.patroni.ttl" => "Patroni's own least ttl is 20, which is what `profile: fast` has",
        "spec.patroni.loopWait" | "spec.patroni.retryTimeout" => {
            "Patroni's own bounds: loop_wait at least 1, retry_timeout at least 3"
        }
        "kind" => "the only kind so far is `PostgresCluster`",
        "apiVersion" => "the only version so far is `reconcile/v1alpha1`",
        _ => return None,
    };
    Some(advice.to_owned())
}

/// Advice for a scalar of the wrong type that could be spelt right.
pub(crate) fn retyped(types: &[&str], text: &str, value: &Value) -> Option<String> {
    match types {
        ["integer"] if text.parse::<i64>().is_ok() && matches!(value, Value::Text(_)) => {
            Some("leave out the quotes".to_owned())
        }
        ["integer"] if text.ends_with(|c: char| c.is_ascii_alphabetic()) => {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            (!digits.is_empty() && text.len() < 20)
                .then(|| format!("this field has no unit: write a plain number such as {digits}"))
        }
        ["boolean"] => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" | "1" => Some("write `true`".to_owned()),
            "no" | "off" | "n" | "false" | "0" => Some("write `false`".to_owned()),
            _ => None,
        },
        ["array"] => Some(format!("write `[{}]`", clip(text))),
        _ => None,
    }
}

/// Advice for a list where a mapping is wanted and the other way round.
pub(crate) fn container(path: &str, value: &Value, types: &[&str]) -> Option<String> {
    let advice = match (types, value) {
        _ if path == "spec.haproxy.ports" || path == "spec.pgbouncer.ports" => {
            "ports are named, as in `{ write: 6432, read: 6433 }`; what the hosts open for HAProxy is `publish`"
        }
        (["array"], Value::Map(_)) => "put `- ` in front of each item",
        (["object"], Value::List(_)) => "write `field: value` lines without `- `",
        (["object"], Value::Text(_)) if path == "spec.secrets" => {
            "for a file: `secrets: { file: secrets.yaml }`"
        }
        _ => return None,
    };
    Some(advice.to_owned())
}

/// Advice for an empty list where something is needed.
pub(crate) fn empty(path: &str) -> Option<String> {
    path.strip_prefix("spec.").and_then(|name| missing("spec", name))
}

/// Advice for a missing field.
pub(crate) fn missing(path: &str, name: &str) -> Option<String> {
    let advice = match (path, name) {
        ("", "apiVersion") => "write `apiVersion: reconcile/v1alpha1`",
        ("", "kind") => "write `kind: PostgresCluster`",
        ("", "metadata") => "write `metadata: { name: main }`",
        ("metadata", "name") => {
            "the cluster's name is also Patroni's scope, for example `name: main`"
        }
        ("" | "spec", "spec" | "hosts") => {
            "name the servers: `hosts: [{ name: node1, address: 192.0.2.11, hostKey: … }]`"
        }
        (path, "address") if path.starts_with("spec.hosts[") => {
            "the IP address by which the other hosts reach it"
        }
        (path, "secret") if path.ends_with(".password") => "write `{ secret: NAME }`",
        _ => return None,
    };
    Some(advice.to_owned())
}
