//! Specifications there and back.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use reconcile_core::model::{
    FileMount, NetworkAttachment, PublishedPort, ServiceMode, ServiceSpec, UpdateRule,
};
use reconcile_swarm::{
    CLUSTER, Ids, RESOLVED_IMAGE, SPEC_HASH, UNMODELLED, from_engine, to_engine,
};
use serde_json::{Value, json};

use crate::fake::blank;

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_.-]{0,12}"
}

fn mounts() -> impl Strategy<Value = Vec<FileMount>> {
    let mount = (word(), word(), any::<u32>(), any::<u32>(), 0u32..0o1000)
        .prop_map(|(target, source, uid, gid, mode)| FileMount { target, source, uid, gid, mode });
    vec(mount, 0..4).prop_map(sorted)
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let own = |mut labels: BTreeMap<String, String>| {
        labels.insert(CLUSTER.to_owned(), "demo".to_owned());
        labels
    };
    proptest::collection::btree_map(word(), word(), 0..4).prop_map(own)
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}

prop_compose! {
    fn attachment()(network in word(), aliases in vec(word(), 0..3)) -> NetworkAttachment {
        NetworkAttachment { network, aliases: sorted(aliases) }
    }
}

prop_compose! {
    fn rule()(
        parallelism in 0u64..10,
        times in (0u64..1_000_000, 1u64..1_000_000),
        failure_action in prop_oneof![Just("rollback"), Just("pause"), Just("continue")],
        order in prop_oneof![Just("stop-first"), Just("start-first")],
    ) -> UpdateRule {
        UpdateRule {
            parallelism, delay_ms: times.0, monitor_ms: times.1,
            failure_action: failure_action.to_owned(), order: order.to_owned(),
        }
    }
}

prop_compose! {
    fn texts()(
        lists in (vec(word(), 0..3), vec(word(), 0..3), vec(word(), 0..3), vec(word(), 0..3)),
        user in prop_oneof![Just(String::new()), word()],
        stop_signal in prop_oneof![Just(String::new()), Just("SIGUSR1".to_owned())],
        digest in proptest::option::of(Just("sha256:0a".to_owned())),
        labels in (labels(), labels()),
    ) -> ServiceSpec {
        let (command, args, env, constraints) = lists;
        ServiceSpec {
            command, args, env, constraints: sorted(constraints), user, stop_signal, digest,
            labels: labels.0, container_labels: labels.1, ..blank("db_front")
        }
    }
}

prop_compose! {
    fn spec()(
        texts in texts(),
        mode in prop_oneof![Just(ServiceMode::Global), (0u64..9).prop_map(ServiceMode::Replicated)],
        networks in vec(attachment(), 0..3),
        ports in vec((any::<u16>(), any::<u16>()), 0..4),
        files in (mounts(), mounts()),
        flags in any::<(bool, bool)>(),
        times in (0u64..1_000_000, 0u64..1_000_000),
        update in rule(),
    ) -> ServiceSpec {
        let port = |(published, target)| PublishedPort { published, target };
        ServiceSpec {
            mode, networks: sorted(networks), ports: sorted(ports.into_iter().map(port).collect()),
            configs: files.0, secrets: files.1, init: flags.0, dnsrr: flags.1,
            stop_grace_ms: times.0, restart_delay_ms: times.1, update, ..texts
        }
    }
}

fn written(spec: &ServiceSpec) -> Value {
    let id = |mount: &FileMount| (mount.source.clone(), format!("id-{}", mount.source));
    let ids = Ids {
        configs: spec.configs.iter().map(id).collect(),
        secrets: spec.secrets.iter().map(id).collect(),
    };
    serde_json::to_value(to_engine(spec, &ids).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(spec in spec()) {
        let mut json = written(&spec);
        // The engine answers with ids in the place of network names.
        let mut names = BTreeMap::new();
        for network in json["TaskTemplate"]["Networks"].as_array_mut().unwrap() {
            let name = network["Target"].as_str().unwrap().to_owned();
            let id = format!("net-{name}");
            network["Target"] = id.clone().into();
            names.insert(id, name);
        }
        prop_assert_eq!(from_engine(&json, &names).unwrap(), spec);
    }
}

#[test]
fn bookkeeping_labels_are_written_and_never_read() {
    let spec = blank("db_front");
    let json = written(&spec);
    assert_eq!(json["Labels"][RESOLVED_IMAGE], "registry.example/haproxy:2.6");
    assert_eq!(json["Labels"][SPEC_HASH].as_str().unwrap().len(), 64);
    assert_eq!(json["RollbackConfig"]["FailureAction"], "pause");
    assert!(json["TaskTemplate"]["ContainerSpec"].get("HealthCheck").is_none());
    assert_eq!(from_engine(&json, &BTreeMap::new()).unwrap(), spec);
}

#[test]
fn a_missing_config_is_named() {
    let mount = FileMount { target: "/a".into(), source: "gone".into(), uid: 0, gid: 0, mode: 0 };
    let spec = ServiceSpec { configs: vec![mount], ..blank("db_front") };
    let error = to_engine(&spec, &Ids::default()).unwrap_err();
    assert_eq!(error, "the config gone does not exist in the Swarm");
}

#[test]
fn the_engines_defaults_are_spelled_out() {
    let spec = from_engine(
        &json!({"Name": "x", "Labels": null, "TaskTemplate": {"ContainerSpec": {"Image": "a:1@sha256:b"}, "Networks": null},
                "Mode": {"Replicated": {}}, "UpdateConfig": null}),
        &BTreeMap::new(),
    )
    .unwrap();
    assert_eq!((spec.image.as_str(), spec.digest.as_deref()), ("a:1", Some("sha256:b")));
    assert_eq!((spec.stop_grace_ms, spec.restart_delay_ms), (10_000, 5_000));
    assert_eq!((spec.update.monitor_ms, spec.update.failure_action.as_str()), (5_000, "pause"));
    assert_eq!(spec.mode, ServiceMode::Replicated(1));
}

#[test]
fn changes_by_hand_beyond_the_model_show_on_services_of_ours() {
    let mut json = written(&blank("db_front"));
    let container = &mut json["TaskTemplate"]["ContainerSpec"];
    // As the engine spells it, which is not as bollard does.
    container["Healthcheck"] = json!({"Test": ["CMD", "true"]});
    container["Mounts"] = json!([{"Type": "bind", "Source": "/", "Target": "/host"}]);
    container["DNSConfig"] = json!({});
    container["Isolation"] = "default".into();
    json["TaskTemplate"]["Resources"] = json!({"Limits": {"MemoryBytes": 1}, "Reservations": {}});
    json["EndpointSpec"]["Ports"] =
        json!([{"Protocol": "udp", "TargetPort": 53, "PublishMode": "ingress"}]);
    json["RollbackConfig"]["Order"] = "start-first".into();
    let labels = from_engine(&json, &BTreeMap::new()).unwrap().labels;
    assert_eq!(
        labels[UNMODELLED],
        "EndpointSpec/Ports/53, RollbackConfig, TaskTemplate/ContainerSpec/Healthcheck, \
         TaskTemplate/ContainerSpec/Mounts, TaskTemplate/Resources"
    );
    json["Labels"].as_object_mut().unwrap().remove(CLUSTER);
    assert!(from_engine(&json, &BTreeMap::new()).unwrap().labels.is_empty());
}
