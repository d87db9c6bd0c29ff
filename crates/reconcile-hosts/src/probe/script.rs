//! The probe's text: POSIX shell, and as few processes as can be, for starting them is most of the
//! time that a probe takes. What is slow runs side by side; every part writes a file of its own in
//! a private directory, and at the end two processes send all of them.

use std::fmt::Write as _;

use reconcile_core::{
    model::AccessNote,
    probe::{ProbeRequest, SqlProbe},
};

use super::sql;
use crate::apply::{OUTDATED, OWED, pooler::path as guard_path};
use crate::shell::{quote, script, words};

/// Seconds that one HTTP request to a local service may take. A member without quorum answers
/// some of them only after many seconds.
const HTTP_SECONDS: u32 = 1;
/// Seconds that psql may take for all its questions.
pub(crate) const PSQL_SECONDS: u64 = 3;
/// Properties of units.
const UNIT_PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,\
                               NRestarts,MainPID,FragmentPath,ExecMainStartTimestamp,InvocationID";
/// A drifted file's text is sent up to this size.
pub(crate) const TEXT_LIMIT: usize = 64 * 1024;

/// What was seen together with answers that need not be given again while it is the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The sockets that listen, each with its inode: for who owns them, which takes a look at every
    /// open file of every process.
    pub sockets: String,
    /// Inodes and times of dpkg's database and of the Swarm's state: for the packages, and for
    /// Docker's `/info`, for which it starts three processes.
    pub files: String,
}

impl Marks {
    /// A Docker that keeps its state elsewhere leaves no mark.
    pub(crate) fn tell_of_docker(&self) -> bool {
        self.files.contains(SWARM_STATE)
    }
}

/// Where Docker keeps what `/info` tells of the Swarm.
const SWARM_STATE: &str = "/var/lib/docker/swarm ";

/// The script that answers `request`. Pure: the same request gives the same text.
pub fn probe_script(request: &ProbeRequest) -> String {
    text(request, None)
}

/// The same for a shell that stays open: it leaves its marks, and spares what is known where they
/// are as in `known`.
pub fn marking_script(request: &ProbeRequest, known: &Marks) -> String {
    text(request, Some(known))
}

fn text(request: &ProbeRequest, known: Option<&Marks>) -> String {
    let mut body = String::from(START);
    if let Some(known) = known {
        let _infallible = write!(
            body,
            "marks=$(stat -c '%n %i %.Z' --{} 2>/dev/null)\nprintf '%s\\n' \"$marks\" >marks\n\
             same=; [ -z \"$marks\" ] || [ \"$marks\" != {} ] || same=1\n",
            words(MARKED),
            quote(known.files.trim_end_matches('\n'))
        );
    }
    http(&mut body, request, known);
    psql(&mut body, request);
    packages(&mut body, request, known);
    units(&mut body, request);
    owed(&mut body, request);
    match known {
        None => {
            let _infallible = writeln!(body, "{LISTENERS} &");
        }
        Some(known) => {
            let _infallible = write!(
                body,
                "six=/proc/net/tcp6; [ -r \"$six\" ] || six=\n\
                 {{ KNOWN={} {MARK_SOCKETS} /proc/net/tcp $six\n\
                 [ $? = {SAME} ] || {LISTENERS}; }} &\n",
                quote(&known.sockets),
            );
        }
    }
    files(&mut body, request);
    data_dirs(&mut body, request);
    replaced(&mut body, request);
    disks(&mut body, request);
    body.push_str(IDENTITY);
    pause(&mut body, request);
    access(&mut body);
    body.push_str(FINISH);
    script(&body)
}

/// A private directory, gone on every way out. /run is memory; /tmp is for servers without it.
const START: &str = r#"umask 077
T=$(mktemp -d /run/reconcile-probe.XXXXXX 2>/dev/null || mktemp -d /tmp/reconcile-probe.XXXXXX) ||
  fail later 'no temporary directory can be made in /run or /tmp'
trap 'rm -rf "$T"' EXIT
trap 'exit 129' HUP INT PIPE TERM
cd "$T" || exit 1
date +%s%3N >begin
"#;

