//! The rules of a `ModelServer` that the API server keeps too, as CEL; [`super::faults`] says the same with
//! a field's name. What a rule's text is made of is in [`crate::rules`].

use crate::rules::{
    BYTES, BYTES_SAID, DIGEST, IMAGE, IMAGE_SAID, NAME, NAME_SAID, REPO, REPO_SAID, Table,
};

/// What [`super::rules::is_served_name`] lets pass.
const SERVED_NAME: &str = "^[-A-Za-z0-9_.:/]+$";
const SERVED_NAME_SAID: &str = "is no name of a model: letters, digits and -_.:/ make one";

/// What the tag of an image may be; a workspace's adapter is pushed with its revision as the tag.
const REVISION: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]*$";

const ADAPTER: &str = "spec.adapters[]";

/// The rules of a `ModelServer`.
pub(crate) const RULES: Table = Table {
    bounds: &[
        ("spec.baseModel.path", 4096),
        ("spec.baseModel.image", 512),
        ("spec.baseModel.pullSecret", 253),
        ("spec.baseModel.huggingFace.repo", 256),
        ("spec.baseModel.huggingFace.revision", 256),
        ("spec.baseModel.huggingFace.tokenSecret", 253),
    ],
    sets: &[],
    // So that several people may each apply an adapter of their own.
    maps: &[("spec.adapters", "name")],
    texts: &[
        ("spec.baseModel", "path", &[r"\S"], "the path is empty"),
        ("spec.baseModel", "image", &[IMAGE, DIGEST, "$"], IMAGE_SAID),
        ("spec.baseModel", "pullSecret", &[NAME], NAME_SAID),
        ("spec.baseModel.huggingFace", "repo", &[REPO], REPO_SAID),
        ("spec.baseModel.huggingFace", "tokenSecret", &[NAME], NAME_SAID),
        ("spec", "modelName", &[SERVED_NAME], SERVED_NAME_SAID),
        ("spec", "apiKeysSecret", &[NAME], NAME_SAID),
        (ADAPTER, "name", &[SERVED_NAME], SERVED_NAME_SAID),
        (ADAPTER, "workspace", &[NAME], NAME_SAID),
        (ADAPTER, "revision", &[REVISION], "is no revision of a workspace"),
        (ADAPTER, "image", &[IMAGE, DIGEST, "$"], IMAGE_SAID),
        (ADAPTER, "path", &[r"\S"], "the path is empty"),
        (ADAPTER, "pullSecret", &[NAME], NAME_SAID),
        ("spec.limits", "cacheMemory", &[BYTES], BYTES_SAID),
        ("spec.limits", "adapterMemory", &[BYTES], BYTES_SAID),
        ("spec.compute", "memory", &[BYTES], BYTES_SAID),
    ],
    lists: &[],
    numbers: &[],
    blocks: &[],
    across: &[],
};
