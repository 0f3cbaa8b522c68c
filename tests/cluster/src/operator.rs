//! The operator as a process, with the rights of its service account.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::cluster::User;

use crate::Place;

/// A running operator that looks at one namespace. It is killed when it is dropped.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    folder: TempDir,
}

impl Operator {
    /// Starts the operator for a namespace; with `lease`, several may be started and one leads.
    pub fn start(place: &Place, lease: bool) -> Result<Self> {
        Self::start_by(place, &place.plane.kubeconfig(User::Operator), lease)
    }

    /// Starts the operator with another way to the API server.
    pub fn start_by(place: &Place, kubeconfig: &Path, lease: bool) -> Result<Self> {
        // As much as it can tell: a secret is in none of it.
        let mut arguments = vec!["--namespace", &place.namespace];
        if lease {
            arguments.extend(["--lease-namespace", "anneal-system"]);
        }
        Self::start_with(kubeconfig, "debug,anneal_operator=trace", &arguments)
    }

    /// Starts the operator with options of one's own, and so much in its log.
    pub fn start_with(kubeconfig: &Path, log_level: &str, arguments: &[&str]) -> Result<Self> {
        Self::spawn(kubeconfig, log_level, arguments, &[])
    }

    /// Starts the operator for a namespace, with variables of the environment.
    pub fn start_in(place: &Place, environment: &[(&str, &str)]) -> Result<Self> {
        let kubeconfig = place.plane.kubeconfig(User::Operator);
        Self::spawn(&kubeconfig, "info", &["--namespace", &place.namespace], environment)
    }

    fn spawn(
        kubeconfig: &Path,
        log_level: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for the operator")?;
        let log = File::create(folder.path().join("log")).context("cannot make a log")?;
        let mut command = Command::new(program());
        command.env("KUBECONFIG", kubeconfig).env("RUST_LOG", log_level);
        command.envs(environment.iter().copied());
        command.args(["--admin-address", "127.0.0.1:0"]).args(arguments);
        command.args(["--trainer-image", "registry.example.com/anneal/trainer:v1"]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the operator: `cargo build --release -p operator` first")?;
        Ok(Self { child, folder })
    }

    /// What a command of the program prints.
    pub fn print(arguments: &[&str]) -> Result<String> {
        let output = Command::new(program()).args(arguments).output();
        let output = output.context("cannot run the operator")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts anew, as a kubelet does it, whenever the process ends by itself, until `done`.
    pub async fn kept_until<T>(
        &mut self,
        start: impl Fn() -> Result<Self>,
        done: impl Future<Output = T>,
    ) -> Result<T> {
        let mut every = tokio::time::interval(Duration::from_millis(200));
        tokio::pin!(done);
        loop {
            tokio::select! {
                done = &mut done => return Ok(done),
                _ = every.tick() => {
                    if self.child.try_wait().context("cannot wait for the operator")?.is_some() {
                        *self = start()?;
                    }
                }
            }
        }
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(self.folder.path().join("log")).context("the operator has no log")
    }

    /// `SIGKILL`, as a lost node does it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill the operator")?;
        self.child.wait().context("cannot wait for the operator")?;
        Ok(())
    }

    /// `SIGTERM`, as a rollout does it. It must end well.
    pub fn stop(&mut self) -> Result<()> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().context("cannot stop it")?;
        ensure!(sent.success(), "cannot stop the operator");
        let ended = self.child.wait().context("cannot wait for the operator")?;
        ensure!(ended.success(), "the operator ended with {ended}:\n{}", self.log()?);
        Ok(())
    }

    /// What `GET` of a path at the admin address answers, with the status line.
    pub async fn ask(&self, path: &str) -> Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let address = self.admin_address().await?;
        let mut stream = tokio::net::TcpStream::connect(&address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// The address that it chose, from its log.
    async fn admin_address(&self) -> Result<String> {
        let mut every = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..400 {
            every.tick().await;
            let log = self.log()?;
            if let Some((_, rest)) = log.split_once("\"address\":\"") {
                let address = rest.split('"').next().context("no address")?;
                return Ok(address.to_owned());
            }
        }
        anyhow::bail!("the operator does not tell its address:\n{}", self.log()?)
    }

    /// Requests to the API server that wrote something.
    pub async fn writes(&self) -> Result<u64> {
        let metrics = self.ask("/metrics").await?;
        let lines = metrics.lines().filter(|line| line.starts_with("rest_client_requests_total"));
        let writes = lines.filter(|line| !line.contains("method=\"GET\""));
        let numbers = writes.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(numbers.sum::<f64>() as u64)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = self.log()
        {
            // The libraries' lines are for whoever keeps the folder.
            let own = log.lines().filter(|line| line.contains("\"target\":\"anneal_operator"));
            let own: Vec<&str> = own.collect();
            eprintln!("the operator's log:\n{}", own.join("\n"));
        }
        let _ = self.kill();
    }
}

/// The program that `cargo build --release -p operator` makes, beside the tests' own folder.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).unwrap_or(&own).join("anneal-operator")
}
