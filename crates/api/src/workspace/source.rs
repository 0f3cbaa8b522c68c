//! Where models and data come from. Each union is an object of which exactly one field is set.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A base model. Exactly one of `path`, `image` and `huggingFace`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.path), has(self.image), has(self.huggingFace)].filter(x, x).size() == 1").message("set exactly one of path, image, huggingFace"))]
#[serde(rename_all = "camelCase")]
pub struct ModelSource {
    /// A Hugging Face folder (`config.json`, `tokenizer.json`, safetensors) or a GGUF file on this
    /// machine, relative to the current directory. Local runs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,

    /// An OCI image that holds a Hugging Face folder or a GGUF file under `/models` or `/data`, such as
    /// `registry.example.com/models/smollm2:135m`. A digest (`…@sha256:…`) pins it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// A repository on the Hugging Face hub, or on the server that `HF_ENDPOINT` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugging_face: Option<HuggingFaceRepository>,

    /// Secret of type `kubernetes.io/dockerconfigjson` in the workspace's namespace, with which `image`
    /// is pulled. In a cluster only; a local run reads Docker's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub pull_secret: Option<String>,
}

/// A repository on the Hugging Face hub. It is fetched by the run itself, at one commit.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HuggingFaceRepository {
    /// `owner/name`, such as `HuggingFaceTB/SmolLM2-135M-Instruct`.
    #[schemars(length(min = 1))]
    pub repo: String,

    /// Branch, tag or commit; `main` when unset. What it stood for at the time is recorded as a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub revision: Option<String>,

    /// Secret in the workspace's namespace whose key `token` holds a token that may read the repository.
    /// In a cluster only; a local run reads `HF_TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub token_secret: Option<String>,
}

/// Files with examples: JSONL, JSON, CSV, TSV or Parquet, plain or with `.gz` or `.zst`, told by their
/// names. Exactly one of `path`, `paths` and `image`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.path), has(self.paths), has(self.image)].filter(x, x).size() == 1").message("set exactly one of path, paths, image"))]
#[serde(rename_all = "camelCase")]
pub struct DataSource {
    /// A file, or a folder whose data files are read in the order of their names. Relative to the
    /// current directory. Local runs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,

    /// Several files or folders, read in this order. Local runs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub paths: Option<Vec<String>>,

    /// An OCI image with data files under `/data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Held-out examples: a share of the training examples, or a source of their own. Exactly one of
/// `fraction`, `path`, `paths` and `image`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.fraction), has(self.path), has(self.paths), has(self.image)].filter(x, x).size() == 1").message("set exactly one of fraction, path, paths, image"))]
#[serde(rename_all = "camelCase")]
pub struct HeldOutSource {
    /// Share of the training examples, above 0 and below 1. Each example is chosen by a hash of its
    /// content and the seed, so that it keeps its place when others are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub fraction: Option<f64>,

    /// A file, or a folder whose data files are read in the order of their names. Relative to the
    /// current directory. Local runs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,

    /// Several files or folders, read in this order. Local runs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub paths: Option<Vec<String>>,

    /// An OCI image with data files under `/data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}
