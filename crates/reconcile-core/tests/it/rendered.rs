//! What is written to servers and into containers, to the byte, for a cluster of three.

use reconcile_core::{
    desired::Desired,
    model::{HostName, Listener},
};
use reconcile_sim::{World, fixture};

use crate::golden::golden;

fn bytes(content: &reconcile_core::model::Content) -> String {
    String::from_utf8(content.bytes().to_vec()).unwrap()
}

fn rendered() -> Desired {
    fixture::desire(&fixture::spec(3, 0, |_| {}))
}

#[test]
fn files_of_a_server() {
    let desired = rendered();
    let server = &desired.servers[&HostName::new("node1")];
    let mut names: Vec<_> = server.files.keys().map(String::as_str).collect();
    names.sort_unstable();
    for (path, file) in &server.files {
        let name = path.trim_start_matches('/').replace('/', "-");
        golden(&format!("rendered/node1/{name}"), &bytes(&file.file.content));
    }
    assert_eq!(names.len(), 5, "{names:?}");
}

#[test]
fn files_of_the_services() {
    let desired = rendered();
    for file in desired.swarm.configs.iter().chain(&desired.swarm.secrets) {
        // Without the digest of the content, which the content shows anyway.
        let name = file.name.rsplit_once('-').unwrap().0;
        golden(&format!("rendered/swarm/{name}"), &bytes(&file.content));
    }
    assert_eq!((desired.swarm.configs.len(), desired.swarm.secrets.len()), (4, 1));
}

#[test]
fn specifications_of_the_services() {
    let services = serde_json::to_string_pretty(&rendered().swarm.services).unwrap() + "\n";
    golden("rendered/swarm/services.json", &services);
}

/// The same file gives the same desired state, wherever and however often it is read.
#[test]
fn the_same_file_gives_the_same_bytes() {
    let (once, again) = (rendered(), rendered());
    assert_eq!(once.digest(), again.digest());
    assert_eq!(serde_json::to_vec(&once).unwrap(), serde_json::to_vec(&again).unwrap());
}

/// A proof of service is not made again for what no client depends on.
#[test]
fn a_port_that_comes_and_goes_is_no_news_of_service_and_a_stopped_unit_is() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = World::converged(&desired);
    let before = world.observe(&desired);
    world.server_mut("node2").strangers.push(Listener {
        port: 5555,
        address: "0.0.0.0".to_owned(),
        process: "nc".to_owned(),
        pid: Some(7),
        unit: "session-1.scope".to_owned(),
    });
    let after = world.observe(&desired);
    assert_ne!(before.digest(), after.digest());
    assert_eq!(before.serving_digest(), after.serving_digest());
    world.server_mut("node2").units.get_mut("patroni.service").unwrap().running = false;
    assert_ne!(before.serving_digest(), world.observe(&desired).serving_digest());
}
