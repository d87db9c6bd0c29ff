//! From the core's types to what goes out.

use std::time::{Duration, UNIX_EPOCH};

use reconcile_core::{
    model::{ObjectId, RefusedSource, Revision},
    plan::{HoldReason, Step, shown},
    status::{HostStatus, Maintenance as CoreMaintenance, ServiceStatus, Truth},
    verify::VerifyReport,
};

use crate::clock;
use crate::document::{
    Archive, Change, Commit, Host, Leaving, Maintenance, Progress, Proof, ProofPart, Refused,
    Service, Step as StepOut, Task, Versions,
};

pub(crate) fn truth(truth: Truth) -> &'static str {
    match truth {
        Truth::True => "True",
        Truth::False => "False",
        Truth::Unknown => "Unknown",
    }
}

pub(crate) fn host(status: HostStatus, answer_seconds: Option<f64>) -> Host {
    Host {
        name: status.name.to_string(),
        address: status.address,
        unreachable: status.unreachable,
        answers: status.answers,
        leaving: status
            .leaving
            .map(|leaving| Leaving { left: leaving.left, remains: leaving.remains }),
        answer_seconds,
        etcd: status.etcd,
        role: status.role,
        state: status.state,
        timeline: status.timeline,
        lag_bytes: status.lag_bytes,
        archive: status.archiver.map(|archiver| Archive {
            last_archived_at: archiver.archived_at.map(at),
            last_failed_at: archiver.failed_at.map(at),
        }),
        swarm: status.swarm,
        tasks: status.tasks,
        versions: Versions {
            etcd: status.versions.etcd,
            patroni: status.versions.patroni,
            postgresql: status.versions.postgresql,
            docker: status.versions.docker,
        },
    }
}

pub(crate) fn maintenance(status: &CoreMaintenance) -> Maintenance {
    Maintenance {
        open: status.open,
        closes_at: status.closes_at.map(at),
        opens_at: status.opens_at.map(at),
        opens: status.opens.clone(),
        keeps: status.keeps.clone(),
        waiting: status.waiting.iter().map(ToString::to_string).collect(),
    }
}

fn at(seconds: u64) -> String {
    clock::rfc3339(UNIX_EPOCH + Duration::from_secs(seconds))
}

pub(crate) fn service(status: ServiceStatus) -> Service {
    Service {
        name: status.name,
        image: status.image,
        desired_image: status.desired_image,
        running: status.running,
        wanted: status.wanted,
        tasks: status
            .tasks
            .into_iter()
            .map(|task| Task {
                host: task.host.to_string(),
                state: task.state,
                silent: task.silent,
            })
            .collect(),
    }
}

pub(crate) fn step(step: &Step) -> StepOut {
    StepOut {
        id: step.id,
        object: step.object.to_string(),
        class: class(&step.object),
        host: step.object.host().map(ToString::to_string),
        verb: step.verb.word(),
        impact: step.impact.word(),
        reason: step.reason.clone(),
        after: step.after.clone(),
        changes: shown(step)
            .into_iter()
            .map(|change| Change { field: change.field, from: change.from, to: change.to })
            .collect(),
        progress: Progress::default(),
    }
}

pub(crate) fn proof(report: &VerifyReport, at: String) -> Proof {
    Proof {
        at,
        holds: report.holds(),
        outdated: false,
        parts: report
            .proofs
            .iter()
            .map(|proof| ProofPart {
                what: proof.what.clone(),
                host: proof.host.as_ref().map(ToString::to_string),
                holds: proof.holds,
                untried: proof.untried,
                comes_of: proof.comes_of.clone(),
                millis: proof.millis,
                detail: proof.detail.clone(),
            })
            .collect(),
    }
}

/// The class of an object, for counting drift.
pub(crate) fn class(object: &ObjectId) -> &'static str {
    match object {
        ObjectId::Host(_) => "host",
        ObjectId::Packages(_) | ObjectId::Upgrade(_) => "packages",
        ObjectId::File(..) => "file",
        ObjectId::Unit(..) => "unit",
        ObjectId::EtcdMember(_) | ObjectId::EtcdCluster => "etcd",
        ObjectId::PatroniMember(_) | ObjectId::PatroniConfig => "patroni",
        ObjectId::Postgresql(_) => "postgresql",
        ObjectId::Role(_) => "role",
        ObjectId::Database(_)
        | ObjectId::Extension(..)
        | ObjectId::PoolerLookup(_)
        | ObjectId::ProbeTable
        | ObjectId::AlterSystem(..) => "database",
        ObjectId::Swarm | ObjectId::SwarmNode(_) => "swarm",
        ObjectId::Network(_) => "network",
        ObjectId::Config(_) => "config",
        ObjectId::Secret(_) => "secret",
        ObjectId::Service(_) => "service",
        ObjectId::Pooler(_) => "pooler",
    }
}

/// The kind of a hold, as its JSON names it.
pub(crate) fn hold_kind(reason: &HoldReason) -> &'static str {
    match reason {
        HoldReason::Unknown(_) => "unknown",
        HoldReason::Foreign(_) => "foreign",
        HoldReason::PortTaken(_) => "portTaken",
        HoldReason::WaitsFor(_) => "waitsFor",
        HoldReason::Quorum(_) => "quorum",
        HoldReason::Failed(_) => "failed",
        HoldReason::OneAtATime(_) => "oneAtATime",
        HoldReason::Paused(_) => "paused",
        HoldReason::Policy(_) => "policy",
        HoldReason::Window(_) => "window",
        HoldReason::Reported(_) => "reported",
        HoldReason::Impossible(_) => "impossible",
        HoldReason::NeedsPerson(_) => "needsPerson",
    }
}

/// A commit.
pub(crate) fn commit(revision: &Revision) -> Commit {
    Commit {
        hash: revision.commit.clone(),
        author: revision.author.clone(),
        time: revision.time.clone(),
        subject: revision.subject.clone(),
    }
}

/// A longer report of what is wrong with a file is cut off.
const REPORT_MOST: usize = 16 << 10;

/// A desired state that is not taken.
pub(crate) fn refused(refused: &RefusedSource) -> Refused {
    Refused {
        file: refused.file.clone(),
        commit: refused.revision.as_ref().map(commit),
        reason: refused.reason().to_owned(),
        unread: refused.unread,
        report: bounded(&refused.report),
    }
}

fn bounded(report: &str) -> String {
    if report.len() <= REPORT_MOST {
        return report.to_owned();
    }
    let end = (0..=REPORT_MOST).rev().find(|at| report.is_char_boundary(*at)).unwrap_or(0);
    let head = &report[..end];
    let whole = head.rfind('\n').map_or(head, |end| &head[..end]);
    format!("{whole}\n… `reconcile validate` tells the rest")
}
