//! The main story on a real node, with no shortcut: the operator as a Deployment, model and data as images
//! in a registry, `kubectl apply`, SmolLM2 trained by the real trainer in a real pod under the `restricted`
//! level, the adapter pulled back, the workspace deleted, and nothing left.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::left_out::left_out;

/// The node's address, which is the registry's.
const REGISTRY: &str = "10.99.0.1:5000";

/// Programs of the node, built once.
const PROGRAMS: [&str; 16] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "host-local",
    "bridge",
    "loopback",
    "portmap",
    "registry",
];

const WORKSPACE: &str = "\
apiVersion: anneal.dev/v1alpha1
kind: FineTuneWorkspace
metadata: {name: story, namespace: team}
spec:
  baseModel: {image: \"10.99.0.1:5000/models/smollm2:1\"}
  data:
    train: {image: \"10.99.0.1:5000/data/story:1\"}
    test: {fraction: 0.2}
  hyperparameters: {maxSteps: 3, batchSize: 2}
  evaluation: {maxExamples: 2, maxNewTokens: 4}
  output: {image: \"10.99.0.1:5000/team/story\"}
";

/// Whether this machine can be a node; if not, tells that `test` is left out.
fn needs_node(test: &str) -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    });
    if !is_root {
        left_out(test, "it needs root, to make namespaces for a node");
        return false;
    }
    for (program, argument) in [
        ("go", "version"),
        ("gcc", "--version"),
        ("nft", "--version"),
        ("ip", "-V"),
        ("nsenter", "--version"),
        ("openssl", "version"),
        ("curl", "--version"),
        ("python3", "--version"),
    ] {
        let mut command = Command::new(program);
        command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null());
        if !command.status().is_ok_and(|status| status.success()) {
            left_out(test, &format!("it needs `{program}` to build and start a node"));
            return false;
        }
    }
    if !Path::new("/sys/fs/cgroup/memory").is_dir() || !Path::new("/usr/include/seccomp.h").exists()
    {
        left_out(test, "it needs control groups of version 1, and libseccomp-dev to build runc");
        return false;
    }
    true
}

/// A running node. It ends when this is dropped.
struct Node {
    folder: TempDir,
    programs: PathBuf,
}

impl Node {
    /// Builds what is missing, makes our images, and starts the node with them.
    fn start() -> Result<Self> {
        let programs = testkit::python::cache_dir()?.join("bin");
        run(Command::new(tests("tools/build.sh")).arg(&programs).args(PROGRAMS))?;
        let folder = tempfile::tempdir().context("no folder for a node")?;
        let images = folder.path().join("images");
        fs::create_dir(&images)?;
        for (program, name) in [("anneal-operator", "operator"), ("trainer-image", "trainer")] {
            let reference = format!("localhost/anneal-{name}:test");
            let tar = images.join(format!("{name}.tar"));
            run(Command::new(tests("node/image.sh")).arg(ours(program)).arg(reference).arg(tar))?;
        }
        let node = Self { folder, programs };
        node.script("up", &[])?;
        Ok(node)
    }

    /// Runs a command in the node's network; its output.
    fn inside(&self, arguments: &[&str]) -> Result<String> {
        self.script("in", arguments)
    }

    fn kubectl(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = std::iter::once("kubectl").chain(line.split(' ')).collect();
        self.inside(&words)
    }

    fn script(&self, what: &str, more: &[&str]) -> Result<String> {
        let mut command = Command::new(tests("node/cluster.sh"));
        command.arg(what).arg(self.folder.path()).arg(&self.programs).args(more);
        run(&mut command)
    }

    /// Applies a text.
    fn apply(&self, text: &str) -> Result<String> {
        let file = self.folder.path().join("apply.yaml");
        fs::write(&file, text)?;
        self.inside(&["kubectl", "apply", "--server-side", "-f", &file.display().to_string()])
    }

