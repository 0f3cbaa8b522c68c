//! A real Kubernetes for tests: etcd, API server and controller manager, with nothing that is faked.
//!
//! No node runs here: Jobs get real pods, and a test that needs one to end says so in its status.
//! The programs are built once from the Go modules in `tests/cluster/tools`, into the cache.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rcgen::KeyPair;
use tempfile::TempDir;

pub mod companion;
pub mod tools;

/// Longest wait for the API server.
const START: Duration = Duration::from_secs(90);
/// Controllers that these tests depend on.
const CONTROLLERS: &str = "job-controller,garbage-collector-controller,namespace-controller,\
                           serviceaccount-controller,ttl-after-finished-controller,\
                           resourcequota-controller";

/// What the API server records: every request of the operator's, by verb and object.
const AUDIT: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: [\"system:serviceaccount:anneal-system:anneal-operator\"]}
- {level: None}
";

/// A running control plane. Its processes end with the process that started it, however that ends.
#[derive(Debug)]
pub struct ControlPlane {
    folder: TempDir,
    /// A shell that kills what it started when its input ends.
    keeper: Mutex<Child>,
    port: u16,
}

/// Who a kubeconfig speaks as.
#[derive(Clone, Copy, Debug)]
pub enum User {
    /// May do everything.
    Admin,
    /// The service account `anneal-system/anneal-operator`.
    Operator,
}

impl User {
    const fn token(self) -> &'static str {
        match self {
            Self::Admin => "admin-token",
            Self::Operator => "operator-token",
        }
    }
}

/// The control plane that all tests of this process share; each uses a namespace of its own.
pub fn control_plane() -> Result<&'static ControlPlane> {
    static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| ControlPlane::start().map_err(|error| format!("{error:#}")));
    shared.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

impl ControlPlane {
    /// Starts etcd, API server and controller manager, and waits until the API server is ready.
    pub fn start() -> Result<Self> {
        let programs = tools::control_plane()?;
        let folder = tempfile::tempdir().context("cannot make a folder for a control plane")?;
        let (etcd, peer, port) = (free_port()?, free_port()?, free_port()?);
        let key = KeyPair::generate().context("cannot make a key")?;
        fs::write(folder.path().join("sa.key"), key.serialize_pem())?;
        fs::write(folder.path().join("sa.pub"), key.public_key_pem())?;
        fs::write(folder.path().join("tokens.csv"), tokens())?;
        fs::write(folder.path().join("audit.yaml"), AUDIT)?;
        for user in [User::Admin, User::Operator] {
            let path = folder.path().join(format!("{}.kubeconfig", user.token()));
            fs::write(path, kubeconfig(port, user))?;
        }
        let script = script(&programs, folder.path(), etcd, peer, port);
        let keeper = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start bash")?;
        let plane = Self { folder, keeper: Mutex::new(keeper), port };
        plane.wait()?;
        Ok(plane)
    }

    /// Kills the API server, starts it again, and waits until it is ready.
    pub fn restart_api_server(&self) -> Result<()> {
        fs::remove_file(self.folder.path().join("ready")).context("it is not ready yet")?;
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let input = keeper.stdin.as_mut().context("the shell has no input")?;
        input.write_all(b"restart\n").context("the shell has ended")?;
        drop(keeper);
        self.wait()
    }

    /// The path of a kubeconfig.
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        self.folder.path().join(format!("{}.kubeconfig", user.token()))
    }

    /// Where its programs write their logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The API server's own record of what the operator asks for: one JSON object a line.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// The end of a program's log.
    fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// The script writes this file once `/readyz` says ok.
    fn wait(&self) -> Result<()> {
        let (ready, start) = (self.folder.path().join("ready"), Instant::now());
        while !ready.exists() {
            if start.elapsed() > START {
                bail!("the API server did not start; it said:\n{}", self.log("apiserver.log"));
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        Ok(())
    }
}

fn tokens() -> String {
    format!(
        "{},admin,admin,\"system:masters\"\n{},system:serviceaccount:anneal-system:anneal-operator,\
         operator,\"system:serviceaccounts,system:serviceaccounts:anneal-system\"\n",
        User::Admin.token(),
        User::Operator.token(),
    )
}

fn kubeconfig(port: u16, user: User) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
         clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{port}\", insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: test, user: {{token: {}}}}}]\n",
        user.token()
    )
}

/// Starts everything, and kills it when the input ends: when this process does.
fn script(
    programs: &tools::ControlPlane,
    folder: &Path,
    etcd: u16,
    peer: u16,
    port: u16,
) -> String {
    let tools::ControlPlane { etcd: etcd_bin, api_server, controller_manager } = programs;
    let (etcd_bin, api_server) = (etcd_bin.display(), api_server.display());
    let (controller_manager, folder) = (controller_manager.display(), folder.display());
    let admin = User::Admin.token();
    format!(
        r#"cd "{folder}"
"{etcd_bin}" --name test --data-dir data --listen-client-urls http://127.0.0.1:{etcd} \
  --advertise-client-urls http://127.0.0.1:{etcd} --listen-peer-urls http://127.0.0.1:{peer} \
  --initial-advertise-peer-urls http://127.0.0.1:{peer} \
  --initial-cluster test=http://127.0.0.1:{peer} --unsafe-no-fsync --log-level warn \
  </dev/null >etcd.log 2>&1 &
api_server() {{
  exec "{api_server}" --etcd-servers=http://127.0.0.1:{etcd} --bind-address=127.0.0.1 \
  --secure-port={port} --endpoint-reconciler-type=none --service-cluster-ip-range=10.96.0.0/16 \
  --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key \
  --service-account-issuer=https://kubernetes.default.svc --authorization-mode=RBAC \
  --token-auth-file=tokens.csv --cert-dir=certs --disable-admission-plugins=ServiceAccount \
  --audit-policy-file=audit.yaml --audit-log-path=audit.log \
  </dev/null >>apiserver.log 2>&1
}}
ready() {{
  until curl -skf -H "Authorization: Bearer {admin}" https://127.0.0.1:{port}/readyz >/dev/null; do
    sleep 0.2
  done
  touch ready
}}
api_server & api=$!
ready &
(
  until [ -e ready ]; do sleep 0.2; done
  exec "{controller_manager}" --kubeconfig={admin}.kubeconfig \
    --authentication-kubeconfig={admin}.kubeconfig --authorization-kubeconfig={admin}.kubeconfig \
    --service-account-private-key-file=sa.key --leader-elect=false --bind-address=127.0.0.1 \
    --secure-port=0 --kube-api-qps=500 --kube-api-burst=1000 --concurrent-job-syncs=20 \
    --controllers={CONTROLLERS} </dev/null >controllers.log 2>&1
) &
while read -r _; do
  kill -KILL $api
  wait $api
  api_server & api=$!
  ready &
done
kill -KILL $(jobs -p)
wait
rm -rf "{folder}"
"#
    )
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    let port = listener.local_addr()?.port();
    ensure!(port != 0, "no free port");
    Ok(port)
}
