//! `/v1/models`, and how far the declared adapters are.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::error::ApiError;
use super::{App, Json};
use crate::adapters::declared;
use crate::catalog::Served;

pub(super) async fn list(State(app): State<Arc<App>>) -> Json {
    let mut models = vec![base(&app)];
    for (name, entry) in app.catalog.entries() {
        models.extend(entry.served.as_ref().map(|served| adapter(&app, &name, served)));
    }
    Json(json!({"object": "list", "data": models, "has_more": false}))
}

pub(super) async fn one(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    if name == app.catalog.base() {
        return Json(base(&app)).into_response();
    }
    let served = app.catalog.get(&name).and_then(|entry| entry.served);
    match served {
        Some(served) => Json(adapter(&app, &name, &served)).into_response(),
        None => ApiError::unknown_model(&name, &app.catalog.names()).into_response(),
    }
}

/// What a controller reads: which digests are held, which are not, and why.
pub(super) async fn adapters(State(app): State<Arc<App>>) -> Json {
    held(&app)
}

/// Takes what a controller tells, and answers what is held.
pub(super) async fn tell(State(app): State<Arc<App>>, body: Body) -> Result<Json, ApiError> {
    let body = app.body(body).await?;
    let text = String::from_utf8_lossy(&body);
    let told = declared::told(&text, app.catalog.base());
    let told = told.map_err(|error| ApiError::bad("adapters", error.to_string()))?;
    app.orders.tell(told);
    Ok(held(&app))
}

fn held(app: &App) -> Json {
    let entries = app.catalog.entries().into_iter().map(|(name, entry)| {
        let served = entry.served.as_ref();
        json!({
            "name": name,
            "source": entry.source,
            "state": entry.state.as_str(),
            "reason": entry.reason,
            "digest": served.map(|served| &served.digest),
            "wantedDigest": entry.wanted,
            "rank": served.map(|served| served.rank),
            "bytes": served.map(|served| served.bytes),
        })
    });
    Json(json!({
        "baseModel": {"name": app.catalog.base(), "digest": app.catalog.base_digest()},
        "sequence": app.catalog.sequence(),
        "fault": app.catalog.fault(),
        "adapters": entries.collect::<Vec<_>>(),
    }))
}

fn base(app: &App) -> Value {
    json!({
        "id": app.catalog.base(),
        "object": "model",
        "created": app.catalog.since(),
        "owned_by": "anneal",
        "root": app.catalog.base(),
        "parent": null,
        "max_model_len": app.engine.facts().context,
    })
}

fn adapter(app: &App, name: &str, served: &Served) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": served.since,
        "owned_by": "anneal",
        "root": served.digest,
        "parent": app.catalog.base(),
        "max_model_len": app.engine.facts().context,
    })
}
