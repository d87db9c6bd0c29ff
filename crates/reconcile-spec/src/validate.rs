//! From what the user wrote to what the program trusts: defaults, parsed names, and every rule
//! that the schema cannot say. All faults are gathered; nothing stops at the first.

use crate::fault::{Fault, Places, Severity};
use crate::names::{ClusterName, NameError};
use crate::quantity::{Bytes, Millis, QuantityError};
use crate::v1alpha1::{self, PostgresCluster};
use crate::valid::{
    ClusterSpec, Drift, DriftModes, Permission, Policy, SecretsSource, ValidSpec, Window,
};

mod core;
mod cross;
mod hba;
mod hosts;
mod parameters;
mod postgresql;
mod ssh;
mod text;
mod utilities;

/// Longest maintenance window; a longer one is a slip of the unit.
const MAX_WINDOW: Millis = Millis::from_secs(7 * 86_400);

/// Applies defaults and rules to one document. The specification is there only without errors,
/// also those that reading it has found before.
pub(crate) fn validate(
    document: &PostgresCluster,
    places: &Places,
    earlier: &[Fault],
) -> (Option<ValidSpec>, Vec<Fault>) {
    let mut rules = Rules { places, faults: Vec::new() };
    let spec = cluster(&mut rules, document);
    cross::rules(&mut rules, &spec);
    let mut faults = rules.faults;
    // What follows from a fault that is already known is no news.
    faults.retain(|fault| !earlier.iter().any(|known| within(&fault.path, &known.path)));
    let errors = earlier.iter().chain(&faults).any(|fault| fault.severity == Severity::Error);
    ((!errors).then(|| ValidSpec::sealed(spec)), faults)
}

/// Whether `path` is `other` or lies below it.
fn within(path: &str, other: &str) -> bool {
    !other.is_empty()
        && path
            .strip_prefix(other)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The faults so far, and where things are.
struct Rules<'a> {
    places: &'a Places,
    faults: Vec<Fault>,
}

impl Rules<'_> {
    fn push(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// A parsed name, or a placeholder after reporting the fault. The empty text has been
    /// reported by the walk against the schema.
    fn name<T>(
        &mut self,
        path: &str,
        text: &str,
        new: fn(String) -> Result<T, NameError>,
    ) -> Option<T> {
        if text.is_empty() {
            return None;
        }
        match new(text.to_owned()) {
            Ok(name) => Some(name),
            Err(error) => {
                let mut fault = Fault::error(path, error.to_string());
                let lower = text.to_ascii_lowercase().replace(['_', '.', ' '], "-");
                if error.rule.contains("RFC 1123") && new(lower.clone()).is_ok() {
                    fault = fault.help(format!("write `{lower}`"));
                }
                self.push(fault);
                None
            }
        }
    }

    fn quantity<T>(&mut self, path: &str, text: Option<&String>, default: T, example: &str) -> T
    where
        T: std::str::FromStr<Err = QuantityError> + Copy,
    {
        let Some(text) = text else { return default };
        match text.parse() {
            Ok(value) => value,
            Err(error) => {
                let fault = Fault::error(path, error.to_string());
                self.push(fault.help(format!("a number and a unit, such as `{example}`")));
                default
            }
        }
    }

    /// A duration of at least `least`.
    fn duration(
        &mut self,
        path: &str,
        text: Option<&String>,
        default: Millis,
        least: Millis,
    ) -> Millis {
        let value = self.quantity(path, text, default, "30s");
        if value < least {
            self.push(Fault::error(
                path,
                format!("`{path}` must be at least {least}, not {value}"),
            ));
            return default;
        }
        value
    }

    /// A size.
    fn bytes(&mut self, path: &str, text: Option<&String>, default: Bytes) -> Bytes {
        self.quantity(path, text, default, "16MB")
    }

    /// An absolute path on the hosts.
    fn directory(
        &mut self,
        path: &str,
        text: Option<&String>,
        default: impl Into<String>,
    ) -> String {
        let Some(text) = text else { return default.into() };
        if let Some(wrong) = text::path_fault(text) {
            self.push(Fault::error(path, format!("`{path}` {wrong}")).help(
                "an absolute path of letters, digits, '.', '_', '-', as in /var/lib/postgresql/15/main",
            ));
            return default.into();
        }
        text.trim_end_matches('/').to_owned()
    }
}

fn cluster(rules: &mut Rules<'_>, document: &PostgresCluster) -> ClusterSpec {
    let PostgresCluster { api_version: _, kind: _, metadata, spec } = document;
    let v1alpha1::Spec {
        secrets,
        ssh,
        hosts,
        packages,
        etcd,
        patroni,
        postgresql,
        pgbouncer,
        haproxy,
        swarm,
        policy,
    } = spec;
    let name = rules
        .name("metadata.name", &metadata.name, ClusterName::new)
        .unwrap_or_else(ClusterName::placeholder);
    let hosts = hosts::hosts(rules, hosts, ssh.as_ref(), swarm.as_ref());
    ClusterSpec {
        labels: metadata.labels.clone(),
        secrets: secrets_source(rules, secrets.as_ref()),
        packages: core::packages(packages.as_ref()),
        etcd: core::etcd(rules, etcd.as_ref(), &name),
        patroni: core::patroni(rules, patroni.as_ref()),
        postgresql: postgresql::postgresql(rules, postgresql.as_ref()),
        pgbouncer: utilities::pgbouncer(rules, pgbouncer.as_ref()),
        haproxy: utilities::haproxy(rules, haproxy.as_ref()),
        swarm: utilities::swarm(rules, swarm.as_ref()),
        policy: policy_of(rules, policy.as_ref()),
        hosts,
        name,
    }
}

