//! The servers' state, twice: to the nanosecond, for "nothing was written"; and normalised, for
//! "the same end state".

use std::fmt::Write as _;

use super::Lab;

/// Everything that a write would move: times of files, processes of units, versions in Docker.
const PRINT_SERVER: &str = r"find /etc /var/lib/reconcile /run/reconcile /usr/local -xdev \
  -printf '%p %y %m %U:%G %s %T@ %C@\n' 2>/dev/null | LC_ALL=C sort
systemctl show --timestamp=us+utc -p Id,ActiveEnterTimestamp,ExecMainPID,NRestarts,UnitFileState etcd patroni docker | paste -sd' '
stat -c '%n %s' /var/log/dpkg.log
docker ps --no-trunc --format '{{.ID}} {{.Names}}' | LC_ALL=C sort
";

/// The same for what the servers have in common; asked on a manager.
const PRINT_SWARM: &str = r#"for kind in service config secret network node; do
  docker $kind ls -q | while read -r id; do
    docker $kind inspect --format "$kind {{.ID}} {{if ne \"$kind\" \"network\"}}{{.Version.Index}}{{end}}" $id
  done
done | LC_ALL=C sort
docker info --format '{{.Swarm.Cluster.ID}} {{.Swarm.Cluster.Version.Index}}'
"#;

/// State of all servers, a line a thing, such that a write anywhere shows.
pub(crate) fn fingerprint(lab: &Lab) -> String {
    let mut text = String::new();
    for node in lab.nodes() {
        for line in lab.sh(node, PRINT_SERVER).lines() {
            let _infallible = writeln!(text, "{node} {line}");
        }
    }
    text.push_str(&lab.sh(lab.nodes()[0], PRINT_SWARM));
    let probe = "setpriv --reuid=postgres --regid=postgres --init-groups psql -XAtc 'select * from reconcile.probe order by 1'";
    text.push_str(&lab.sh(&lab.primary(), &format!("cd /; {probe}")));
    text
}

/// What a server has, without what differs between two installations of the same.
const STATE_SERVER: &str = r#"set -o pipefail
find /etc /usr/local /usr/sbin/policy-rc.d* /run/reconcile /var/lib/reconcile /run/systemd/system -xdev \
  -printf '%p %y %m %u:%g %l\n' 2>/dev/null | LC_ALL=C sort
sed -n 's/^claim file //p' /var/lib/reconcile/manifest | LC_ALL=C sort -u | xargs sha256sum
LC_ALL=C sort -u /var/lib/reconcile/manifest | sed 's/^/manifest: /'
dpkg-query -W -f 'package ${Package} ${Version} ${db:Status-Abbrev}\n' | LC_ALL=C sort
for unit in etcd patroni docker postgresql haproxy pgbouncer; do
  echo "unit $unit $(systemctl show --value -p LoadState,ActiveState,UnitFileState $unit | paste -sd' ')"
