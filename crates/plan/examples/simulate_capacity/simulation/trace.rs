//! The trace: who arrives when, with what, and how it ends. The same for every policy.

use api::run_spec::BaseModel;
use api::{DataFacts, MachineFacts, SplitFacts, Workspace};
use plan::{Catalogue, Inputs, Sources};

use super::assumptions as assume;
use super::shapes;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Succeeds,
    /// Its data is faulty, which preflight sees.
    Faulty,
    /// The trainer ends with an error, a tenth of the way.
    Fails,
    /// The trainer shows no sign of work from half of the way on.
    Hangs,
    /// Its user stops it half of the way.
    Cancelled,
}

/// A workspace of the trace. Times are in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: u64,
    pub(crate) memory: u64,
    /// The smallest product of the cloud that holds it.
    pub(crate) product: String,
    pub(crate) provisioning: u64,
    pub(crate) pulling: u64,
    /// The length of the training, were it to succeed.
    pub(crate) training: u64,
    pub(crate) fate: Fate,
    /// From the end to deletion, in means.
    pub(crate) deleted_after: f64,
}

impl Arrival {
    /// Seconds from the start of the trainer to the end of its work, as its fate has it.
    pub(crate) const fn works(&self) -> u64 {
        match self.fate {
            Fate::Succeeds => self.training,
            Fate::Faulty => assume::SEES_FAULT,
            Fate::Fails => self.training / 10,
            Fate::Hangs | Fate::Cancelled => self.training / 2,
        }
    }
}

/// All arrivals, the first one first.
pub(crate) fn trace() -> Vec<Arrival> {
    let mut random = Random(assume::SEED);
    let kinds = assume::MODELS.map(|(share, model, longest)| Kind::new(share, model, longest));
    let mean = assume::SPAN as f64 / assume::WORKSPACES as f64;
    let mut at = 0.0;
    let all = (0..assume::WORKSPACES).map(|_| {
        at += mean * random.exponential();
        let kind = pick(&kinds, random.uniform());
        let examples = assume::EXAMPLES.0 * (assume::EXAMPLES.1 * random.normal()).exp();
        let (least, most) = assume::TRAINING;
        let training = ((kind.seconds_an_example * examples) as u64).clamp(least, most);
        Arrival {
            at: at as u64,
            memory: kind.memory,
            product: kind.product.clone(),
            provisioning: between(assume::PROVISIONING, random.uniform()),
            pulling: between(assume::PULLING, random.uniform()),
            training,
            fate: fate(random.uniform()),
            deleted_after: random.exponential().min(assume::MOST_MEANS),
        }
    });
    all.collect()
}

struct Kind {
    share: f64,
    memory: u64,
    product: String,
    seconds_an_example: f64,
}

impl Kind {
    /// By the estimates that preflight makes, of memory and of time.
    fn new(share: f64, model: &str, longest: u64) -> Self {
        let (name, adapter) = match model.strip_suffix("-all") {
            Some(name) => (name, "adapter: {full: {}}"),
            None => (model, ""),
        };
        let text = format!(
            "apiVersion: anneal.dev/v1alpha1\nkind: FineTuneWorkspace\nmetadata: {{name: a}}\nspec:\n  \
             baseModel: {{path: model}}\n  data: {{train: {{path: a.jsonl}}}}\n  {adapter}\n"
        );
        let workspace: Workspace =
            api::load("workspace.yaml", &text).expect("the text above is a workspace").0;
        let examples = 10_000;
        let inputs = inputs(name, longest, examples);
        let found = plan::least(&workspace, &inputs).expect("some GPU holds each of these models");
        let catalogue = Catalogue::built_in();
        let mut products = catalogue.products.iter();
        let product = products.find(|one| {
            one.memory() >= found.memory
                && one.instances.get("gcp").is_some_and(|all| all.iter().any(|it| it.gpus == 1))
        });
        Self {
            share,
            memory: found.memory,
            product: product.expect("the cloud has a GPU for each of these models").name.clone(),
            seconds_an_example: found.resolved.estimate.seconds as f64 / examples as f64,
        }
    }
}

fn pick(kinds: &[Kind], uniform: f64) -> &Kind {
    let mut left = uniform;
    let found = kinds.iter().find(|kind| {
        left -= kind.share;
        left < 0.0
    });
    found.unwrap_or(&kinds[0])
}

fn fate(uniform: f64) -> Fate {
    let mut left = uniform;
    let shares = [
        (assume::FAULTY, Fate::Faulty),
        (assume::FAILS, Fate::Fails),
        (assume::HANGS, Fate::Hangs),
        (assume::CANCELLED, Fate::Cancelled),
    ];
    let found = shares.into_iter().find(|(share, _)| {
        left -= share;
        left < 0.0
    });
    found.map_or(Fate::Succeeds, |(_, fate)| fate)
}

fn between((least, most): (u64, u64), uniform: f64) -> u64 {
    least + ((most - least) as f64 * uniform) as u64
}

fn inputs(model: &str, longest: u64, examples: u64) -> Inputs {
    let train = SplitFacts {
        examples,
        tokens: examples * longest / 2,
        label_tokens: examples * longest / 4,
        longest,
        lengths: vec![(longest / 2) as u32, longest as u32],
        shared: 0,
    };
    Inputs {
        model: shapes::named(model),
        data: DataFacts {
            digest: "sha256:data".to_owned(),
            format: Some(api::run_spec::Format::Chat),
            train,
            ..DataFacts::default()
        },
        machine: MachineFacts { cpus: 8, memory: 32 << 30, bf16: true, gpu: None },
        sources: Sources {
            base_model: BaseModel {
                path: "model".into(),
                reference: "model".to_owned(),
                digest: Some("sha256:base".to_owned()),
            },
            train: vec!["a.jsonl".into()],
            validation: Vec::new(),
            test: Vec::new(),
            output_dir: "a".into(),
        },
    }
}

/// `SplitMix64`: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1, without 0.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// With mean 1.
    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
