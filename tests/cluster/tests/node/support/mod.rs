//! The node that all tests share, a namespace for each, and hands that reach into a pod from outside.

mod host;
mod node;
mod team;

use std::sync::{PoisonError, RwLock};

use anyhow::{Result, anyhow};
use testkit::left_out::left_out;

pub(crate) use host::{Process, Signal};
pub(crate) use node::{LOGIN, Node, PASSWORD, REGISTRY, VLLM, builds, run, tests};
pub(crate) use team::{
    Team, colors, condition, docker_folder, docker_options, long_examples, plain, push_data, until,
};

/// Whether a test gets on with others on the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    Any,
    /// What it does to the node would disturb others.
    None,
}

/// Tests that want to be alone wait for the others, and the others for them.
static TURN: RwLock<()> = RwLock::new(());

/// Runs a test in the node's network, in a namespace of its own that is named `name`.
pub(crate) fn on_node<F>(name: &'static str, company: Company, test: F)
where
    F: AsyncFnOnce(&Team) -> Result<()> + Send + 'static,
{
    let lacks = node::lacks().unwrap();
    if !lacks.is_empty() {
        left_out(name, &lacks.replace('\n', "; "));
        return;
    }
    let node = Node::shared().unwrap();
    let _shared =
        (company == Company::Any).then(|| TURN.read().unwrap_or_else(PoisonError::into_inner));
    let _alone =
        (company == Company::None).then(|| TURN.write().unwrap_or_else(PoisonError::into_inner));
    let result = node.within(async move || {
        let team = Team::new(node, name).await?;
        match test(&team).await {
            Ok(()) => team.leave().await,
            Err(error) => {
                let seen = team.explain();
                // What it started would disturb the others.
                let left = team.leave().await.err().map_or(String::new(), |left| left.to_string());
                Err(anyhow!("{error:?}\n{left}\n{seen}"))
            }
        }
    });
    result.unwrap_or_else(|error| panic!("{error:?}"));
}
