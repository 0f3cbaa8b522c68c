//! Fields that the design has and this version does not: using one is told and never ignored.

/// Field paths, or names of fields that stand in several places, and what to do without them.
const LATER: &[(&str, &str)] = &[
    ("spec.method.dpo", "use `sft: {}`"),
    ("spec.method.kto", "use `sft: {}`"),
    ("spec.method.orpo", "use `sft: {}`"),
    ("spec.method.grpo", "use `sft: {}`"),
    ("spec.method.classification", "use `sft: {}` with `data.labels`"),
    ("spec.adapter.prefix", "use `lora` or `full`"),
    ("spec.adapter.prompt", "use `lora` or `full`"),
    ("spec.adapter.lora.dora", "remove it"),
    (
        "spec.hyperparameters.packing",
        "remove it: whole examples are always packed, and never see each other",
    ),
    ("spec.baseModel.volume", "use `path`, `image` or `huggingFace`"),
    ("pullSecret", "set it once for all images of data, as `data.pullSecret`"),
    ("urls", "download the files and use `path`"),
    ("volume", "use `path` or `image`"),
    ("objectStore", "download the files and use `path`"),
    ("configMap", "use `path` or `image`"),
];

/// What to do in place of using a field of a later version; `None` for a field of no version.
pub(crate) fn hint(path: &str) -> Option<&'static str> {
    let last = path.rsplit('.').next().unwrap_or(path);
    let known =
        LATER.iter().find(|(name, _)| *name == path || *name == last).map(|(_, hint)| *hint);
    let compute = ["gpuMemory", "products", "workers"];
    match path.strip_prefix("spec.compute.") {
        Some(field) if compute.contains(&field) => {
            Some("remove it, and choose the node with `nodeSelector` and `gpus`")
        }
        _ => known,
    }
}
