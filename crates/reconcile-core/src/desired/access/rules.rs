//! What the lines of pg_hba.conf say of a login, as PostgreSQL reads them: the first that fits counts.

use std::{collections::BTreeSet, net::IpAddr};

use reconcile_spec::{
    ClusterSpec,
    valid::{HbaMethod, HbaRule, HbaType},
};

use super::Login;

/// What the lines say of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Asked for its password.
    Admitted,
    /// Refused by this line, or by none that fits.
    Refused(String),
    /// Refused, or perhaps refused, by a line that means to.
    Meant,
    /// It depends on what only the server knows.
    Unclear,
}

/// Whether a part of a line fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fits {
    No,
    Perhaps,
    Yes,
}

impl Fits {
    fn certainly(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// The lines, ready to be asked.
pub(super) struct Rules<'a> {
    spec: &'a ClusterSpec,
    lines: Vec<(HbaRule, Option<(IpAddr, u8)>)>,
    tls: bool,
}

impl<'a> Rules<'a> {
    pub(super) fn new(spec: &'a ClusterSpec) -> Self {
        let network = |rule: &HbaRule| {
            let (address, bits) = rule.address.as_deref()?.split_once('/')?;
            Some((address.parse().ok()?, bits.parse().ok()?))
        };
        let lines =
            super::rules(spec).into_iter().map(|rule| (rule.clone(), network(&rule))).collect();
        let tls = spec.postgresql.parameters.get("ssl").is_some_and(|value| value != "off");
        Self { spec, lines, tls }
    }

    /// Why a login gets into none of its databases, if that is certain and nobody means it.
    pub(super) fn lockout(&self, who: &Login, client: IpAddr, local: bool) -> Option<String> {
        let databases: Vec<Option<&str>> = if who.replication {
            vec![None]
        } else {
            who.databases.iter().map(|name| Some(name.as_str())).collect()
        };
        let mut first = None;
        for database in databases {
            match self.judge(who, database, client, local) {
                Verdict::Refused(line) => first = first.or(Some((database, line))),
                Verdict::Admitted | Verdict::Meant | Verdict::Unclear => return None,
            }
        }
        let (database, line) = first?;
        let what = database.map_or_else(
            || "for replication".to_owned(),
            |database| format!("to database {database}"),
        );
        Some(format!("{} {what} from {client}, by {line}", who.user))
    }

    /// What the lines say of a login from `client`; `local`: on the server of that address itself.
    pub(super) fn judge(
        &self,
        who: &Login,
        database: Option<&str>,
        client: IpAddr,
        local: bool,
    ) -> Verdict {
        let mut perhaps_in = false;
        let mut perhaps_out = None;
        for (rule, network) in &self.lines {
            let fits = self
                .kind(rule.kind)
                .min(self.database(&rule.database, database, &who.user))
                .min(self.user(&rule.user, &who.user))
                .min(address(rule.address.as_deref(), *network, client, local));
            let asks = rule.method == HbaMethod::ScramSha256;
            match (fits, asks) {
                (Fits::No, _) => {}
                (Fits::Perhaps, true) => perhaps_in = true,
                (Fits::Perhaps, false) => {
                    perhaps_out.get_or_insert(rule.deliberate);
                }
                (Fits::Yes, _) if perhaps_out == Some(true) => return Verdict::Meant,
                (Fits::Yes, true) if perhaps_out.is_none() => return Verdict::Admitted,
                (Fits::Yes, true) => return Verdict::Unclear,
                (Fits::Yes, false) if rule.deliberate => return Verdict::Meant,
                (Fits::Yes, false) if perhaps_in => return Verdict::Unclear,
                (Fits::Yes, false) => return Verdict::Refused(format!("`{}`", super::line(rule))),
            }
        }
        match (perhaps_out, perhaps_in) {
            (Some(true), _) => Verdict::Meant,
            (_, true) => Verdict::Unclear,
            _ => Verdict::Refused("no line that fits".to_owned()),
        }
    }

    /// Whether a line is about TCP; where PostgreSQL speaks TLS the client decides.
    fn kind(&self, kind: HbaType) -> Fits {
        match kind {
            HbaType::Hostssl | HbaType::Hostnossl if self.tls => Fits::Perhaps,
            HbaType::Local | HbaType::Hostssl => Fits::No,
            HbaType::Host | HbaType::Hostnossl => Fits::Yes,
        }
    }