/// What dpkg replaces whenever it changes anything, and Docker when a node joins, leaves or changes
/// its role.
pub(super) const MARKED: [&str; 5] = [
    "/var/lib/dpkg/status",
    "/var/lib/dpkg/updates",
    "/run/docker.pid",
    "/var/lib/docker/swarm",
    "/var/lib/docker/swarm/certificates",
];
/// Local address, user and inode of each listening socket.
const MARK_SOCKETS: &str = r#"awk '$4 == "0A" { rows = rows $2 " " $8 " " $10 "\n" }
END { printf "%s", rows >"sockets"; if (rows != "" && rows == ENVIRON["KNOWN"]) exit 3 }'"#;
/// How it says that they are the known ones.
const SAME: u32 = 3;

/// Every TCP listener, and the cgroup of each owner in the same process.
const LISTENERS: &str = r#"{ ss -Hltnp >.ss 2>ss.err; printf '%s\n' $? >ss.rc
awk '{ print; line = $0
  while (match(line, /pid=[0-9]+/)) {
    pids[substr(line, RSTART + 4, RLENGTH - 4)] = 1
    line = substr(line, RSTART + RLENGTH)
  } }
END { for (pid in pids) { file = "/proc/" pid "/cgroup"
  while ((getline row < file) > 0) print "@" pid " " row
  close(file) } }' .ss >listeners; }"#;

/// Who this server is. Read with builtins: a process for each would cost more.
const IDENTITY: &str = r#"[ ! -r /etc/os-release ] ||
  while IFS= read -r line; do printf '%s\n' "$line"; done </etc/os-release >os
IFS= read -r line </proc/sys/kernel/random/boot_id && printf '%s\n' "$line" >boot
IFS= read -r line </proc/sys/kernel/hostname && printf '%s\n' "$line" >hostname
if [ -e /var/lib/reconcile/manifest ]; then
  cat /var/lib/reconcile/manifest >manifest 2>manifest.err; printf '%s\n' $? >manifest.rc
fi
"#;

/// The note of a pause, with builtins.
fn pause(body: &mut String, request: &ProbeRequest) {
    let path = quote(&request.pause);
    let _infallible = write!(
        body,
        "if [ -e {path} ]; then line=; IFS= read -r line <{path}; printf '%s\n' \"$line\" >pause; fi\n"
    );
}

/// The note of the last trial of access rules, with builtins.
fn access(body: &mut String) {
    let path = AccessNote::PATH;
    let _infallible = write!(
        body,
        "if [ -e {path} ]; then line=; IFS= read -r line <{path}; printf '%s\n' \"$line\" >access; fi\n"
    );
}

/// All sections: a table of sizes, then the bytes. What a part only needs itself is a dot file, so
/// that it does not travel.
const FINISH: &str = r"wait
date +%s%3N >end
printf '%s\n' '@@probe 1'
wc -c -- *
printf '%s\n' '@@data'
cat -- *
printf '%s\n' '@@end'
";

/// Stands for what is asked of Docker, which the shell decides.
pub(super) const DOCKER_PATH: &str = "@path@";

/// What is asked of the services on this server: section, URL, and what is posted.
pub(super) fn transfers(
    request: &ProbeRequest,
) -> Vec<(&'static str, String, Option<&'static str>)> {
    let mut transfers = Vec::new();
    if request.docker {
        transfers.push(("docker", format!("http://docker/{DOCKER_PATH}"), None));
    }
    if let Some(base) = request.etcd.as_deref().map(|base| base.trim_end_matches('/')) {
        transfers.extend([
            ("etcd-version", format!("{base}/version"), None),
            ("etcd-health", format!("{base}/health"), None),
            ("etcd-status", format!("{base}/v3/maintenance/status"), Some("{}")),
            // etcd 3.4 does not know the field and passes it over.
            (
                "etcd-list",
                format!("{base}/v3/cluster/member/list"),
                Some("{\"linearizable\":true}"),
            ),
        ]);
    }
    if let Some(base) = request.patroni.as_deref().map(|base| base.trim_end_matches('/')) {
        transfers.extend([
            ("patroni", format!("{base}/patroni"), None),
            ("patroni-cluster", format!("{base}/cluster"), None),
            ("patroni-config", format!("{base}/config"), None),
        ]);
    }
    transfers
}

