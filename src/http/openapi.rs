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
    let band = |words: &[&str], text: &str| json!({"type": "string", "enum": words, "description": text});
    let match_band = band(
        &["none", "weak", "near", "good", "strong"],
        "The best candidate's score by the doors' own threshold: more than 0.1 below it, below it, up to 0.2 above it, higher",
    );
    let liveness_band =
        band(&["none", "low", "uncertain", "high"], "The liveness score by its threshold; none where nothing says so");
    let scores = "Null without a token that has the scope";
    let told = |schema: Value| json!({"oneOf": [schema, {"type": "null"}], "description": scores});
    let recognized = results(json!({
        "type": "object",
        "required": ["identity", "verified", "score", "match_band", "candidates", "box", "live", "liveness_band", "reason"],
        "properties": {
            "identity": or_null(json!({"type": "string"})), "verified": {"type": "boolean"}, "score": told(score.clone()),
            "match_band": match_band,
            "candidates": {
                "type": "array",
                "description": "Whom the face resembles; without a token that has the scope the identity alone, if there is one",
                "items": {
                    "type": "object", "required": ["name", "score"],
                    "properties": {"name": {"type": "string"}, "score": told(score)},
                },
            },
            "box": rectangle.clone(), "live": or_null(json!({"type": "boolean"})), "liveness_band": liveness_band.clone(),
            "reason": {"type": "string"},
        },
    }));
    let live = results(json!({
        "type": "object", "required": ["live", "score", "liveness_band", "box"],
        "properties": {
            "live": {"type": "boolean"}, "score": told(json!({"type": "number", "minimum": 0, "maximum": 1})),
            "liveness_band": liveness_band, "box": rectangle,
        },
    }));
    let id = json!({"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"});
    let time = json!({"type": ["string", "null"], "format": "date-time"});
    let person = json!({
        "type": "object", "required": ["id", "name", "groups", "templates", "enrolled_at", "consented_at", "expires_at"],
        "properties": {
            "id": id, "name": or_null(json!({"type": "string"})), "groups": {"type": "array", "items": id},
            "templates": {"type": "integer", "minimum": 0}, "enrolled_at": {"type": "string", "format": "date-time"},
            "consented_at": time, "expires_at": time,
        },
    });
    let threshold = json!({
        "name": "threshold", "in": "query", "required": false, "schema": {"type": "number", "minimum": -1, "maximum": 1},
        "description": "The least comparison score of a match; without it the doors' own. Without a token that has the scope it is rounded up \
            to a tenth and never lower than the doors' own",
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "FaceID+ local API", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0"},
            "description": "Off by default; on a loopback address or a Unix socket only. No route opens a door. `Host` is a loopback address or \
                `localhost`, and requests that a web page of another origin sends are refused (403). A connection is closed after five seconds \
                without a request, after a minute and after 32 requests.",
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Person": person, "Problem": {
                "type": "object", "required": ["error"],
                "properties": {
                    "error": {"type": "string"},
                    "code": {"type": "string", "description": "Of an enrolment that was refused: why, for programs"},
                    "refused": {"type": "array", "items": {"type": "object"}, "description": "Which photos, and why"},
                },
            }},
        },
        "paths": {
            "/recognize_face": {"post": upload("Who is on a picture", &recognized, &json!([threshold]), &[])},
            "/liveness": {"post": upload("Whether the faces on a picture are of living people", &live, &json!([]), &["501"])},
            "/people": people(&id),
            "/people/{person}": one_person(&id, &time),
            "/rebuild_index": {"post": {
                "summary": "Build the search index anew, in the background", "security": [{"token": []}],
                "responses": with("202", described("It has begun, or was under way", status()), &["401", "403", "429"]),
            }},
            "/metrics": {"get": {
                "summary": "Figures for Prometheus", "security": [{"token": []}],
                "responses": responses(json!({"text/plain": {"schema": {"type": "string"}}}), &["401", "403", "429"]),
            }},
            "/healthz": {"get": {"summary": "Whether the process lives", "responses": responses(status(), &["403"])}},
            "/readyz": {"get": {
                "summary": "Whether the daemon could decide now",
                "description": "Not while the gallery is older than it was and nobody has accepted that (nobody would be let in), and not while no \
                    camera has brought a frame that could be judged, for ten seconds or since the start. The API itself answers only once the \
                    networks are loaded. A gallery that takes no change since a write failed is no reason: matching goes on, and `/metrics` \
                    tells (`faceid_gallery_read_only`).",
                "responses": {
                    "200": described("It could", status()), "503": described("It could not", status()),
                    "403": described("The body says why", problem()),
                },
            }},
            "/openapi.json": {"get": {
                "summary": "This document", "responses": responses(json!({"application/json": {"schema": {"type": "object"}}}), &["403"]),
            }},
        },
    })
}

