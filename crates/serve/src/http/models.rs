//! `/v1/models`, and how far the declared adapters are.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::error::ApiError;
use super::{App, Json};
use crate::adapters::{Orders, declared};
use crate::catalog::{Catalog, Served};

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
    held(&app.catalog)
}

/// Takes what a controller tells, and answers what is held.
pub(super) async fn tell(State(app): State<Arc<App>>, body: Body) -> Result<Json, ApiError> {
    let body = app.body(body).await?;
    take(&body, &app.catalog, &app.orders)
}

/// Takes what a controller tells, and answers what is held.
pub(crate) fn take(body: &[u8], catalog: &Catalog, orders: &Orders) -> Result<Json, ApiError> {
    let told = declared::told(&String::from_utf8_lossy(body), catalog.base());
    let told = told.map_err(|error| ApiError::bad("adapters", error.to_string()))?;
    orders.tell(told);
    Ok(held(catalog))
}

/// What is held, for a controller.
pub(crate) fn held(catalog: &Catalog) -> Json {
    let entries = catalog.entries().into_iter().map(|(name, entry)| {
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
        "baseModel": {"name": catalog.base(), "digest": catalog.base_digest()},
        "sequence": catalog.sequence(),
        "fault": catalog.fault(),
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
    card(name, served, app.catalog.base(), &json!(app.engine.facts().context))
}

/// What clients are told of an adapter.
pub(crate) fn card(name: &str, served: &Served, base: &str, context: &Value) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": served.since,
        "owned_by": "anneal",
        "root": served.digest,
        "parent": base,
        "max_model_len": context,
    })
}
