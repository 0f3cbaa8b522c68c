//! GPU products that a run may be put on: memory, arithmetic, and the instance types that have them.
//!
//! `data/gpus.json` holds them. Memory is what the driver reports; arithmetic is dense bf16, without
//! sparsity; both from the vendor's data sheets, and the types from the clouds' lists of accelerated
//! machines. Products without bf16 (T4, V100) are left out: a run in fp32 there is slower than it is
//! cheaper. There are no prices: they differ by region, contract and day.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The products that come with Anneal.
const BUILT_IN: &str = include_str!("../data/gpus.json");

/// Why a catalogue cannot be used.
#[derive(Debug)]
pub struct CatalogueError(String);

impl std::fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot read the catalogue of GPUs: {}; compare it with the built-in one", self.0)
    }
}

impl std::error::Error for CatalogueError {}

/// GPU products, the smallest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Catalogue {
    pub products: Vec<Product>,
}

/// A GPU product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Product {
    pub name: String,
    /// Values of the node label `nvidia.com/gpu.product`, which GPU feature discovery sets.
    pub labels: Vec<String>,
    /// Value of the node label `cloud.google.com/gke-accelerator`, where GKE has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gke: Option<String>,
    /// Memory of one GPU.
    pub memory_mib: u64,
    /// 10^12 operations a second in bf16, dense.
    pub bf16_tflops: f64,
    /// By cloud, the fewest GPUs first.
    pub instances: BTreeMap<String, Vec<Instance>>,
}

/// An instance type with the product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Instance {
    #[serde(rename = "type")]
    pub type_: String,
    pub gpus: u32,
}

impl Product {
    /// Bytes of one GPU.
    pub fn memory(&self) -> u64 {
        self.memory_mib << 20
    }

    /// By cloud, the type with the fewest GPUs that has as many.
    pub fn smallest_instances(&self, gpus: u32) -> BTreeMap<&str, &Instance> {
        let types = self.instances.iter().filter_map(|(cloud, list)| {
            Some((cloud.as_str(), list.iter().find(|one| one.gpus >= gpus)?))
        });
        types.collect()
    }
}

impl Catalogue {
    /// The products that come with Anneal.
    pub fn built_in() -> Self {
        Self::read(BUILT_IN).expect("a test reads the built-in catalogue")
    }

    /// A catalogue in the form of the built-in one.
    pub fn read(text: &str) -> Result<Self, CatalogueError> {
        let found = serde_json::from_str::<Self>(text);
        let mut catalogue = found.map_err(|error| CatalogueError(error.to_string()))?;
        catalogue.sort();
        Ok(catalogue)
    }

    /// With the products of another one, which take the place of those of the same name.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.products.retain(|product| other.products.iter().all(|new| new.name != product.name));
        self.products.extend(other.products);
        self.sort();
        self
    }

    /// By memory; of two with about as much, the slower one comes first, which is the cheaper one.
    fn sort(&mut self) {
        self.products.sort_by(|a, b| {
            let by_memory = (a.memory_mib >> 10).cmp(&(b.memory_mib >> 10));
            by_memory.then(a.bf16_tflops.total_cmp(&b.bf16_tflops))
        });
        for product in &mut self.products {
            for list in product.instances.values_mut() {
                list.sort_by_key(|instance| instance.gpus);
            }
        }
    }
}