fn a_person() -> Value {
    json!({"application/json": {"schema": {"$ref": "#/components/schemas/Person"}}})
}

fn people(id: &Value) -> Value {
    let all = json!({"application/json": {"schema": {
        "type": "object", "required": ["people", "next"],
        "properties": {
            "people": {"type": "array", "items": {"$ref": "#/components/schemas/Person"}},
            "next": {"type": ["string", "null"], "description": "`after` of the next page; null on the last"},
        },
    }}});
    let enrolled = json!({"application/json": {"schema": {
        "type": "object", "required": ["person", "templates_added", "already_there", "refused"],
        "properties": {
            "person": {"$ref": "#/components/schemas/Person"}, "templates_added": {"type": "integer", "minimum": 0},
            "already_there": {"type": "integer", "minimum": 0, "description": "Photos that the person has already: they add nothing"},
            "refused": {"type": "array", "items": {
                "type": "object", "required": ["file", "reason", "code"],
                "properties": {
                    "file": {"type": "integer", "minimum": 0, "description": "Which photo, counted from 0"},
                    "reason": {"type": "string"}, "code": {"type": "string"},
                },
            }},
        },
    }}});
    json!({
        "get": {
            "summary": "Who is enrolled, by id, a page at a time", "security": [{"token": []}],
            "parameters": [
                {"name": "after", "in": "query", "required": false, "schema": id, "description": "Only who comes after this id"},
                {"name": "limit", "in": "query", "required": false, "schema": {"type": "integer", "minimum": 1, "maximum": 10000}},
            ],
            "responses": responses(all, &["400", "401", "403", "429"]),
        },
        "post": {
            "summary": "Enrol a person from one to five photos, or give an enrolled one more templates", "security": [{"token": []}],
            "requestBody": {"required": true, "content": {"multipart/form-data": {"schema": {
                "type": "object", "required": ["id", "file"], "additionalProperties": false,
                "properties": {
                    "id": id, "name": {"type": "string", "minLength": 1, "maxLength": 256},
                    "group": {"type": "array", "items": id, "maxItems": 64},
                    "consented_at": {"type": "string", "format": "date-time"}, "expires_at": {"type": "string", "format": "date-time"},
                    "allow_duplicate": {"type": "boolean", "description": "Enrol a face that is enrolled under another id"},
                    "allow_other_face": {
                        "type": "boolean",
                        "description": "Enrol faces that are unlike each other, or unlike those that the person has; noted in the audit trail",
                    },
                    "file": {"type": "array", "minItems": 1, "maxItems": 5, "items": {"type": "string", "format": "binary"}},
                },
            }}}},
            "responses": with("201", described("Enrolled", enrolled), &["400", "401", "403", "408", "409", "413", "422", "429"]),
        },
    })
}

fn one_person(id: &Value, time: &Value) -> Value {
    let change = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "name": {"type": ["string", "null"], "minLength": 1, "maxLength": 256},
            "groups": {"type": "array", "items": id, "maxItems": 64}, "consented_at": time, "expires_at": time,
        },
    });
    let removed = json!({"application/json": {"schema": {
        "type": "object", "required": ["removed", "erased_from_disk"],
        "properties": {"removed": id, "erased_from_disk": {"type": "boolean"}},
    }}});
    json!({
        "parameters": [{"name": "person", "in": "path", "required": true, "schema": id}],
        "get": {
            "summary": "One person, without templates", "security": [{"token": []}],
            "responses": responses(a_person(), &["400", "401", "403", "404", "429"]),
        },
        "patch": {
            "summary": "Change what is kept besides templates: what is absent stays, null takes away", "security": [{"token": []}],
            "requestBody": {"required": true, "content": {"application/json": {"schema": change}}},
            "responses": responses(a_person(), &["400", "401", "403", "404", "409", "413", "422", "429"]),
        },
        "delete": {
            "summary": "Remove a person with every template", "security": [{"token": []}],
            "responses": responses(removed, &["400", "401", "403", "404", "409", "429"]),
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
    with("200", described("As asked", content), problems)
}

fn with(code: &str, answer: Value, problems: &[&str]) -> Value {
    let mut all = serde_json::Map::from_iter([(code.to_owned(), answer)]);
    all.extend(problems.iter().map(|code| ((*code).to_owned(), described("The body says why", problem()))));
    Value::Object(all)
}

fn problem() -> Value {
    json!({"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}})
}

fn described(text: &str, content: Value) -> Value {
    json!({"description": text, "content": content})
}

fn status() -> Value {
    json!({"application/json": {"schema": {
        "type": "object", "required": ["status"], "properties": {"status": {"type": "string"}, "reason": {"type": "string"}},
    }}})
}
