//! `/openapi.json`, made from the very types that are served.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::document::{Calm, Document, Entry, StepChange};

/// The description as JSON.
pub(crate) fn json() -> &'static str {
    static JSON: LazyLock<String> = LazyLock::new(|| description().to_string());
    &JSON
}

fn description() -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let status = generator.subschema_for::<Document>();
    let frames = [
        ("step", generator.subschema_for::<StepChange>()),
        ("log", generator.subschema_for::<Entry>()),
        ("calm", generator.subschema_for::<Calm>()),
    ];
    let frames: serde_json::Map<_, _> =
        frames.into_iter().map(|(name, schema)| (name.to_owned(), json!(schema))).collect();
    let schemas = generator.take_definitions(true);
    let text = |about: &str| json!({ "description": about, "content": { "text/plain": {} } });
    let probe = |summary: &str| {
        json!({ "get": {
            "summary": summary, "security": [],
            "responses": { "200": text("yes"), "503": text("no, and why") },
        }})
    };
    let get = |summary: &str, kind: &str, schema: Value| {
        json!({ "get": {
            "summary": summary,
            "responses": {
                "200": { "description": "as asked", "content": { kind: { "schema": schema } } },
                "401": text("the bearer token is missing or wrong"),
            },
        }})
    };
    let mut events = get(
        "Server-sent events: `status`, `step`, `log`, `calm`, `tick`",
        "text/event-stream",
        json!({ "type": "string" }),
    );
    events["get"]["parameters"] = json!([{
        "name": "Last-Event-ID", "in": "header", "schema": { "type": "string" },
        "description": "id of the last event that was seen; what came after it follows",
    }]);
    events["get"]["x-events"] = json!(frames);
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "reconcile status endpoint", "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0" },
        },
        "paths": {
            "/healthz": probe("Does the loop live?"),
            "/readyz": probe("Is what is shown fresh, and the desired state readable?"),
            "/status": get("The status", "application/json", json!(status)),
            "/events": events,
            "/metrics": get("Metrics", "application/openmetrics-text", json!({ "type": "string" })),
            "/openapi.json": get("This description", "application/json", json!({ "type": "object" })),
            "/reconcile": { "post": {
                "summary": "A Git host's push webhook: asks for a pass",
                "security": [],
                "parameters": [{
                    "name": "X-Hub-Signature-256", "in": "header", "required": true,
                    "schema": { "type": "string" },
                    "description": "sha256=HEX, HMAC-SHA256 of the body with the webhook's secret",
                }],
                "requestBody": { "content": { "application/json": {} } },
                "responses": {
                    "202": text("a pass follows"), "403": text("no or a wrong signature"),
                    "404": text("no webhook is set up"), "408": text("the body does not end"),
                    "413": text("the body is too large"),
                },
            }},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{}, { "bearer": [] }],
    })
}