/// What the services on this server say: one curl for all, side by side.
fn http(body: &mut String, request: &ProbeRequest, known: Option<&Marks>) {
    if request.docker {
        body.push_str(
            "[ ! -S /var/run/docker.sock ] || printf 'socket\\n' >docker.have\n\
             ! command -v dockerd >/dev/null || printf 'installed\\n' >docker.installed\n",
        );
    }
    let transfers: Vec<String> = transfers(request)
        .into_iter()
        .map(|(name, url, post)| {
            let mut transfer = transfer(&url, name, post);
            if name == "docker" {
                transfer.push_str("unix-socket = \"/var/run/docker.sock\"\n");
            }
            transfer
        })
        .collect();
    if transfers.is_empty() {
        return;
    }
    // Written by the shell itself: a here-document would take a process, in dash two.
    let config = quote(&transfers.join("next\n")).replace(DOCKER_PATH, "'\"$path\"'");
    body.push_str("path=info\n");
    if known.is_some_and(Marks::tell_of_docker) {
        body.push_str("[ -z \"$same\" ] || path=_ping\n");
    }
    let _infallible = write!(
        body,
        "printf '%s' {config} >.curl\n\
         if command -v curl >/dev/null; then\n\
         {{ curl -q -sS -Z -K .curl >http 2>http.err; printf '%s\\n' $? >http.rc; }} &\n",
    );
    if request.docker {
        body.push_str(
            "elif [ -s docker.have ] && command -v docker >/dev/null; then\n\
             { timeout 2 docker info --format '{{json .}}' >docker 2>http.err\n\
             printf '%s\\tdocker\\t%s\\n' \"$?\" 'docker info failed' >http; } &\n",
        );
    }
    body.push_str("fi\n");
}

/// One transfer in curl's configuration. Its result is a line `code TAB file TAB error`.
fn transfer(url: &str, name: &str, post: Option<&str>) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut text = format!(
        "url = \"{}\"\noutput = \"{name}\"\nmax-time = {HTTP_SECONDS}\nnoproxy = \"*\"\ngloboff\n\
         insecure\nwrite-out = \"%{{http_code}}\\t{name}\\t%{{errormsg}}\\n\"\n",
        escape(url)
    );
    if let Some(data) = post {
        let _infallible = writeln!(text, "data = \"{}\"", escape(data));
    }
    text
}

/// What the local PostgreSQL says, asked as its own user. A `psql` on the PATH is Debian's wrapper in
/// Perl, so the program itself is run where its directory is known.
fn psql(body: &mut String, request: &ProbeRequest) {
    let Some(probe) = &request.sql else { return };
    let socket = format!("{}/.s.PGSQL.{}", probe.socket_dir.trim_end_matches('/'), probe.port);
    let _infallible = write!(
        body,
        "if [ -S {socket} ]; then\nprintf '%s' {sql} >.psql\n\
         {{ timeout {PSQL_SECONDS} {command} <.psql >sql 2>sql.err\n\
         printf '%s\\n' $? >sql.rc; }} &\nfi\n",
        socket = quote(&socket),
        sql = quote(&sql::probe(&probe.databases, &probe.settings)),
        command = psql_command(probe, request.postgres_bin_dir.as_deref()),
    );
}

/// A psql that reads from its standard input.
pub(crate) fn psql_command(probe: &SqlProbe, bin_dir: Option<&str>) -> String {
    let psql = bin_dir
        .map_or_else(|| "psql".to_owned(), |dir| format!("{}/psql", dir.trim_end_matches('/')));
    format!(
        "setpriv --reuid=postgres --regid=postgres --init-groups env -i -C / PATH=\"$PATH\" LC_ALL=C \
         PGAPPNAME=reconcile PGCONNECT_TIMEOUT=2 PGCLIENTENCODING=UTF8 \
         PGOPTIONS='-c default_transaction_read_only=on -c statement_timeout=2000 -c lock_timeout=500' \
         {psql} -XAtq -h {dir} -p {port} -U postgres -d {first}",
        psql = quote(&psql),
        dir = quote(&probe.socket_dir),
        port = probe.port,
        first = sql::FIRST,
    )
}

