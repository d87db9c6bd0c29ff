//! What was changed by hand and the file takes in: afterwards the plan wants to undo nothing of it.

use std::collections::BTreeMap;

use reconcile_core::{
    adopt::{Adoption, adoption, patch},
    model::PauseNote,
};
use reconcile_sim::{World, fixture};
use serde_json::json;

#[test]
fn parameters_set_by_hand_are_adopted_and_the_rest_is_named() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = World::converged(&desired);
    assert_eq!(adoption(&desired, &world.observe(&desired)), Adoption::default());
    for scope in world.etcd.values_mut().flat_map(|store| store.scopes.values_mut()) {
        let config = &mut scope.config;
        config["ttl"] = json!(77);
        config["postgresql"]["parameters"]["work_mem"] = json!("64MB");
        config["postgresql"]["parameters"]["autovacuum"] = json!(false);
    }
    for database in world.databases.values_mut() {
        database.sql.altered.insert("maintenance_work_mem".to_owned(), "1GB".to_owned());
    }
    world.server_mut("node1").units.get_mut("etcd.service").unwrap().enabled = false;
    let found = adoption(&desired, &world.observe(&desired));
    let wanted = [("autovacuum", "off"), ("maintenance_work_mem", "1GB"), ("work_mem", "64MB")];
    let wanted: BTreeMap<_, _> = wanted
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
        .collect();
    assert_eq!(found.parameters, wanted);
    assert!(found.others.iter().any(|other| other.contains("Patroni's ttl is 77")), "{found:?}");
    assert!(found.others.iter().any(|other| other.contains("node1/etcd")), "{found:?}");

    // Neither a pause nor reporting hides it: that is when people look.
    let by = PauseNote { number: 1, until: 10, by: String::new(), reason: String::new() };
    world.server_mut("node2").pause = Some(by);
    let mut reporting = desired.clone();
    reporting.policy.drift =
        reconcile_spec::valid::DriftModes::all(reconcile_spec::valid::Drift::Report);
    assert_eq!(adoption(&reporting, &world.observe(&reporting)).parameters, wanted);

    // What cannot be seen is not taken for unchanged.
    let mut silent = world.clone();
    silent.server_mut("node3").reach = reconcile_sim::Reach::Silent;
    assert!(adoption(&desired, &silent.observe(&desired)).unknown.is_some());
    for host in ["node1", "node2", "node3"] {
        world.server_mut(host).unknown.insert(reconcile_sim::Section::Patroni);
    }
    assert!(adoption(&desired, &world.observe(&desired)).unknown.is_some());
}

#[test]
fn a_patch_names_the_file_below_its_folder() {
    let text = patch("./db/cluster.yaml", "a\nb\n", "a\nc\n");
    assert!(text.starts_with("--- a/db/cluster.yaml\n+++ b/db/cluster.yaml\n@@"), "{text}");
    assert!(text.contains("-b\n+c\n"), "{text}");
}
