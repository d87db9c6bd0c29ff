//! The lab itself: up is idempotent, its verbs do what they say, and down leaves nothing behind.

use serde_json::Value;

use crate::harness::{Lab, PATIENCE, json, until};

/// Containers, volumes and networks of the outer engine that belong to a lab.
fn left(lab: &Lab) -> String {
    let name = lab.name();
    Lab::engine(&format!(
        "docker ps -aq --filter name=^{name}- ; docker volume ls -q --filter name=^{name}- ; docker network ls -q --filter name=^reconcile-lab-{name}$"
    ))
}

fn server(lab: &Lab) -> Value {
    let status = json(&lab.lab(&["status", "-o", "json"]));
    status["servers"][0].clone()
}

#[test]
fn a_lab_comes_and_goes() {
    let name = format!("{}lab", Lab::shared_name());
    let lab = Lab::up(&name, &["--servers", "1"]);
    let dir = lab.dir();
    let before = left(&lab);
    assert!(!before.trim().is_empty());
    lab.sh("node1", "echo kept > /root/kept");
    let again = lab.lab(&["up", "--servers", "1"]);
    assert_eq!(left(&lab), before, "a second up makes nothing\n{again}");
    assert_eq!(server(&lab)["power"], "on", "{}", server(&lab));

    lab.lab(&["stop", "node1"]);
    assert_eq!(server(&lab)["power"], "off", "{}", server(&lab));
    lab.lab(&["start", "node1"]);
    assert_eq!(server(&lab)["power"], "on", "{}", server(&lab));
    let told = lab.lab(&["exec", "node1", "--", "cat", "/root/kept"]);
    assert_eq!(told.stdout, "kept\n", "a power cut keeps the disk");

    lab.lab(&["cut", "node1"]);
    until("the server to be cut off", PATIENCE, || {
        let server = server(&lab);
        let cut = server["cut"] == true && server["ssh"] == false;
        if cut { Ok(()) } else { Err(server.to_string()) }
    });
    lab.lab(&["heal", "node1"]);
    until("the server to be back", PATIENCE, || {
        let server = server(&lab);
        if server["ssh"] == true { Ok(()) } else { Err(server.to_string()) }
    });

    lab.lab(&["reset"]);
    lab.sh("node1", "test ! -e /root/kept");
    lab.lab(&["down"]);
    assert_eq!(left(&lab).trim(), "");
    assert!(!dir.exists(), "{} is left", dir.display());
    // Also when there is nothing.
    lab.lab(&["down"]);
}
