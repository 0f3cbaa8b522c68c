//! vLLM's own API, as far as adapters need it: which models there are, load one, unload one.
//!
//! vLLM keys the keys and values that it holds for shared prompts by an adapter's name alone (its issue 42125):
//! under a name that is used again, a new revision would go on from what the old one left. So every revision has a
//! name of its own there, and a name is never loaded twice with other weights.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lm::adapters::{Adapter, AdapterError, LinearShapes, Outline, Requirements};
use oci::with_causes;
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind};

use crate::adapters::{Host, NotOffered, Offered};
use crate::catalog::Served;

/// Longest time until a connection stands: it is the same machine.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest time for a word about models; loading one copies it to the GPU.
const TALK: Duration = Duration::from_mins(2);

/// A vLLM server on this machine.
#[derive(Debug)]
pub(super) struct Vllm {
    client: reqwest::Client,
    url: String,
    needs: Arc<Needs>,
    next: AtomicU64,
}

/// What an adapter has to be. vLLM takes matrices of other shapes without a word.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    /// The base model's layers, where they are known.
    pub(super) shapes: Option<LinearShapes>,
    pub(super) max_rank: i64,
    pub(super) most_bytes: u64,
}

impl Needs {
    /// Rank and bytes of a sound adapter.
    fn check(&self, folder: &Path) -> Result<(i64, u64), AdapterError> {
        let Some(shapes) = &self.shapes else {
            let Outline { rank, bytes } = Outline::open(folder, self.max_rank, self.most_bytes)?;
            return Ok((rank, bytes));
        };
        let (kind, device) = (Kind::BFloat16, Device::Cpu);
        let needs = Requirements { shapes, max_rank: self.max_rank, kind, device };
        let adapter = Adapter::open(folder, &needs)?;
        Ok((adapter.config().rank, adapter.bytes()))
    }
}

/// A model that vLLM serves.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Card {
    pub(super) id: String,
    /// The folder of an adapter.
    #[serde(default)]
    root: Option<String>,
    #[serde(default)]
    pub(super) max_model_len: Value,
}

#[derive(Deserialize)]
struct Cards {
    data: Vec<Card>,
}

impl Vllm {
    pub(super) fn new(url: &str, needs: Needs) -> Result<Self, reqwest::Error> {
        // The client asks for it also where it speaks plain HTTP; a second installation is none.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT).build()?;
        let (url, next) = (url.trim_end_matches('/').to_owned(), AtomicU64::new(1));
        Ok(Self { client, url, needs: Arc::new(needs), next })
    }

    /// A request to vLLM; `path` begins with a slash.
    pub(super) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Whether vLLM says that it is well; if not, why.
    pub(super) async fn health(&self) -> Result<(), String> {
        let answer = self.request(reqwest::Method::GET, "/health").timeout(CONNECT).send().await;
        let answer = answer.map_err(|error| silent(&error))?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(format!("vLLM is not well: status {}", answer.status().as_u16()))
    }

    /// vLLM's series, if it tells them in time.
    pub(super) async fn metrics(&self) -> Result<String, reqwest::Error> {
        let request = self.request(reqwest::Method::GET, "/metrics").timeout(CONNECT);
        request.send().await?.text().await
    }

    /// All models, the base model and adapters, under vLLM's names.
    pub(super) async fn models(&self) -> Result<Vec<Card>, String> {
        let request = self.request(reqwest::Method::GET, "/v1/models").timeout(TALK);
        let answer = request.send().await.map_err(|error| silent(&error))?;
        let cards: Cards = answer.json().await.map_err(|error| silent(&error))?;
        Ok(cards.data)
    }

    async fn tell(&self, path: &str, body: &Value) -> Result<(), NotOffered> {
        let request = self.request(reqwest::Method::POST, path).timeout(TALK);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let not_now = |error: &reqwest::Error| NotOffered::NotNow(silent(error));
        let answer = request.send().await.map_err(|error| not_now(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let text = answer.text().await.map_err(|error| not_now(&error))?;
        let reason = format!("vLLM does not take it: {}", said(&text));
        // A path that vLLM does not know says nothing of the adapter.
        if status.is_client_error() && !text.contains("\"Not Found\"") {
            return Err(NotOffered::Refused(reason));
        }
        let hint = "start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True";
        Err(NotOffered::NotNow(format!("{reason}; {hint}")))
    }
}

/// A revision's name in vLLM: the adapter's, and the first digits of the digest.
pub(super) fn id(name: &str, digest: &str) -> String {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    format!("{name}@{}", digits.get(..12).unwrap_or(digits))
}

#[async_trait]
impl Host for Vllm {
    async fn offer(&self, name: &str, digest: &str, folder: &Path) -> Result<Offered, NotOffered> {
        let (place, needs) = (folder.to_owned(), Arc::clone(&self.needs));
        let checked = tokio::task::spawn_blocking(move || needs.check(&place));
        let refused = |error: &dyn std::error::Error| NotOffered::Refused(with_causes(error));
        let checked = checked.await.map_err(|error| refused(&error))?;
        let (rank, bytes) = checked.map_err(|error| refused(&error))?;
        let revision = self.next.fetch_add(1, Ordering::AcqRel);
        let (id, path) = (id(name, digest), folder.display().to_string());
        let there = self.models().await.map_err(NotOffered::NotNow)?;
        let offered = Offered { revision, rank, bytes };
        match there.into_iter().find(|card| card.id == id) {
            // Loaded before this process began.
            Some(card) if card.root.as_deref() == Some(path.as_str()) => return Ok(offered),
            Some(_) => self.tell("/v1/unload_lora_adapter", &json!({"lora_name": id})).await?,
            None => {}
        }
        self.tell("/v1/load_lora_adapter", &json!({"lora_name": id, "lora_path": path})).await?;
        Ok(offered)
    }

    async fn retire(&self, name: &str, served: &Served) {
        // Answers that are being made go on with it.
        let body = json!({"lora_name": id(name, &served.digest)});
        if let Err(NotOffered::Refused(reason) | NotOffered::NotNow(reason)) =
            self.tell("/v1/unload_lora_adapter", &body).await
        {
            tracing::warn!(adapter = name, digest = served.digest, reason, "not unloaded");
        }
    }

    async fn lost(&self, served: &BTreeMap<String, Served>) -> Vec<String> {
        if served.is_empty() {
            return Vec::new();
        }
        // While it does not answer, nothing is known.
        let Ok(there) = self.models().await else { return Vec::new() };
        let is_there = |id: &str| there.iter().any(|card| card.id == id);
        let lost = served.iter().filter(|(name, served)| !is_there(&id(name, &served.digest)));
        lost.map(|(name, _)| name.clone()).collect()
    }
}

fn silent(error: &reqwest::Error) -> String {
    // Its address is ours.
    format!("vLLM does not answer: {}", with_causes(error))
}

/// The message of an error in OpenAI's shape, or of vLLM's older one.
fn said(text: &str) -> String {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let message = body["error"]["message"].as_str().or(body["message"].as_str());
    message.unwrap_or(text).trim().chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revision_has_a_name_of_its_own() {
        let digest = format!("sha256:0123456789abcdef{}", "0".repeat(48));
        assert_eq!(id("team/reviews", &digest), "team/reviews@0123456789ab");
        assert_eq!(id("a", "short"), "a@short");
    }

    #[test]
    fn both_shapes_of_errors_are_read() {
        assert_eq!(said(r#"{"error": {"message": "too large"}}"#), "too large");
        assert_eq!(said(r#"{"object": "error", "message": "too large"}"#), "too large");
        assert_eq!(said("plain\n"), "plain");
    }
}
