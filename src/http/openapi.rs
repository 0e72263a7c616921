//! The API's own description (OpenAPI 3.1), tested with schemathesis against the running service. Written by hand: it is short, and a
//! generator would need the handlers' types to be shaped for it.

use serde_json::{Value, json};

/// The document.
pub(super) fn document() -> Value {
    let score = json!({"type": "number", "minimum": -1, "maximum": 1});
    let rectangle = json!({
        "type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4,
        "description": "x, y, width, height in pixels",
    });
    let or_null = |schema: Value| json!({"oneOf": [schema, {"type": "null"}]});
    let results = |item: Value| json!({"type": "object", "required": ["results"], "properties": {"results": {"type": "array", "items": item}}});
    let recognized = results(json!({
        "type": "object",
        "required": ["identity", "verified", "score", "candidates", "box", "live", "reason"],
        "properties": {
            "identity": or_null(json!({"type": "string"})), "verified": {"type": "boolean"}, "score": or_null(score.clone()),
            "candidates": {"type": "array", "items": {
                "type": "object", "required": ["name", "score"], "properties": {"name": {"type": "string"}, "score": score},
            }},
            "box": rectangle.clone(), "live": or_null(json!({"type": "boolean"})), "reason": {"type": "string"},
        },
    }));
    let live = results(json!({
        "type": "object", "required": ["live", "score", "box"],
        "properties": {
            "live": {"type": "boolean"}, "score": or_null(json!({"type": "number", "minimum": 0, "maximum": 1})), "box": rectangle,
        },
    }));
    let threshold = json!({
        "name": "threshold", "in": "query", "required": false, "schema": {"type": "number", "minimum": -1, "maximum": 1},
        "description": "The least comparison score of a match; without it the pack's own",
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "FaceID+ local API", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0"},
            "description": "Off by default; on a loopback address or a Unix socket only. No route opens a door.",
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": {
                "type": "object", "required": ["error"], "properties": {"error": {"type": "string"}},
            }},
        },
        "paths": {
            "/recognize_face": {"post": upload("Who is on a picture", &recognized, &json!([threshold]), &[])},
            "/liveness": {"post": upload("Whether the faces on a picture are of living people", &live, &json!([]), &["501"])},
            "/metrics": {"get": {
                "summary": "Figures for Prometheus", "security": [{"token": []}],
                "responses": responses(json!({"text/plain": {"schema": {"type": "string"}}}), &["401", "403", "429"]),
            }},
            "/healthz": {"get": {"summary": "Whether the process lives", "responses": responses(status(), &[])}},
            "/readyz": {"get": {
                "summary": "Whether the daemon could decide now",
                "responses": {"200": described("It could", status()), "503": described("It could not", status())},
            }},
            "/openapi.json": {"get": {
                "summary": "This document", "responses": responses(json!({"application/json": {"schema": {"type": "object"}}}), &[]),
            }},
        },
    })
}

/// A route that takes a picture.
fn upload(summary: &str, result: &Value, parameters: &Value, more: &[&str]) -> Value {
    let problems = [&["400", "401", "403", "408", "413", "422", "429", "503"], more].concat();
    json!({
        "summary": summary,
        "security": [{"token": []}],
        "parameters": parameters,
        "requestBody": {"required": true, "content": {"multipart/form-data": {"schema": {
            "type": "object", "required": ["file"],
            "properties": {"file": {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP or BMP"}},
        }}}},
        "responses": responses(json!({"application/json": {"schema": result}}), &problems),
    })
}

fn responses(content: Value, problems: &[&str]) -> Value {
    let problem = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    let mut all = serde_json::Map::from_iter([("200".to_owned(), described("As asked", content))]);
    all.extend(problems.iter().map(|code| ((*code).to_owned(), described("The body says why", problem.clone()))));
    Value::Object(all)
}

fn described(text: &str, content: Value) -> Value {
    json!({"description": text, "content": content})
}

fn status() -> Value {
    json!({"application/json": {"schema": {
        "type": "object", "required": ["status"], "properties": {"status": {"type": "string"}, "reason": {"type": "string"}},
    }}})
}
