//! Rules and defaults of etcd, Patroni and their packages.

use super::Rules;
use crate::fault::Fault;
use crate::names::ClusterName;
use crate::quantity::{Bytes, Millis};
use crate::v1alpha1;
use crate::valid::{
    Etcd, PackageSource, Packages, Patroni, Profile, Synchronous, SynchronousMode, Watchdog,
};

/// etcd's own defaults. The loss of its leader is noticed within 2 s, well inside the
/// `retry_timeout` of 5 s of the fastest profile; slower values would cost failovers.
const HEARTBEAT: Millis = Millis(100);
const ELECTION: Millis = Millis(1_000);
/// etcd refuses to start above.
const MAX_ELECTION: Millis = Millis(50_000);
/// Patroni's keys are few and rewritten every few seconds; an hour of history is a few megabytes.
const COMPACTION: Millis = Millis::from_secs(3_600);
/// etcd's own default.
const QUOTA: Bytes = Bytes(2 << 30);
/// Patroni's own default.
const MAXIMUM_LAG_ON_FAILOVER: Bytes = Bytes(1 << 20);

pub(super) fn packages(packages: Option<&v1alpha1::Packages>) -> Packages {
    let source = match packages.and_then(|packages| packages.source) {
        None | Some(v1alpha1::PackageSource::Apt) => PackageSource::Apt,
        Some(v1alpha1::PackageSource::Preinstalled) => PackageSource::Preinstalled,
    };
    Packages { source }
}

pub(super) fn version(
    rules: &mut Rules<'_>,
    path: &str,
    version: Option<&String>,
) -> Option<String> {
    let version = version?;
    let fits = version.starts_with(|c: char| c.is_ascii_digit())
        && version
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'~' | b':' | b'-'));
    if !fits {
        rules.push(
            Fault::error(path, format!("{version:?} is no version of a package"))
                .help("write it as `apt-cache policy` shows it, or leave the line out"),
        );
    }
    Some(version.clone())
}

pub(super) fn etcd(
    rules: &mut Rules<'_>,
    etcd: Option<&v1alpha1::Etcd>,
    name: &ClusterName,
) -> Etcd {
    let none = v1alpha1::Etcd::default();
    let v1alpha1::Etcd {
        client_port,
        peer_port,
        data_dir,
        heartbeat_interval,
        election_timeout,
        auto_compaction_retention,
        quota_backend,
        version: package,
    } = etcd.unwrap_or(&none);
    let (beat_path, election_path) = ("spec.etcd.heartbeatInterval", "spec.etcd.electionTimeout");
    let heartbeat = rules.duration(beat_path, heartbeat_interval.as_ref(), HEARTBEAT, Millis(10));
    // Whoever slows the heartbeat gets an election timeout to match.
    let default = Millis(heartbeat.0.saturating_mul(10)).clamp(ELECTION, MAX_ELECTION);
    let election = rules.duration(election_path, election_timeout.as_ref(), default, Millis(50));
    if election.0 < heartbeat.0.saturating_mul(5) {
        rules.push(
            Fault::error(
                election_path,
                format!("etcd's election timeout of {election} is less than five heartbeats of {heartbeat}"),
            )
            .help(format!("etcd refuses to start so; ten heartbeats are usual: {}", Millis(heartbeat.0.saturating_mul(10))))
            .related(beat_path, "the heartbeat"),
        );
    } else if election > MAX_ELECTION {
        rules.push(Fault::error(
            election_path,
            format!("etcd's election timeout must be at most {MAX_ELECTION}, not {election}"),
        ));
    }
    let quota_path = "spec.etcd.quotaBackend";
    let quota = rules.bytes(quota_path, quota_backend.as_ref(), QUOTA);
    if !(64 << 20..=8 << 30).contains(&quota.0) {
        rules.push(Fault::error(
            quota_path,
            format!("etcd's quota must be from 64MB to 8GB, not {quota}"),
        ));
    }
    Etcd {
        client_port: client_port.unwrap_or(2379),
        peer_port: peer_port.unwrap_or(2380),
        data_dir: rules.directory("spec.etcd.dataDir", data_dir.as_ref(), "/var/lib/etcd"),
        token: format!("reconcile-{name}"),
        heartbeat_ms: heartbeat.0,
        election_ms: election.0,
        auto_compaction_retention: rules.duration(
            "spec.etcd.autoCompactionRetention",
            auto_compaction_retention.as_ref(),
            COMPACTION,
            Millis::from_secs(60),
        ),
        quota_backend: quota,
        version: version(rules, "spec.etcd.version", package.as_ref()),
    }
}

/// The four times of a profile: ttl, loop_wait, retry_timeout, primary_start_timeout.
pub(crate) const fn times(profile: Profile) -> (u32, u32, u32, u32) {
    match profile {
        Profile::Fast => (20, 5, 5, 15),
        Profile::Norm => (30, 5, 10, 25),
        Profile::Safe => (60, 10, 20, 45),
    }
}