/// dpkg itself is asked for too: its architecture is the system's, and its absence is an error.
fn packages(body: &mut String, request: &ProbeRequest, known: Option<&Marks>) {
    let mut names: Vec<&str> = request.packages.iter().map(String::as_str).collect();
    if !request.packages.contains("dpkg") {
        names.push("dpkg");
    }
    if known.is_some() {
        body.push_str("[ -n \"$same\" ] || ");
    }
    let _infallible = writeln!(
        body,
        "dpkg-query -W -f '${{Package}}\\t${{Version}}\\t${{Status}}\\t${{Architecture}}\\n' --{} \
         >packages 2>packages.err &",
        words(names)
    );
}

/// All units in one question. systemd before 248 cannot print seconds: then start times are unknown.
fn units(body: &mut String, request: &ProbeRequest) {
    if request.units.is_empty() {
        return;
    }
    let units = words(&request.units);
    let _infallible = writeln!(
        body,
        "{{ systemctl show --no-pager -p {UNIT_PROPERTIES} --timestamp=unix --{units} >units 2>units.err ||\n\
         systemctl show --no-pager -p {UNIT_PROPERTIES} --{units} >units 2>units.err\n\
         printf '%s\\n' $? >units.rc; }} &",
    );
}

/// What an operator that was cut off left to be done, in files of memory. Read with builtins.
fn owed(body: &mut String, request: &ProbeRequest) {
    let _infallible = write!(
        body,
        "for f in {OWED}*; do\n\
         \x20 ! IFS= read -r line <\"$f\" || printf '%s %s\\n' \"${{f#{OWED}}}\" \"$line\"\n\
         done >owed 2>/dev/null\n\
         for f in {OUTDATED}*; do\n\
         \x20 ! IFS= read -r line <\"$f\" || printf '%s %s\\n' \"${{f#{OUTDATED}}}\" \"$line\"\n\
         done >outdated 2>/dev/null\n"
    );
    if let Some(cluster) = &request.pooler_of {
        let guard = quote(&guard_path(cluster));
        let _infallible = writeln!(body, "[ ! -e {guard} ] || printf 'guarded\\n' >guard");
    }
}

fn files(body: &mut String, request: &ProbeRequest) {
    if request.files.is_empty() {
        return;
    }
    let paths = words(request.files.iter().map(|file| file.path.as_str()));
    let _infallible = write!(
        body,
        "stat --printf '%f\\t%U\\t%G\\t%n\\n' --{paths} >stat 2>stat.err\n\
         set --\n\
         for f in{paths}; do\n  if [ -f \"$f\" ] && [ ! -L \"$f\" ]; then set -- \"$@\" \"$f\"; fi\ndone\n\
         [ $# = 0 ] || sha256sum -- \"$@\" >sums 2>sums.err\n\
         sums=\n[ ! -s sums ] || sums=\"$(cat sums)\n\"\n\
         # drift N DIGEST PATH: sends the text of a file that is not as desired.\n\
         drift() {{\n  case $sums in *\"$2  $3\n\"*) return ;; esac\n\
         \x20 if [ -f \"$3\" ] && [ ! -L \"$3\" ]; then head -c {} -- \"$3\" >\"text.$1\"; fi\n}}\n",
        TEXT_LIMIT + 1
    );
    for (index, file) in request.files.iter().enumerate().filter(|(_, file)| !file.secret) {
        let (expect, path) = (quote(&file.expect), quote(&file.path));
        let _infallible = writeln!(body, "drift {index} {expect} {path}");
    }
    traces(body, request);
}

/// When a file that is not as desired was changed, and who was logged in at a terminal then. Nothing
/// of it is needed, so what the server cannot tell is left out.
fn traces(body: &mut String, request: &ProbeRequest) {
    body.push_str(TRACES);
    for (index, file) in request.files.iter().enumerate() {
        let Some((mode, owner, group)) = &file.keep else { continue };
        let stat = quote(&format!("{:x}\t{owner}\t{group}", 0o100_000 | mode));
        let (expect, path) = (quote(&file.expect), quote(&file.path));
        let _infallible = writeln!(body, "traced {index} {stat} {expect} {path}");
    }
}