    /// `all` is no physical replication, which has a word of its own.
    fn database(&self, column: &str, database: Option<&str>, user: &str) -> Fits {
        let word = |word: &str| match (word, database) {
            ("replication", database) => Fits::certainly(database.is_none()),
            (_, None) => Fits::No,
            ("all", _) => Fits::Yes,
            ("sameuser", Some(name)) => Fits::certainly(name == user),
            ("samerole" | "samegroup", Some(name)) => self.member(user, name),
            (word, Some(_)) if word.starts_with(['@', '/']) => Fits::Perhaps,
            (word, Some(name)) => Fits::certainly(word == name),
        };
        column.split(',').map(word).max().unwrap_or(Fits::No)
    }

    fn user(&self, column: &str, user: &str) -> Fits {
        let word = |word: &str| match word.strip_prefix('+') {
            Some(group) => self.member(user, group),
            None if word == "all" => Fits::Yes,
            None if word.starts_with(['@', '/']) => Fits::Perhaps,
            None => Fits::certainly(word == user),
        };
        column.split(',').map(word).max().unwrap_or(Fits::No)
    }

    /// Memberships beyond those of the file may have been granted by hand.
    fn member(&self, user: &str, group: &str) -> Fits {
        let mut seen = BTreeSet::from([user]);
        let mut open = vec![user];
        while let Some(name) = open.pop() {
            if name == group {
                return Fits::Yes;
            }
            let role = self.spec.postgresql.roles.iter().find(|role| role.name.as_str() == name);
            let groups = role.iter().flat_map(|role| &role.member_of);
            open.extend(groups.map(AsRef::as_ref).filter(|name| seen.insert(name)));
        }
        Fits::Perhaps
    }
}

fn address(
    column: Option<&str>,
    network: Option<(IpAddr, u8)>,
    client: IpAddr,
    local: bool,
) -> Fits {
    match (column, network) {
        (None, _) => Fits::No,
        (Some("all"), _) => Fits::Yes,
        (Some("samehost"), _) => Fits::certainly(local),
        (Some("samenet"), _) if local => Fits::Yes,
        (Some(_), Some((network, bits))) => Fits::certainly(within(client, network, bits)),
        (Some(_), None) => Fits::Perhaps,
    }
}

fn within(client: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (client, network, width) = match (client, network) {
        (IpAddr::V4(client), IpAddr::V4(network)) => {
            (u128::from(client.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(client), IpAddr::V6(network)) => (client.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let rest = u32::from(width - bits.min(width));
    client.checked_shr(rest).unwrap_or(0) == network.checked_shr(rest).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use crate::desired::access::{DesiredAccess, access};

    /// The access of two servers that have databases, and one that only has a pooler.
    fn with(hba: &str, parameters: &str) -> DesiredAccess {
        let text = format!(
            "apiVersion: reconcile/v1alpha1
kind: PostgresCluster
metadata: {{ name: main }}
spec:
  ssh: {{ user: root, knownHosts: known_hosts }}
  hosts:
    - {{ name: node1, address: 10.0.0.1 }}
    - {{ name: node2, address: 10.0.0.2 }}
    - {{ name: node3, address: 10.0.0.3 }}
    - {{ name: pool, address: 10.0.1.4, components: [] }}
  postgresql:
    parameters: {{ {parameters} }}
    hba: [{hba}]
    roles:
      - {{ name: crew, login: false }}
      - {{ name: app, password: {{ secret: app }}, memberOf: [crew] }}
      - {{ name: report, password: {{ secret: report }} }}
      - {{ name: guest }}
    databases: [{{ name: shop, owner: app }}, {{ name: stock, owner: app }}]
"
        );
        let loaded = reconcile_spec::load("cluster.yaml", &text);
        let loaded = loaded.unwrap_or_else(|faults| panic!("{faults}"));
        access(&loaded.clusters[0])
    }

    /// Who is certainly locked out by one line more, without addresses.
    fn locked_out(hba: &str) -> Vec<String> {
        let mut who: Vec<String> = with(hba, "")
            .lockouts
            .iter()
            .map(|lockout| lockout.split(" from ").take(1).collect())
            .collect();
        who.dedup();
        who
    }

    #[test]
    fn lockouts_that_lines_of_the_user_bring_about() {
        let all = [
            "app to database shop",
            "app to database stock",
            "pgbouncer to database postgres",
            "pgbouncer to database shop",
            "pgbouncer to database stock",
            "reconcile_probe to database postgres",
            "report to database shop",
        ];
        let apps = |line: &str| locked_out(&format!("{{ type: host, {line} }}"));
        for line in [
            "database: all, user: all, address: all, method: reject",
            "database: all, user: all, address: 10.0.0.0/16, method: reject",
            "database: all, user: all, address: samenet, method: reject",
            "database: all, user: all, address: samehost, method: reject",
            // The pooler has no password that it could show.
            "database: all, user: all, address: 10.0.1.4/32, method: ldap",
            "database: all, user: all, address: all, method: gss",
        ] {
            assert_eq!(apps(line), all, "{line}");
        }
        // A slip that is easily made: only outsiders were meant.
        let slip = apps("database: all, user: app, address: 0.0.0.0/0, method: reject");
        assert_eq!(slip, all[..2]);
        assert_eq!(apps("database: shop, user: +crew, address: all, method: reject"), all[..1]);
        assert_eq!(
            apps("database: \"shop,stock\", user: all, address: 10.0.1.0/24, method: reject"),
            [all[0], all[1], all[3], all[4]]
        );
    }

    #[test]
    fn lines_that_lock_nobody_out() {
        for line in [
            "type: host, database: all, user: all, address: 10.9.0.0/16, method: reject",
            "type: host, database: all, user: all, address: '::/0', method: reject",
            // Replication has a word of its own, and the system's lines for it come first, as those
            // for the operator do.
            "type: host, database: replication, user: all, address: all, method: reject",
            "type: host, database: all, user: rewind, address: all, method: reject",
            "type: local, database: all, user: all, method: reject",
            // One database is left to a role that owns none.
            "type: host, database: shop, user: report, address: all, method: reject",
            // It cannot log in with a password anyway.
            "type: host, database: all, user: guest, address: all, method: reject",
            // Without TLS the line never fits.
            "type: hostssl, database: all, user: all, address: all, method: reject",
            "type: host, database: all, user: all, address: all, method: reject, deliberate: true",
        ] {
            assert_eq!(locked_out(&format!("{{ {line} }}")), Vec::<String>::new(), "{line}");
        }
        let before = "{ type: host, database: all, user: all, address: 10.0.0.0/15 },
            { type: host, database: all, user: all, address: all, method: reject }";
        assert_eq!(locked_out(before), Vec::<String>::new());
    }

    /// Nothing is claimed of what only the server knows; it is tried there.
    #[test]
    fn what_is_not_certain_is_tried() {
        for line in [
            "type: host, database: all, user: app, address: bad.example.org, method: reject",
            "type: host, database: all, user: +granted, address: all, method: reject",
            "type: host, database: samerole, user: app, address: all, method: reject",
        ] {
            let access = with(&format!("{{ {line} }}"), "");
            assert_eq!(access.lockouts, Vec::<String>::new(), "{line}");
            let tried = &access.logins[&"node2".into()];
            assert!(tried.iter().any(|login| login.user == "app"), "{line}: {tried:#?}");
        }
        let tls = "{ type: hostnossl, database: all, user: all, address: all, method: reject }";
        assert_eq!(with(tls, "ssl: on").lockouts, Vec::<String>::new());
        assert_ne!(with(tls, "ssl: off").lockouts, Vec::<String>::new());
    }

    #[test]
    fn what_is_tried_on_a_server() {
        let shown = |access: &DesiredAccess| {
            let logins = access.logins[&"node2".into()].iter();
            let text = logins.map(|login| {
                let from = login.address.as_deref().unwrap_or("socket");
                let to = if login.replication { "replication" } else { &login.databases.join("|") };
                format!("{} {from} {to}", login.user)
            });
            text.collect::<Vec<_>>()
        };
        let plain = with("", "");
        assert_eq!(
            shown(&plain),
            [
                "postgres socket postgres",
                "app 10.0.0.2 shop",
                "app 10.0.0.2 stock",
                "pgbouncer 10.0.0.2 postgres",
                "pgbouncer 10.0.0.2 shop",
                "pgbouncer 10.0.0.2 stock",
                "reconcile_probe 10.0.0.2 postgres",
                "replicator 10.0.0.2 replication",
                "report 10.0.0.2 shop|stock|postgres",
                "rewind 10.0.0.2 postgres",
                "replicator 127.0.0.1 replication",
            ]
        );
        assert!(!plain.logins.contains_key(&"pool".into()), "it has no database");
        // Whom a line means to keep out is not tried.
        let line = "{ type: host, database: all, user: report, address: all, method: reject, deliberate: true }";
        let without = with(line, "");
        assert!(!shown(&without).iter().any(|login| login.starts_with("report")));
        assert_ne!(without.digest, plain.digest);
    }
}