    /// What there is to see when a wait is in vain.
    fn explain(&self) -> String {
        ["get ftw,jobs,pods -A -o wide", "describe pods -n team", "get ftw -n team -o yaml"]
            .map(|line| self.kubectl(line).unwrap_or_else(|error| format!("{error:#}")))
            .join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.explain());
        }
        if let Err(error) = self.script("down", &[]) {
            eprintln!("the node did not end: {error:#}");
        }
    }
}

#[test]
fn from_apply_to_an_adapter_in_the_registry_on_a_real_node() {
    let name = "from_apply_to_an_adapter_in_the_registry_on_a_real_node";
    if !needs_node(name) {
        return;
    }
    let model = testkit::smollm2().unwrap();
    let node = Node::start().unwrap();
    let anneal = ours("anneal").display().to_string();

    let data = node.folder.path().join("train.jsonl");
    fs::write(&data, examples()).unwrap();
    for (source, target) in [(&model, "models/smollm2:1"), (&data, "data/story:1")] {
        let target = format!("{REGISTRY}/{target}");
        let source = source.display().to_string();
        node.inside(&[&anneal, "push", "--plain-http", &source, &target]).unwrap();
    }

    install(&node).unwrap();
    node.apply(
        "{apiVersion: v1, kind: Namespace, metadata: {name: team, labels: \
         {pod-security.kubernetes.io/enforce: restricted}}}",
    )
    .unwrap();
    node.apply(WORKSPACE).unwrap();
    let wait = "wait -n team ftw/story --for=jsonpath={.status.phase}=Succeeded --timeout=420s";
    node.kubectl(wait).unwrap();

    let digest =
        node.kubectl("get -n team ftw/story -o jsonpath={.status.adapter.digest}").unwrap();
    assert!(digest.starts_with("sha256:"), "{digest}");
    let table = node.kubectl("get -n team ftw").unwrap();
    assert!(table.contains("Succeeded") && table.contains("3/3"), "{table}");
    let adapter = node.folder.path().join("adapter").display().to_string();
    let reference = format!("{REGISTRY}/team/story@{digest}");
    node.inside(&[&anneal, "pull", "--plain-http", &reference, &adapter]).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        assert!(find(Path::new(&adapter), file), "the adapter has no {file}");
    }
    let pods = node.kubectl("get pods -n team -o yaml").unwrap();
    assert!(!pods.contains("kube-api-access"), "a trainer has a token of the API server");

    node.kubectl("delete -n team ftw/story --wait --cascade=foreground").unwrap();
    let left =
        node.kubectl("get jobs,pods,configmaps -n team -l anneal.dev/workspace -o name").unwrap();
    assert_eq!(left, "");
}

/// The operator as `deploy` has it, with the images that were made here.
fn install(node: &Node) -> Result<()> {
    let deploy = tests("../../deploy").display().to_string();
    let objects = node.inside(&["kubectl", "kustomize", &deploy])?;
    let (operator, trainer) =
        ("ghcr.io/anneal-dev/operator:latest", "ghcr.io/anneal-dev/trainer:latest");
    ensure!(objects.contains(operator) && objects.contains(trainer), "deploy names other images");
    let plain_http = format!(
        "localhost/anneal-trainer:test\n        - name: ANNEAL_PLAIN_HTTP\n          value: {REGISTRY}"
    );
    let objects =
        objects.replace(operator, "localhost/anneal-operator:test").replace(trainer, &plain_http);
    node.apply(&objects)?;
    node.kubectl("rollout status -n anneal-system deployment/anneal-operator --timeout=120s")?;
    Ok(())
}

fn examples() -> String {
    let colors = ["red", "green", "blue"];
    (0..24)
        .map(|number| {
            let color = colors[number % colors.len()];
            format!("{{\"prompt\": \"{number}: which color?\", \"completion\": \"{color}\"}}\n")
        })
        .collect()
}

/// A path below `tests/cluster`.
fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// One of our programs, beside the tests' own folder.
fn ours(program: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).unwrap_or(&own).join(program)
}

fn find(folder: &Path, name: &str) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        entry.file_name() == name || (entry.path().is_dir() && find(&entry.path(), name))
    })
}

/// Runs a command to its end; its output.
fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?} ended with {}\n{text}{errors}", output.status);
    Ok(text)
}
