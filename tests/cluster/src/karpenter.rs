//! Real Karpenter, with its provider whose machines are node objects alone (kwok), and the real scheduler,
//! beside the control plane that all tests of this process share. The instance types are ours: for each GPU
//! product of the catalogue one with 1, 2, 4 and 8 GPUs, the larger the dearer.

mod kubelet;

use std::path::{Path, PathBuf};

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt as _};
use plan::Catalogue;
use plan::catalogue::Instance;
use serde_json::{Value, json};
use testkit::cluster::companion::Companion;
use testkit::cluster::tools;
use testkit::cluster::{ControlPlane, User};
use tokio::sync::OnceCell;

use crate::{Operator, Place, apply_all, is_established, resource, until};

pub use kubelet::{now, started};

/// GPUs of the instance types of each product.
const SIZES: [u32; 4] = [1, 2, 4, 8];
/// The zone in which every product can be had, and the one that the catalogue's first is not in.
pub const ZONE: &str = "zone-a";
pub const ZONE_WITHOUT_FIRST: &str = "zone-b";

/// What runs beside the control plane.
#[derive(Debug)]
pub struct Karpenter {
    _scheduler: Companion,
    program: Companion,
    catalogue: PathBuf,
}

/// Starts all of it the first time.
pub async fn karpenter(place: &Place) -> Result<&'static Karpenter> {
    static SHARED: OnceCell<Karpenter> = OnceCell::const_new();
    SHARED.get_or_try_init(|| start(place)).await
}

async fn start(place: &Place) -> Result<Karpenter> {
    let (plane, folder) = (place.plane, place.plane.folder());
    let built = tokio::task::spawn_blocking(|| {
        Ok::<_, anyhow::Error>((tools::program("kube-scheduler")?, tools::program("karpenter")?))
    });
    let (scheduler, karpenter) = built.await??;
    install(&place.client).await?;
    let catalogue = catalogue();
    let (types, file) = (folder.join("types.json"), folder.join("gpus.json"));
    std::fs::write(&types, types_of(&catalogue).to_string())?;
    std::fs::write(&file, serde_json::to_string(&catalogue)?)?;
    let admin = plane.kubeconfig(User::Admin);
    let environment: [(&str, &Path); 9] = [
        ("KUBECONFIG", &admin),
        ("INSTANCE_TYPES_FILE_PATH", &types),
        ("SYSTEM_NAMESPACE", Path::new("karpenter")),
        ("DISABLE_LEADER_ELECTION", Path::new("true")),
        // Any free one.
        ("METRICS_PORT", Path::new("0")),
        ("HEALTH_PROBE_PORT", Path::new("0")),
        // One pod a run: there is nothing to wait for.
        ("BATCH_IDLE_DURATION", Path::new("100ms")),
        ("BATCH_MAX_DURATION", Path::new("1s")),
        ("LOG_LEVEL", Path::new("debug")),
    ];
    kubelet::start(plane);
    Ok(Karpenter {
        _scheduler: start_scheduler(plane, &scheduler)?,
        program: Companion::start(&karpenter, &[], &environment, folder)?,
        catalogue: file,
    })
}

/// The scheduler that puts pods onto nodes.
pub fn start_scheduler(plane: &ControlPlane, program: &Path) -> Result<Companion> {
    let admin = plane.kubeconfig(User::Admin).display().to_string();
    let arguments = [
        &format!("--kubeconfig={admin}"),
        &format!("--authentication-kubeconfig={admin}"),
        &format!("--authorization-kubeconfig={admin}"),
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--secure-port=0",
    ];
    Companion::start(program, &arguments, &[], plane.folder())
}

/// Karpenter's definitions, and a class of nodes.
pub async fn install(client: &Client) -> Result<()> {
    let module =
        tokio::task::spawn_blocking(|| tools::module("karpenter", "sigs.k8s.io/karpenter"));
    let module = module.await??;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for folder in ["pkg/apis/crds", "kwok/apis/crds"] {
        for entry in std::fs::read_dir(module.join(folder))? {
            let text = std::fs::read_to_string(entry?.path())?;
            apply_all(client, &text).await?;
            let definition: CustomResourceDefinition = serde_yaml::from_str(&text)?;
            until(&definitions, &definition.name_any(), is_established).await?;
        }
    }
    apply_all(client, "{apiVersion: v1, kind: Namespace, metadata: {name: karpenter}}").await?;
    let class = "{apiVersion: karpenter.kwok.sh/v1alpha1, kind: KWOKNodeClass, \
                 metadata: {name: default}, spec: {nodeRegistrationDelay: 1s}}";
    apply_all(client, class).await
}

