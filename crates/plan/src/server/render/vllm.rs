//! A pod whose engine is vLLM: beside it `anneal front`, which answers, fetches adapters and has vLLM load them.
//! vLLM listens inside the pod alone, and reads adapters from a folder that both see.
//!
//! The arguments are those that its documentation names. Those for one device and a model in a folder were tried
//! with version 0.26, on a CPU.

use std::collections::BTreeMap;

use api::model_server::ServingLimits;
use api::names::parse_bytes;
use api::workspace::Precision;
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::anneal::{BASE_MODEL, BASE_VOLUME, DECLARED, KEYS, base_digest, with_gpus};
use super::deployment::{DRAIN_SECONDS, LEAVE_SECONDS, probe, sleep_at_the_end, variable};
use super::quantity::bytes;
use super::{CONTROL_PORT, ENGINE_PATH, PORT, VLLM};
use crate::render::{container_security, empty, hub_token, mount};
use crate::server::Server;
use crate::server::declared::FILE;
use crate::server::observed::ServerObserved;

/// vLLM's port, inside the pod.
const ENGINE_PORT: i32 = 8001;
/// Where adapters are, for both containers.
const ADAPTERS: &str = "/work/adapters";
/// A link to the model's folder in its image, for both containers.
const LINK: &str = "/work/base-model";
/// vLLM's own folder: caches of kernels and of a hub's models.
const HOME: &str = "/home/vllm";
/// Highest rank of an adapter where none is stated.
const RANK: u32 = 64;
/// Ranks that vLLM knows.
const RANKS: [u32; 8] = [8, 16, 32, 64, 128, 256, 320, 512];
/// Answers at once, and those that wait beside them, where neither is stated.
const SEQUENCES: u32 = 256;
const WAITING: u32 = 256;
/// Fewest and most adapters that vLLM holds on the GPU at the same time.
const LEAST_ADAPTERS: usize = 4;
const MOST_ADAPTERS: usize = 32;

pub(super) fn front_arguments(server: &Server<'_>) -> Vec<String> {
    let limits = limits(server);
    let requests = limits.sequences.unwrap_or(SEQUENCES) + limits.waiting.unwrap_or(WAITING);
    let mut all = vec!["front".to_owned()];
    let mut put = |name: &str, value: Option<String>| {
        all.extend(value.into_iter().flat_map(|value| [format!("--{name}"), value]));
    };
    put("vllm", Some(format!("http://127.0.0.1:{ENGINE_PORT}")));
    // Of a hub's model, which vLLM fetches by itself, nothing is seen here.
    put("model", server.raw.spec.base_model.image.as_ref().map(|_| LINK.to_owned()));
    put("name", Some(server.model_name()));
    put("adapters", Some(format!("{DECLARED}/{FILE}")));
    put("cache", Some(ADAPTERS.to_owned()));
    put("address", Some(format!("[::]:{PORT}")));
    put("control-address", Some(format!("[::]:{CONTROL_PORT}")));
    put("drain", Some(DRAIN_SECONDS.to_string()));
    put("base-digest", base_digest(server));
    put("max-rank", Some(limits.max_rank.unwrap_or(RANK).to_string()));
    put("max-requests", Some(requests.to_string()));
    put("api-keys", server.raw.spec.api_keys_secret.as_ref().map(|_| KEYS.to_owned()));
    all
}

/// What runs first. Where in its image the model lies only a look into it tells, and vLLM wants its very folder.
pub(super) fn link(server: &Server<'_>, observed: &ServerObserved) -> Option<Container> {
    server.raw.spec.base_model.image.as_ref()?;
    Some(Container {
        name: "base-model".to_owned(),
        image: Some(observed.settings.server_image.clone()),
        args: Some(["link", BASE_MODEL, LINK].map(str::to_owned).to_vec()),
        resources: Some(front_resources()),
        security_context: Some(container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![
            mount("work", "/work", false),
            mount(BASE_VOLUME, BASE_MODEL, true),
        ]),
        ..Container::default()
    })
}

/// It passes on what it gets, and reads adapters one after the other.
pub(super) fn front_resources() -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            ("cpu".to_owned(), quantity("250m")),
            ("memory".to_owned(), quantity("512Mi")),
        ])),
        limits: None,
        claims: None,
    }
}