fn secrets_source(rules: &mut Rules<'_>, secrets: Option<&v1alpha1::Secrets>) -> SecretsSource {
    let default = SecretsSource::File("secrets.yaml".to_owned());
    let Some(v1alpha1::Secrets { file, env, exec }) = secrets else { return default };
    match (file, env, exec) {
        (Some(file), None, None) if !file.is_empty() => SecretsSource::File(file.clone()),
        (None, Some(prefix), None) => {
            if prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                SecretsSource::Env(prefix.clone())
            } else {
                let message = format!("{prefix:?} is no prefix of environment variables");
                rules.push(
                    Fault::error("spec.secrets.env", message)
                        .help("letters, digits and '_', such as `RECONCILE_SECRET_`"),
                );
                default
            }
        }
        (None, None, Some(command))
            if command.first().is_some_and(|program| !program.is_empty()) =>
        {
            SecretsSource::Exec(command.clone())
        }
        (None, None, None) => default,
        (Some(_), None, None) => {
            rules.push(Fault::error("spec.secrets.file", "the path of the secrets file is empty"));
            default
        }
        (None, None, Some(_)) => {
            rules.push(
                Fault::error("spec.secrets.exec", "the command has no program")
                    .help("for example `exec: [vault, kv, get, -format=yaml, database]`"),
            );
            default
        }
        _ => {
            let said: Vec<&str> =
                [("file", file.is_some()), ("env", env.is_some()), ("exec", exec.is_some())]
                    .into_iter()
                    .filter_map(|(name, said)| said.then_some(name))
                    .collect();
            let mut fault = Fault::error(
                format!("spec.secrets.{}", said[1]),
                format!("secrets come from one place, but {} are said", said.join(" and ")),
            )
            .help("keep one of them");
            fault = fault.related(format!("spec.secrets.{}", said[0]), "the other source");
            rules.push(fault);
            default
        }
    }
}

fn policy_of(rules: &mut Rules<'_>, policy: Option<&v1alpha1::Policy>) -> Policy {
    let none = v1alpha1::Policy::default();
    let v1alpha1::Policy { drift, drift_by_class, prune, pause, switchover, restart, windows } =
        policy.unwrap_or(&none);
    for (field, permission) in [("switchover", switchover), ("restart", restart)] {
        if *permission == Some(v1alpha1::Permission::InWindow) && windows.is_empty() {
            rules.push(
                Fault::error(
                    format!("spec.policy.{field}"),
                    format!("`{field}: inWindow` without any window would never happen"),
                )
                .help("add `windows: [{ cron: \"0 2 * * 6\", duration: 2h, timezone: Europe/Berlin }]`"),
            );
        }
    }
    let permission = |said: &Option<v1alpha1::Permission>| match said {
        None | Some(v1alpha1::Permission::Allowed) => Permission::Allowed,
        Some(v1alpha1::Permission::InWindow) => Permission::InWindow,
        Some(v1alpha1::Permission::Never) => Permission::Never,
    };
    Policy {
        drift: drift_modes(*drift, drift_by_class.as_ref()),
        prune: prune.unwrap_or(false),
        pause: pause.unwrap_or(false),
        switchover: permission(switchover),
        restart: permission(restart),
        windows: windows.iter().enumerate().filter_map(|(i, w)| window(rules, i, w)).collect(),
    }
}

fn drift_modes(drift: Option<v1alpha1::Drift>, by: Option<&v1alpha1::DriftByClass>) -> DriftModes {
    let none = v1alpha1::DriftByClass::default();
    let v1alpha1::DriftByClass { packages, files, units, postgresql, swarm } = by.unwrap_or(&none);
    let mode = |class: &Option<v1alpha1::Drift>| match class.or(drift) {
        None | Some(v1alpha1::Drift::Heal) => Drift::Heal,
        Some(v1alpha1::Drift::Report) => Drift::Report,
    };
    DriftModes {
        packages: mode(packages),
        files: mode(files),
        units: mode(units),
        postgresql: mode(postgresql),
        swarm: mode(swarm),
    }
}

fn window(rules: &mut Rules<'_>, index: usize, window: &v1alpha1::Window) -> Option<Window> {
    let path = format!("spec.policy.windows[{index}]");
    let v1alpha1::Window { cron, duration, timezone } = window;
    // Empty texts have been reported by the walk.
    let cron = cron
        .parse()
        .map_err(|error: crate::CronError| {
            if cron.is_empty() {
                return;
            }
            rules.push(
                Fault::error(format!("{path}.cron"), error.to_string())
                    .help("for example `0 2 * * 6` (Saturdays at 02:00)"),
            );
        })
        .ok();
    let length_path = format!("{path}.duration");
    let length = rules.duration(
        &length_path,
        Some(duration).filter(|text| !text.is_empty()),
        Millis::from_secs(3600),
        Millis::from_secs(60),
    );
    if length > MAX_WINDOW {
        rules.push(
            Fault::error(length_path, format!("a window of {length} is longer than a week"))
                .help("`switchover: allowed` has no windows at all"),
        );
    }
    let timezone = timezone.clone().unwrap_or_else(|| "UTC".to_owned());
    if !text::is_timezone(&timezone) {
        rules.push(
            Fault::error(format!("{path}.timezone"), format!("{timezone:?} is no IANA time zone name"))
                .help("`UTC`, or an area with a city such as `Europe/Berlin`; abbreviations and offsets know no daylight saving"),
        );
    }
    Some(Window { cron: cron?, duration_s: length.as_secs_ceil(), timezone })
}