/// The built-in products, as this cloud has them.
fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::built_in();
    for product in &mut catalogue.products {
        let name = product.name.to_lowercase().replace(' ', "-");
        let types = SIZES.map(|gpus| Instance { type_: format!("{name}-{gpus}x"), gpus });
        product.instances = [("kwok".to_owned(), types.to_vec())].into();
    }
    catalogue
}

fn types_of(catalogue: &Catalogue) -> Value {
    let products = catalogue.products.iter().enumerate();
    let types = products.flat_map(|(index, product)| {
        let zones: &[&str] = if index == 0 { &[ZONE] } else { &[ZONE, ZONE_WITHOUT_FIRST] };
        product.instances["kwok"].iter().map(move |one| instance(one, index + 1, zones))
    });
    types.collect()
}

fn instance(one: &Instance, price: usize, zones: &[&str]) -> Value {
    let gpus = one.gpus;
    let offering = |kind: &str, price: f64| {
        json!({"Price": price, "Available": true, "Requirements": [
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": [kind]},
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": zones},
        ]})
    };
    let price = price as f64 * f64::from(gpus);
    json!({
        "name": one.type_,
        "architecture": "amd64",
        "operatingSystems": ["linux"],
        "resources": {
            "cpu": (16 * gpus).to_string(),
            "memory": format!("{}Gi", 128 * gpus),
            "ephemeral-storage": "500Gi",
            "pods": "110",
            "nvidia.com/gpu": gpus.to_string(),
        },
        "offerings": [offering("spot", price / 3.0), offering("on-demand", price)],
    })
}

impl Karpenter {
    /// The operator for a namespace, with the products of this cloud.
    pub fn operator(&self, place: &Place) -> Result<Operator> {
        self.operator_by(place, &place.plane.kubeconfig(User::Operator))
    }

    /// The same with another way to the API server.
    pub fn operator_by(&self, place: &Place, kubeconfig: &Path) -> Result<Operator> {
        let catalogue = self.catalogue.display().to_string();
        let arguments = ["--namespace", &place.namespace, "--gpu-catalogue", &catalogue];
        Operator::start_with(kubeconfig, "info", &arguments)
    }

    /// The end of what Karpenter wrote.
    pub fn log(&self) -> String {
        let log = self.program.log();
        // That it cannot make a node for a preflight pod is no news: those end without one.
        let lines: Vec<&str> =
            log.lines().filter(|line| !line.contains("could not schedule pod")).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// Karpenter's objects of a kind.
pub fn kind(client: &Client, kind: &str) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource("karpenter.sh", "v1", kind))
}

impl Place {
    /// The pool of a workspace, where there is one.
    pub async fn pool_of(&self, workspace: &str) -> Result<Option<DynamicObject>> {
        let (of, at) = (plan::names::WORKSPACE, plan::names::NAMESPACE);
        let ours = format!("{at}={},{of}={workspace}", self.namespace);
        let ours = ListParams::default().labels(&ours);
        Ok(kind(&self.client, "NodePool").list(&ours).await?.items.pop())
    }
}

/// What there is of a pool.
#[derive(Clone, Debug)]
pub struct Capacity {
    pub pool: Option<DynamicObject>,
    pub claims: Vec<DynamicObject>,
    pub nodes: Vec<Node>,
}

impl Capacity {
    /// What there is of a pool of this name.
    pub async fn of(client: &Client, pool: &str) -> Result<Self> {
        let ours = ListParams::default().labels(&format!("{}={pool}", plan::names::POOL));
        Ok(Self {
            pool: kind(client, "NodePool").get_opt(pool).await?,
            claims: kind(client, "NodeClaim").list(&ours).await?.items,
            nodes: Api::<Node>::all(client.clone()).list(&ours).await?.items,
        })
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.pool.is_none() && self.claims.is_empty() && self.nodes.is_empty()
    }
}
