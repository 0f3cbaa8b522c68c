//! What Anneal's own server is started with: its options, its environment, and what is mounted.

use std::collections::{BTreeMap, BTreeSet};

use api::model_server::Weights;
use api::names::parse_bytes;
use api::workspace::Precision;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EnvVar, ResourceRequirements, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::deployment::{DRAIN_SECONDS, variable};
use super::quantity::bytes;
use super::{CONTROL_PORT, PORT, PULL};
use crate::render::{docker_config, empty, hub_token, image, mount, secret};
use crate::server::Server;
use crate::server::declared::FILE;
use crate::server::observed::ServerObserved;

/// The volume of the base model's image.
pub(super) const BASE_VOLUME: &str = "base-model";
/// Where it is mounted.
pub(super) const BASE_MODEL: &str = "/mnt/base-model";
/// Folder of the file of declared adapters.
pub(super) const DECLARED: &str = "/etc/anneal";
/// Folder with a file of API keys for each key of the secret.
pub(super) const KEYS: &str = "/var/run/secrets/anneal.dev/api-keys";

pub(super) fn arguments(server: &Server<'_>) -> Vec<String> {
    let spec = &server.raw.spec;
    let limits = spec.limits.clone().unwrap_or_default();
    let model = match &spec.base_model.hugging_face {
        Some(hub) => {
            let revision = hub.revision.as_deref().unwrap_or("main");
            format!("hf:{}@{revision}", hub.repo)
        }
        None => BASE_MODEL.to_owned(),
    };
    let mut all: Vec<String> = vec!["serve".to_owned()];
    let mut put = |name: &str, value: Option<String>| {
        all.extend(value.into_iter().flat_map(|value| [format!("--{name}"), value]));
    };
    put("model", Some(model));
    put("name", Some(server.model_name()));
    put("adapters", Some(format!("{DECLARED}/{FILE}")));
    put("address", Some(format!("[::]:{PORT}")));
    put("control-address", Some(format!("[::]:{CONTROL_PORT}")));
    put("drain", Some(DRAIN_SECONDS.to_string()));
    put("base-digest", base_digest(server));
    put(
        "precision",
        spec.precision.map(|precision| match precision {
            Precision::Fp32 => "fp32".to_owned(),
            Precision::Bf16 => "bf16".to_owned(),
        }),
    );
    put("context", limits.context.map(|number| number.to_string()));
    put("max-sequences", limits.sequences.map(|number| number.to_string()));
    put("max-waiting", limits.waiting.map(|number| number.to_string()));
    put("cache-memory", limits.cache_memory);
    put("adapter-memory", limits.adapter_memory);
    put("max-rank", limits.max_rank.map(|number| number.to_string()));
    put("api-keys", spec.api_keys_secret.as_ref().map(|_| KEYS.to_owned()));
    if spec.weights == Some(Weights::Int8) {
        all.push("--int8".to_owned());
    }
    all
}

/// The base model's digest, where the reference pins it: adapters of another one are refused.
pub(super) fn base_digest(server: &Server<'_>) -> Option<String> {
    let image = server.raw.spec.base_model.image.as_deref()?;
    image.split_once('@').map(|(_, digest)| digest.to_owned())
}

pub(super) fn environment(server: &Server<'_>, observed: &ServerObserved) -> Vec<EnvVar> {
    let (spec, settings) = (&server.raw.spec, &observed.settings);
    let mut variables = surroundings(observed);
    if let Some(hub) = &spec.base_model.hugging_face {
        variables.extend(hub.token_secret.as_deref().map(hub_token));
        let endpoint = settings.hub_endpoint.as_deref();
        variables.extend(endpoint.map(|endpoint| variable("HF_ENDPOINT", endpoint)));
    }
    let threads = spec.compute.as_ref().and_then(|compute| compute.cpu);
    variables.extend(threads.map(|count| variable("OMP_NUM_THREADS", &count.to_string())));
    variables
}

/// What our program is told wherever it fetches adapters.
pub(super) fn surroundings(observed: &ServerObserved) -> Vec<EnvVar> {
    let plain = &observed.settings.plain_http;
    let mut variables = vec![variable("HOME", "/work")];
    if !plain.is_empty() {
        variables.push(variable("ANNEAL_PLAIN_HTTP", &plain.join(",")));
    }
    variables
}

/// What the user states, both as request and as limit; else a gibibyte beside the memory that is taken at the
/// start.
pub(super) fn resources(server: &Server<'_>) -> ResourceRequirements {
    const GIB: u64 = 1 << 30;
    let compute = server.raw.spec.compute.clone().unwrap_or_default();
    let limits = server.raw.spec.limits.clone().unwrap_or_default();
    let parsed = |text: Option<String>| text.and_then(|text| parse_bytes(&text).ok());
    let stated = parsed(compute.memory);
    let memory = stated.unwrap_or_else(|| GIB + parsed(limits.cache_memory).unwrap_or(GIB));
    let cpu = compute.cpu.map_or("500m".to_owned(), |count| count.to_string());
    let requests =
        BTreeMap::from([("cpu".to_owned(), Quantity(cpu)), ("memory".to_owned(), bytes(memory))]);
    let mut most = BTreeMap::new();
    most.extend(stated.map(|memory| ("memory".to_owned(), bytes(memory))));
    with_gpus(compute.gpus.unwrap_or(0), requests, most)
}

/// These, and GPUs, of which request and limit are one.
pub(super) fn with_gpus(
    gpus: u32,
    mut requests: BTreeMap<String, Quantity>,
    mut most: BTreeMap<String, Quantity>,
) -> ResourceRequirements {
    if gpus > 0 {
        let gpus = Quantity(gpus.to_string());
        requests.insert("nvidia.com/gpu".to_owned(), gpus.clone());
        most.insert("nvidia.com/gpu".to_owned(), gpus);
    }
    ResourceRequirements {
        requests: Some(requests),
        limits: (!most.is_empty()).then_some(most),
        claims: None,
    }
}

/// Each volume with its mount. Everything but `/work` and `/tmp` is read-only.
pub(super) fn volumes(server: &Server<'_>) -> Vec<(Volume, VolumeMount)> {
    let spec = &server.raw.spec;
    let declared =
        ConfigMapVolumeSource { name: server.config_map(), ..ConfigMapVolumeSource::default() };
    let declared =
        Volume { name: "declared".to_owned(), config_map: Some(declared), ..Volume::default() };
    let mut all = vec![
        (declared, mount("declared", DECLARED, true)),
        (empty("work"), mount("work", "/work", false)),
        (empty("tmp"), mount("tmp", "/tmp", false)),
    ];
    if let Some(reference) = &spec.base_model.image {
        let volume = image(BASE_VOLUME, reference.clone());
        all.push((volume, mount(BASE_VOLUME, BASE_MODEL, true)));
    }
    if let Some(name) = &spec.api_keys_secret {
        all.push((secret("api-keys", name), mount("api-keys", KEYS, true)));
    }
    let secrets = spec.adapters.iter().filter_map(|adapter| adapter.pull_secret.as_deref());
    for (number, name) in secrets.collect::<BTreeSet<_>>().into_iter().enumerate() {
        // A secret's name may be longer than a volume's.
        let volume = format!("pull-{number}");
        // It may come later: only what it is for waits for it.
        let mut source = docker_config(&volume, name);
        if let Some(secret) = &mut source.secret {
            secret.optional = Some(true);
        }
        all.push((source, mount(&volume, &format!("{PULL}/{name}"), true)));
    }
    all
}