done
echo "failed: $(systemctl list-units --failed --no-legend --plain | cut -d' ' -f1 | paste -sd' ')"
stat -c '%n %F %a %U:%G' /var/lib/etcd /var/lib/etcd/* /var/lib/postgresql /var/lib/postgresql/15 /var/lib/postgresql/15/main /etc/patroni
ls /tmp /run | grep -i reconcile
docker ps --format 'task {{.Image}} {{.Names}}' | sed -E 's/(@sha256:[0-9a-f]+)//; s/\.[a-z0-9]{25}//g' | LC_ALL=C sort
true
"#;

/// The Swarm's objects, with their names in place of identifiers. (The Swarm's own `host` network is
/// in no list.)
const STATE_SWARM: &str = r#"set -o pipefail
names=$( (docker network ls --no-trunc --filter scope=swarm --format '{{.ID}} {{.Name}}'
  docker config ls --format '{{.ID}} {{.Name}}'; docker secret ls --format '{{.ID}} {{.Name}}') |
  sed 's/^\([^ ]*\) \(.*\)$/s#\1#\2#g/')
docker node ls --format 'node {{.Hostname}} {{.Status}} {{.Availability}} {{if .ManagerStatus}}manager{{else}}worker{{end}}' | LC_ALL=C sort
docker network inspect saasodoo-network --format 'network {{.Name}} {{.Driver}} {{.Scope}} {{.Attachable}} {{json .Labels}}'
for kind in config secret; do
  docker $kind ls --format "$kind {{.Name}}" | LC_ALL=C sort
done
docker config ls -q | while read -r id; do docker config inspect --format '{{.Spec.Name}} {{json .Spec.Labels}} {{json .Spec.Data}}' $id; done | LC_ALL=C sort
docker service ls -q | while read -r id; do docker service inspect --format '{{json .Spec}}' $id; done |
  sed -E -e "$names" -e 's/"Target":"[a-z0-9]{25}"/"Target":"host"/g' | LC_ALL=C sort
"#;

/// What the database holds. Patroni makes three roles, with salts of its own.
const STATE_SQL: &str = r#"cd /; p() { setpriv --reuid=postgres --regid=postgres --init-groups psql -XAtq "$@"; }
p -c "select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit, case when rolname in ('postgres', 'replicator', 'rewind') then left(rolpassword, 14) else md5(rolpassword) end from pg_authid where rolname !~ '^pg_' order by 1"
p -c "select datname, pg_get_userbyid(datdba), datallowconn, datconnlimit from pg_database order by 1"
for d in postgres template1 auth; do
  p -d $d -c "select '$d', extname, extversion from pg_extension order by 2" \
    -c "select '$d', n.nspname, p.proname, md5(p.prosrc), pg_get_userbyid(p.proowner), p.prosecdef, p.proacl from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname in ('pgbouncer', 'reconcile') order by 2, 3" \
    -c "select '$d', nspname, pg_get_userbyid(nspowner) from pg_namespace where nspname !~ '^pg_' order by 2"
done
"#;

/// State of the whole cluster, a line a thing, the same for each way that led to it. Roles are
/// told by their number, for who leads is Patroni's decision.
pub(crate) fn normalised(lab: &Lab) -> String {
    let mut text = String::new();
    for node in lab.nodes() {
        for line in lab.sh(node, STATE_SERVER).lines() {
            let _infallible = writeln!(text, "{node} {line}");
        }
    }
    text.push_str(&lab.sh(lab.nodes()[0], STATE_SWARM));
    text.push_str(&lab.sh(&lab.primary(), STATE_SQL));
    let address = lab.address(lab.nodes()[0]);
    let members = format!("ETCDCTL_API=3 etcdctl --endpoints http://{address}:2379 member list");
    let mut members: Vec<_> = lab
        .sh(lab.nodes()[0], &members)
        .lines()
        .filter_map(|line| line.split_once(", ").map(|(_, rest)| format!("etcd {rest}")))
        .collect();
    members.sort();
    let mut roles: Vec<_> = lab
        .members()
        .expect("Patroni answers")
        .into_iter()
        .map(|(_, role, state)| format!("patroni {role} {state}"))
        .collect();
    roles.sort();
    for line in members.into_iter().chain(roles) {
        text.push_str(&(line + "\n"));
    }
    text
}

/// Fails with the lines that differ.
#[track_caller]
pub(crate) fn same(what: &str, before: &str, after: &str) {
    if before == after {
        return;
    }
    let missing = |from: &str, of: &str, mark: char| -> String {
        let there: std::collections::BTreeSet<_> = of.lines().collect();
        let mut text = String::new();
        for line in from.lines().filter(|line| !there.contains(line)) {
            text.push(mark);
            text.push(' ');
            text.extend(line.chars().take(400));
            text.push('\n');
        }
        text
    };
    panic!("{what}:\n{}{}", missing(before, after, '-'), missing(after, before, '+'));
}
