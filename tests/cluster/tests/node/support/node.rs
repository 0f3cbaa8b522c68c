//! The node: started once by the first test, and ended when this process ends, however that happens.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The node's address is that of its registries. This one is open.
pub(crate) const REGISTRY: &str = "10.99.0.1:5000";
/// This one takes user `team` with the password.
pub(crate) const LOGIN: &str = "10.99.0.1:5001";
pub(crate) const PASSWORD: &str = "open-sesame";
/// What stands in for vLLM's image; `:test` is the tag.
pub(crate) const VLLM: &str = "10.99.0.1:5000/anneal/vllm";
/// Ports of the node's address at which tests start registries of their own, over http like the others.
const OWN_PORTS: std::ops::RangeInclusive<u16> = 5002..=5005;
/// The node's network, as `ip netns` keeps it.
const NETWORK: &str = "/run/netns/anneal-test";

/// A running node with the operator on it.
#[derive(Debug)]
pub(crate) struct Node {
    folder: PathBuf,
    programs: PathBuf,
    /// Digests of the images of operator, trainer and server.
    pub(crate) operator: String,
    pub(crate) trainer: String,
    pub(crate) server: String,
    /// Ends the node when this process does, as its input ends then.
    _keeper: Child,
}

/// What this machine lacks to be a node.
pub(crate) fn lacks() -> Result<String> {
    Ok(run(Command::new(cluster()).arg("check"))?.trim().to_owned())
}

impl Node {
    /// The node of all tests.
    pub(crate) fn shared() -> Result<&'static Self> {
        static NODE: OnceLock<Result<Node, String>> = OnceLock::new();
        let node = NODE.get_or_init(|| Self::start().map_err(|error| format!("{error:?}")));
        node.as_ref().map_err(|error| anyhow!("{error}"))
    }

    fn start() -> Result<Self> {
        let programs = testkit::python::cache_dir()?.join("bin");
        run(Command::new(tests("tools/build.sh")).arg(&programs).args(["node", "helm"]))?;
        let folder = tempfile::tempdir().context("no folder for a node")?.keep();
        let keeper = keeper(&folder, &programs)?;
        let mut up = Command::new(cluster());
        up.arg("up").args([&folder, &programs]).arg(builds());
        let table = run(&mut up)?;
        let digest = |name: &str| {
            let row = table.lines().find(|line| line.contains(&format!("/anneal/{name}:")));
            let digest =
                row.and_then(|row| row.split_whitespace().find(|word| word.starts_with("sha256:")));
            digest.map(str::to_owned).with_context(|| format!("no image of the {name}:\n{table}"))
        };
        let (operator, trainer, server) =
            (digest("operator")?, digest("trainer")?, digest("server")?);
        let node = Self { folder, programs, operator, trainer, server, _keeper: keeper };
        Self::within_thread(|| node.install(&[]).map(drop))?;
        Ok(node)
    }

    /// Installs the chart, or upgrades it, and waits for the operator.
    pub(crate) fn install(&self, more: &[&str]) -> Result<String> {
        let ports = [5000, 5001].into_iter().chain(OWN_PORTS);
        let registries: Vec<String> = ports.map(|port| format!("10.99.0.1:{port}")).collect();
        let values = [
            format!("image.repository={REGISTRY}/anneal/operator"),
            format!("image.digest={}", self.operator),
            format!("trainer.repository={REGISTRY}/anneal/trainer"),
            format!("trainer.digest={}", self.trainer),
            format!("server.repository={REGISTRY}/anneal/server"),
            format!("server.digest={}", self.server),
            format!("vllm.repository={VLLM}"),
            "vllm.tag=test".to_owned(),
            format!("plainHttp={{{}}}", registries.join(",")),
        ];
        let mut command = self.helm(&["upgrade", "--install", "anneal"]);
        command.arg(tests("../../charts/anneal"));
        command.args(["--namespace", "anneal-system", "--create-namespace"]);
        command.args(["--wait", "--timeout", "120s"]).args(more);
        for value in values {
            command.args(["--set", &value]);
        }
        run(&mut command)
    }

    /// Helm, with its own files in the node's folder.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("helm");
        for (variable, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(variable, self.folder.join("helm").join(folder));
        }
        command.args(arguments);
        command
    }

    /// Runs `kubectl` with words that hold no blanks.
    pub(crate) fn kubectl(&self, line: &str) -> Result<String> {
        run(self.command("kubectl").args(line.split(' ')))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Speaks as somebody who may do everything.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("pki/admin.kubeconfig")
    }

    /// Runs something asynchronous in the node's network.
    #[expect(clippy::unused_self, reason = "only a node that is up can be entered")]
    pub(crate) fn within<F>(&self, work: F) -> Result<()>
    where
        F: AsyncFnOnce() -> Result<()> + Send,
    {
        Self::within_thread(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        })
    }

    /// Runs something on a thread in the node's network, as are the programs that it starts.
    fn within_thread<F>(work: F) -> Result<()>
    where
        F: FnOnce() -> Result<()> + Send,
    {
        let inside = || {
            let network = File::open(NETWORK).context("the node has no network")?;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the node's network")?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A shell that ends the node and clears its folder away when its input ends.
fn keeper(folder: &Path, programs: &Path) -> Result<Child> {
    let script = r#"trap "" HUP INT TERM; read -r _; "$1" down "$2" "$3"; rm -rf "$2""#;
    Command::new("bash")
        .args(["-c", script, "keeper"])
        .args([&cluster(), folder, programs])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start bash")
}

fn cluster() -> PathBuf {
    tests("node/cluster.sh")
}

/// A path below `tests/cluster`.
pub(crate) fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where cargo puts our programs: beside the tests' own folder.
pub(crate) fn builds() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).unwrap_or(&own).to_owned()
}

/// Runs a command to its end; its output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?} ended with {}\n{text}{errors}", output.status);
    Ok(text)
}
