//! Which fields of an observed service say something that our model has no word for.

use serde_json::Value;

/// Objects of a specification and the fields of them that are read, or that mean nothing here.
/// `ForceUpdate` counts restarts by hand and is carried along; `Platforms` is the client's hint.
const MODELLED: [(&str, &[&str]); 8] = [
    (
        "",
        &[
            "Name",
            "Labels",
            "TaskTemplate",
            "Mode",
            "UpdateConfig",
            "RollbackConfig",
            "Networks",
            "EndpointSpec",
        ],
    ),
    ("/Mode", &["Global", "Replicated"]),
    (
        "/TaskTemplate",
        &["ContainerSpec", "RestartPolicy", "Placement", "Networks", "ForceUpdate", "Runtime"],
    ),
    ("/TaskTemplate/ContainerSpec", CONTAINER),
    ("/TaskTemplate/RestartPolicy", &["Condition", "Delay"]),
    ("/TaskTemplate/Placement", &["Constraints", "Platforms"]),
    ("/UpdateConfig", &["Parallelism", "Delay", "FailureAction", "Monitor", "Order"]),
    ("/EndpointSpec", &["Mode", "Ports"]),
];

const CONTAINER: &[&str] = &[
    "Image",
    "Labels",
    "Command",
    "Args",
    "Env",
    "User",
    "Configs",
    "Secrets",
    "StopSignal",
    "StopGracePeriod",
    "Init",
];

/// True where a task was made from this template, as far as our model goes. The engine shows the
/// same specification differently in a service and in its tasks (`DNSConfig`, `Resources`,
/// `Runtime` appear in one only), so they cannot be compared whole.
pub(crate) fn made_from(task: &Value, template: &Value) -> bool {
    let same = |one: &Value, other: &Value| one == other || empty(one) && empty(other);
    CONTAINER
        .iter()
        .all(|field| same(&task["ContainerSpec"][field], &template["ContainerSpec"][field]))
        && ["Networks", "Placement", "ForceUpdate"]
            .iter()
            .all(|field| same(&task[field], &template[field]))
}

/// The fields in question, as paths in the engine's words.
pub(super) fn unmodelled(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (path, known) in MODELLED {
        let Some(Value::Object(fields)) = spec.pointer(path) else { continue };
        for (name, value) in fields {
            if !known.contains(&name.as_str()) && !says_nothing(name, value) {
                found.push(format!("{path}/{name}").trim_start_matches('/').to_owned());
            }
        }
    }
    let text = |path: &str| spec.pointer(path).and_then(Value::as_str).unwrap_or_default();
    if !matches!(text("/TaskTemplate/RestartPolicy/Condition"), "" | "any") {
        found.push("TaskTemplate/RestartPolicy/Condition".to_owned());
    }
    for port in spec.pointer("/EndpointSpec/Ports").and_then(Value::as_array).into_iter().flatten()
    {
        let plain = matches!(port["Protocol"].as_str(), None | Some("" | "tcp"));
        if !plain || port["PublishMode"].as_str() != Some("host") {
            found.push(format!("EndpointSpec/Ports/{}", port["TargetPort"]));
        }
    }
    if !rollback_follows_update(spec) {
        found.push("RollbackConfig".to_owned());
    }
    found.sort();
    found
}

/// We write both with the same values, but for what is to be done about a failure.
fn rollback_follows_update(spec: &Value) -> bool {
    let (update, rollback) = (&spec["UpdateConfig"], &spec["RollbackConfig"]);
    update.is_null() && rollback.is_null()
        || ["Parallelism", "Delay", "Monitor", "Order", "MaxFailureRatio"].iter().all(|field| {
            let (one, other) = (&update[field], &rollback[field]);
            one == other || empty(one) && empty(other)
        }) && matches!(rollback["FailureAction"].as_str(), None | Some("" | "pause"))
}

fn says_nothing(name: &str, value: &Value) -> bool {
    empty(value) || (name == "Isolation" && value == "default")
}

/// True for Go's zero values, at any depth.
fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(empty),
    }
}
