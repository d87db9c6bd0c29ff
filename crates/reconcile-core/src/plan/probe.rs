//! What has to be asked so that a plan can be made, and what has to be proven after.

use std::collections::BTreeSet;

use reconcile_spec::{ClusterSpec, valid::SwarmRole};

use super::drift;
use crate::{
    desired::{
        Desired, DesiredServer, access, etcd, patroni,
        postgresql::{PROBE_DATABASE, PROBE_ROLE},
        server::{POLICY, POLICY_TEXT},
    },
    model::{
        ClaimKind, HostFacts, HostName, LocalSwarmState, Observation, Observed, PauseNote,
        SecretText, sha256_hex,
    },
    probe::{ProbeFile, ProbeRequest, SqlProbe, SwarmRequest},
    verify::{Front, VerifyRequest},
};

/// Everything that one round trip to `host` must ask.
pub fn probe_request(desired: &Desired, host: &HostName) -> ProbeRequest {
    let Some(server) = desired.servers.get(host) else { return ProbeRequest::default() };
    let mut files: Vec<ProbeFile> = server
        .files
        .values()
        .map(|managed| ProbeFile {
            path: managed.file.path.clone(),
            expect: managed.file.content.digest(),
            secret: managed.file.content.is_secret(),
            keep: Some((managed.file.mode, managed.file.owner.clone(), managed.file.group.clone())),
        })
        .collect();
    if drift::reports(desired.policy.drift) {
        // No digest is this: the text is always sent.
        let (path, expect) = (drift::RECORD.to_owned(), "-".to_owned());
        files.push(ProbeFile { path, expect, secret: false, keep: None });
    }
    files.push(ProbeFile {
        path: POLICY.to_owned(),
        expect: sha256_hex(POLICY_TEXT.as_bytes()),
        secret: true,
        keep: None,
    });
    let mut data_dirs = BTreeSet::new();
    let member = desired.etcd.members.get(host);
    if member.is_some() {
        data_dirs.insert(desired.etcd.data_dir.clone());
        files.push(ProbeFile {
            path: etcd::BOOTSTRAP_ENV.to_owned(),
            expect: String::new(),
            secret: false,
            keep: None,
        });
    }
    let patroni = desired.patroni.members.get(host);
    if patroni.is_some() {
        data_dirs.insert(desired.patroni.data_dir.clone());
        files.push(ProbeFile {
            path: access::file(&desired.patroni.data_dir),
            expect: desired.patroni.access.file_digest.clone(),
            secret: true,
            keep: None,
        });
    }
    let disks = data_dirs
        .iter()
        .cloned()
        .chain([crate::desired::server::PACKAGE_DISK.to_owned()])
        .collect();
    ProbeRequest {
        pause: PauseNote::path(&desired.cluster),
        packages: packages(server),
        files,
        units: server.units.keys().cloned().collect(),
        data_dirs,
        disks,
        docker: server.swarm != SwarmRole::None,
        pooler_of: (server.swarm != SwarmRole::None).then(|| desired.cluster.clone()),
        etcd: member.map(|member| member.client_url.clone()),
        patroni: patroni.map(|member| member.rest_url.clone()),
        sql: patroni.map(|member| SqlProbe {
            port: member.postgresql_port,
            socket_dir: patroni::SOCKET_DIR.to_owned(),
            databases: desired
                .sql
                .lookup_in
                .iter()
                .chain(desired.sql.databases.keys())
                .cloned()
                .collect(),
            settings: super::roll::asked(desired),
        }),
        postgres_bin_dir: patroni.map(|_| desired.patroni.bin_dir.clone()),
    }
}

fn packages(server: &DesiredServer) -> BTreeSet<String> {
    server.packages.iter().map(|package| package.name.clone()).collect()
}

/// Everything that must be asked of the Swarm.
pub fn swarm_request(desired: &Desired) -> SwarmRequest {
    SwarmRequest {
        services: desired.swarm.services.iter().map(|service| service.name.clone()).collect(),
        images: desired
            .swarm
            .services
            .iter()
            .filter(|service| service.digest.is_none())
            .map(|service| service.image.clone())
            .collect(),
    }
}

/// The manager to ask, by the servers' own words: `Known(None)` where no server is in a Swarm. It is
/// one of the Swarm that most servers are in whose membership we claimed: a server that somebody took
/// into another Swarm must not hide ours.
pub fn swarm_via(
    desired: &Desired,
    hosts: &std::collections::BTreeMap<HostName, Observation<HostFacts>>,
) -> Observation<Option<HostName>> {
    let managers: Vec<_> = desired
        .swarm
        .nodes
        .iter()
        .filter_map(|(host, _)| {
            let facts = hosts.get(host)?.known()?;
            let swarm = &facts.docker.present()?.swarm;
            let manages = swarm.state == LocalSwarmState::Active && swarm.manager;
            let claimed = facts.manifest.claims(ClaimKind::Swarm, super::swarm::CLAIM);
            manages.then_some((host, claimed, &swarm.cluster_id))
        })
        .collect();
    let ours = |id: &Option<String>| {
        managers.iter().filter(|(_, claimed, other)| *claimed && *other == id).count()
    };
    let mut best = None;
    for (host, _, id) in &managers {
        if best.is_none_or(|(_, most)| ours(id) > most) {
            best = Some((host, ours(id)));
        }
    }
    if let Some((host, _)) = best {
        return Observation::Known(Some((*host).clone()));
    }
    let mut unknown = None;
    for (host, _) in &desired.swarm.nodes {
        match hosts.get(host) {
            Some(Observation::Known(facts)) => match &facts.docker {
                Observation::Unknown { reason } => {
                    unknown.get_or_insert_with(|| format!("Docker on {host}: {reason}"));
                }
                Observation::Known(Some(docker))
                    if docker.swarm.state != LocalSwarmState::Inactive =>
                {
                    unknown.get_or_insert_with(|| {
                        format!("{host} is in a Swarm, but no manager answers")
                    });
                }
                Observation::Known(_) => {}
            },
            Some(Observation::Unknown { .. }) => {
                unknown.get_or_insert_with(|| format!("{host} is not known"));
            }
            None => {}
        }
    }
    match unknown {
        Some(reason) => Observation::Unknown { reason },
        None => Observation::Known(None),
    }
}

/// The service proof of a specification: through the front of every Swarm node; what is not known cannot
/// be tried.
pub fn verify_request(
    spec: &ClusterSpec,
    observed: &Observed,
    password: SecretText,
    commit: bool,
    token: String,
) -> VerifyRequest {
    let publish = &spec.haproxy.publish;
    let (fronts, unseen) = spec
        .swarm_hosts()
        .map(|host| {
            let (write_port, read_port, through) = match publish.write {
                Some(write) => (write, publish.read, "HAProxy"),
                // Nothing of the front is published: prove the pooler below it.
                None => (spec.pgbouncer.ports.write, Some(spec.pgbouncer.ports.read), "PgBouncer"),
            };
            Front {
                host: HostName::new(host.name.as_str()),
                address: host.address.to_string(),
                write_port,
                read_port,
                through: through.to_owned(),
            }
        })
        .partition(|front| observed.host(&front.host).is_some());
    VerifyRequest {
        fronts,
        unseen,
        role: PROBE_ROLE.to_owned(),
        password,
        database: PROBE_DATABASE.to_owned(),
        commit,
        token,
    }
}