pub(super) fn container(server: &Server<'_>, observed: &ServerObserved) -> Container {
    let mut mounts = vec![
        mount("work", "/work", true),
        mount(VLLM, HOME, false),
        mount("vllm-tmp", "/tmp", false),
        // The processes of several GPUs speak through it.
        mount("shm", "/dev/shm", false),
    ];
    if server.raw.spec.base_model.image.is_some() {
        mounts.push(mount(BASE_VOLUME, BASE_MODEL, true));
    }
    Container {
        name: VLLM.to_owned(),
        image: Some(observed.settings.vllm_image.clone()),
        command: Some(vec!["vllm".to_owned(), "serve".to_owned()]),
        args: Some(arguments(server)),
        env: Some(environment(server, observed)),
        // A large model takes minutes to be fetched and loaded.
        startup_probe: Some(probe(ENGINE_PATH, CONTROL_PORT, 5, 720)),
        liveness_probe: Some(probe(ENGINE_PATH, CONTROL_PORT, 10, 6)),
        // It ends after what stands in front of it.
        lifecycle: Some(sleep_at_the_end(LEAVE_SECONDS + DRAIN_SECONDS)),
        resources: Some(resources(server)),
        security_context: Some(container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

pub(super) fn volumes() -> [Volume; 3] {
    let memory = EmptyDirVolumeSource {
        medium: Some("Memory".to_owned()),
        ..EmptyDirVolumeSource::default()
    };
    let shm = Volume { name: "shm".to_owned(), empty_dir: Some(memory), ..Volume::default() };
    [empty(VLLM), empty("vllm-tmp"), shm]
}

fn arguments(server: &Server<'_>) -> Vec<String> {
    let (spec, limits) = (&server.raw.spec, limits(server));
    let hub = spec.base_model.hugging_face.as_ref();
    let model = hub.map_or(LINK, |hub| hub.repo.as_str());
    let mut all = vec![model.to_owned()];
    let mut put = |name: &str, value: Option<String>| {
        all.extend(value.into_iter().flat_map(|value| [format!("--{name}"), value]));
    };
    put("revision", hub.and_then(|hub| hub.revision.clone()));
    put("served-model-name", Some(server.model_name()));
    put("host", Some("127.0.0.1".to_owned()));
    put("port", Some(ENGINE_PORT.to_string()));
    let precision = |precision| match precision {
        Precision::Fp32 => "float32".to_owned(),
        Precision::Bf16 => "bfloat16".to_owned(),
    };
    put("dtype", spec.precision.map(precision));
    put("max-model-len", limits.context.map(|number| number.to_string()));
    put("max-num-seqs", limits.sequences.map(|number| number.to_string()));
    let gpus = gpus(server);
    put("tensor-parallel-size", (gpus > 1).then(|| gpus.to_string()));
    let places = places(spec.adapters.len());
    put("max-loras", Some(places.to_string()));
    put("max-cpu-loras", Some((2 * places).to_string()));
    put("max-lora-rank", Some(rank(limits.max_rank.unwrap_or(RANK)).to_string()));
    all.push("--enable-lora".to_owned());
    all
}

/// Room for the adapters, and for a new revision beside an old one. It grows in steps, since another number
/// starts the pods anew.
fn places(adapters: usize) -> usize {
    (adapters + 1).next_power_of_two().clamp(LEAST_ADAPTERS, MOST_ADAPTERS)
}

/// The next rank that vLLM knows.
fn rank(most: u32) -> u32 {
    RANKS.into_iter().find(|rank| *rank >= most).unwrap_or(most)
}

fn environment(server: &Server<'_>, observed: &ServerObserved) -> Vec<EnvVar> {
    let mut variables = vec![
        variable("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "True"),
        variable("VLLM_NO_USAGE_STATS", "1"),
        variable("HOME", HOME),
        // The image knows no user of our number, and PyTorch asks for a name.
        variable("USER", "vllm"),
    ];
    if let Some(hub) = &server.raw.spec.base_model.hugging_face {
        variables.extend(hub.token_secret.as_deref().map(hub_token));
        let endpoint = observed.settings.hub_endpoint.as_deref();
        variables.extend(endpoint.map(|endpoint| variable("HF_ENDPOINT", endpoint)));
    }
    variables
}

/// One GPU unless the spec says otherwise: vLLM's image is made for them.
fn gpus(server: &Server<'_>) -> u32 {
    server.raw.spec.compute.as_ref().and_then(|compute| compute.gpus).unwrap_or(1)
}

fn resources(server: &Server<'_>) -> ResourceRequirements {
    let compute = server.raw.spec.compute.clone().unwrap_or_default();
    let cpu = compute.cpu.map_or("1".to_owned(), |count| count.to_string());
    let mut requests = BTreeMap::from([("cpu".to_owned(), Quantity(cpu))]);
    let mut most = BTreeMap::new();
    if let Some(memory) = compute.memory.and_then(|text| parse_bytes(&text).ok()).map(bytes) {
        requests.insert("memory".to_owned(), memory.clone());
        most.insert("memory".to_owned(), memory);
    }
    with_gpus(gpus(server), requests, most)
}

fn limits(server: &Server<'_>) -> ServingLimits {
    server.raw.spec.limits.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{places, rank};

    #[test]
    fn adapters_seldom_ask_for_new_pods() {
        let all = [0, 1, 3, 4, 7, 8, 30, 200].map(places);
        assert_eq!(all, [4, 4, 4, 8, 8, 16, 32, 32]);
    }

    #[test]
    fn ranks_are_those_that_vllm_knows() {
        assert_eq!([1, 8, 9, 64, 300, 600].map(rank), [8, 8, 16, 64, 320, 600]);
    }
}