pub(super) fn patroni(rules: &mut Rules<'_>, patroni: Option<&v1alpha1::Patroni>) -> Patroni {
    let none = v1alpha1::Patroni::default();
    let v1alpha1::Patroni {
        profile,
        ttl,
        loop_wait,
        retry_timeout,
        primary_start_timeout,
        maximum_lag_on_failover,
        failsafe_mode,
        use_pg_rewind,
        synchronous,
        rest_api_port,
        watchdog,
        version: package,
    } = patroni.unwrap_or(&none);
    let profile = match profile {
        Some(v1alpha1::Profile::Fast) => Profile::Fast,
        None | Some(v1alpha1::Profile::Norm) => Profile::Norm,
        Some(v1alpha1::Profile::Safe) => Profile::Safe,
    };
    let defaults = times(profile);
    let ttl = ttl.unwrap_or(defaults.0);
    let loop_wait = loop_wait.unwrap_or(defaults.1);
    let retry_timeout = retry_timeout.unwrap_or(defaults.2);
    time_rule(rules, ttl, loop_wait, retry_timeout);
    Patroni {
        profile,
        ttl,
        loop_wait,
        retry_timeout,
        primary_start_timeout: primary_start_timeout.unwrap_or(defaults.3),
        maximum_lag_on_failover: rules.bytes(
            "spec.patroni.maximumLagOnFailover",
            maximum_lag_on_failover.as_ref(),
            MAXIMUM_LAG_ON_FAILOVER,
        ),
        failsafe_mode: failsafe_mode.unwrap_or(true),
        use_pg_rewind: use_pg_rewind.unwrap_or(true),
        synchronous: synchronous_of(rules, synchronous.as_ref(), package.as_deref()),
        rest_api_port: rest_api_port.unwrap_or(8008),
        watchdog: match watchdog {
            Some(v1alpha1::Watchdog::Off) => Watchdog::Off,
            None | Some(v1alpha1::Watchdog::Automatic) => Watchdog::Automatic,
            Some(v1alpha1::Watchdog::Required) => Watchdog::Required,
        },
        version: version(rules, "spec.patroni.version", package.as_ref()),
    }
}

/// Patroni adjusts values that break this rule without an error, so that what runs would differ
/// from what was written.
fn time_rule(rules: &mut Rules<'_>, ttl: u32, loop_wait: u32, retry_timeout: u32) {
    let needed = loop_wait + 2 * retry_timeout;
    if needed <= ttl {
        return;
    }
    let said: Vec<String> = ["ttl", "loopWait", "retryTimeout"]
        .iter()
        .map(|field| format!("spec.patroni.{field}"))
        .filter(|path| rules.places.says(path))
        .collect();
    let path = said.first().map_or("spec.patroni", String::as_str);
    let mut fault = Fault::error(
        path,
        format!(
            "loopWait + 2·retryTimeout must not exceed ttl, but {loop_wait} + 2·{retry_timeout} = {needed} > {ttl}"
        ),
    )
    .help(format!(
        "raise ttl to {needed}, or lower retryTimeout to {}; Patroni would silently run with other values than these",
        (ttl.saturating_sub(loop_wait) / 2).max(3)
    ));
    for other in said.iter().skip(1) {
        fault = fault.related(other.as_str(), "part of the sum");
    }
    rules.push(fault);
}

fn synchronous_of(
    rules: &mut Rules<'_>,
    synchronous: Option<&v1alpha1::Synchronous>,
    version: Option<&str>,
) -> Synchronous {
    let none = v1alpha1::Synchronous::default();
    let v1alpha1::Synchronous { mode, strict, node_count } = synchronous.unwrap_or(&none);
    let mode = match mode {
        None | Some(v1alpha1::SynchronousMode::Off) => SynchronousMode::Off,
        Some(v1alpha1::SynchronousMode::On) => SynchronousMode::On,
        Some(v1alpha1::SynchronousMode::Quorum) => SynchronousMode::Quorum,
    };
    let patroni_4 = version.is_some_and(|version| {
        version.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse::<u32>().ok())
            >= Some(4)
    });
    if mode == SynchronousMode::Quorum && !patroni_4 {
        rules.push(
            Fault::error(
                "spec.patroni.synchronous.mode",
                "`quorum` needs Patroni 4; an older one takes it for `off` without a word, and acknowledged writes can be lost",
            )
            .help("write `mode: \"on\"`, or pin `patroni.version` to 4 or later"),
        );
    }
    if mode == SynchronousMode::Off && *strict == Some(true) {
        rules.push(
            Fault::error(
                "spec.patroni.synchronous.strict",
                "`strict: true` has no effect while replication is asynchronous",
            )
            .help("add `mode: on`, or leave `strict` out"),
        );
    }
    Synchronous { mode, strict: strict.unwrap_or(false), node_count: node_count.unwrap_or(1) }
}