/// `last` prints `NAME LINE [HOST] [HOW IT ENDED]`, boots and the record's own first line among it.
const TRACES: &str = r#"stats="
"
while IFS= read -r line; do stats="$stats$line
"; done <stat
# traced N STAT DIGEST PATH
traced() {
  case $stats in *"
$2	$4
"*) case $sums in *"$3  $4
"*) return ;; esac ;; esac
  at=$(stat -c %Z -- "$4" 2>/dev/null) || return
  printf '%s\n' "$at" >"changed.$1"
  last -w --time-format notime -p "$(date -d "@$at" '+%Y-%m-%d %H:%M:%S')" 2>/dev/null |
    awk 'NF > 1 && $1 !~ /^(reboot|shutdown|runlevel|wtmp)$/ && n++ < 5 {
      print $1, $3 ~ /^(\(|-|still$|running$|gone$|crash$|down$)/ ? "" : $3 }' >>"changed.$1"
}
"#;

/// The process of a PostgreSQL whose program was replaced since it started. Only where it is not the
/// one that is installed, a process is started to find out why.
fn replaced(body: &mut String, request: &ProbeRequest) {
    let Some(bin_dir) = &request.postgres_bin_dir else { return };
    let program = quote(&format!("{}/postgres", bin_dir.trim_end_matches('/')));
    let _infallible = write!(
        body,
        "for d in{}; do\n\
         \x20 [ -r \"$d/postmaster.pid\" ] && IFS= read -r pid <\"$d/postmaster.pid\" || continue\n\
         \x20 [ -e \"/proc/$pid/exe\" ] && ! [ \"/proc/$pid/exe\" -ef {program} ] || continue\n\
         \x20 case $(readlink \"/proc/$pid/exe\") in\n\
         \x20   */postgres*' (deleted)') printf '%s\\n' \"$pid\" >replaced ;;\n  esac\ndone\n",
        words(&request.data_dirs)
    );
}

/// Whether directories hold anything, and the database's identifier: the first eight bytes of
/// `pg_control`, in every version of PostgreSQL.
fn data_dirs(body: &mut String, request: &ProbeRequest) {
    if request.data_dirs.is_empty() {
        return;
    }
    let dirs = words(&request.data_dirs);
    let _infallible = write!(
        body,
        "for d in{dirs}; do\n\
         \x20 if [ -d \"$d\" ]; then printf 'dir\\t%s\\n' \"$d\"\n\
         \x20 elif [ -e \"$d\" ] || [ -L \"$d\" ]; then printf 'other\\t%s\\n' \"$d\"; fi\n\
         \x20 if [ -f \"$d/global/pg_control\" ]; then\n\
         \x20   id=$(od -An -t u8 -N 8 -- \"$d/global/pg_control\") && printf 'id\\t%s\\t%s\\n' \"$d\" \"$id\"\n\
         \x20 fi\ndone >dirs 2>dirs.err\n\
         find -H{dirs} -mindepth 1 -maxdepth 1 ! -name lost+found -printf '%H\\n' >entries 2>entries.err\n"
    );
}

fn disks(body: &mut String, request: &ProbeRequest) {
    if request.disks.is_empty() {
        return;
    }
    let _infallible = write!(
        body,
        "set --\nfor p in{}; do\n  e=$p\n\
         \x20 while [ ! -e \"$e\" ]; do case $e in */?*) e=${{e%/*}} ;; *) e=/ ;; esac; [ -n \"$e\" ] || e=/; done\n\
         \x20 printf '%s\\t%s\\n' \"$p\" \"$e\"; set -- \"$@\" \"$e\"\ndone >disks\n\
         df -B1 --output=size,avail,file -- \"$@\" >'df' 2>df.err\n",
        words(&request.disks)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_the_parsers() {
        let begin = format!("printf '%s\\n' '{}'\n", super::super::sections::BEGIN.trim_end());
        assert!(probe_script(&ProbeRequest::default()).contains(&begin));
    }
}
