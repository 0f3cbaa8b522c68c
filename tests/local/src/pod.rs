//! The trainer as the operator starts it: a workspace, a role and some variables, with the pod's folders
//! inside a project.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{Project, program};

/// Longest wait for a line of the log, and for an answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// The file that the kubelet would read in the end.
const MESSAGE: &str = "message.json";

/// A running trainer.
#[derive(Debug)]
pub struct Pod<'a> {
    project: &'a Project,
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
    port: u64,
}

/// A trainer that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    /// The termination message; null where there is none.
    pub message: Value,
    pub log: String,
}

impl<'a> Pod<'a> {
    /// Starts the trainer on `tune.yaml`. Its `/work` is the folder `work` of the project.
    pub fn start(project: &'a Project, role: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let mut command = Self::command(project, role);
        command.envs(variables.iter().copied());
        Self::spawn(project, &mut command)
    }

    /// The command that starts the trainer.
    pub fn command(project: &Project, role: &str) -> Command {
        let mut command = Command::new(program().with_file_name("trainer-image"));
        project.set_up(&mut command);
        command.arg(role);
        command.env("ANNEAL_WORKSPACE", "tune.yaml").env("ANNEAL_WORK", "work");
        command.env("ANNEAL_TERMINATION_LOG", MESSAGE).env("ANNEAL_LISTEN", "127.0.0.1:0");
        command
    }

    /// Starts a command that becomes the trainer, and waits until it listens.
    pub fn spawn(project: &'a Project, command: &mut Command) -> Result<Self> {
        project.write(MESSAGE, "")?;
        let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start")?;
        let log = child.stderr.take().context("the trainer has no log")?;
        let (told, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                // Nobody may listen any more; the pipe is still emptied.
                let _ = told.send(line);
            }
        });
        let mut pod = Self { project, child, lines, heard: Vec::new(), port: 0 };
        let listening = pod.wait_for(|fields| fields["message"] == "listening")?;
        pod.port = listening["port"].as_u64().context("the log names no port")?;
        Ok(pod)
    }

    /// Reads the log up to the line that `is` is true for, and returns its fields.
    pub fn wait_for(&mut self, is: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                bail!("the line that is waited for does not come:\n{}", self.heard.join("\n"));
            };
            let fields = fields(&line);
            self.heard.push(line);
            if is(&fields) {
                return Ok(fields);
            }
        }
    }

    /// Waits for an event of the run.
    pub fn wait_for_event(&mut self, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let fields = self.wait_for(|fields| event(fields).is_some_and(|event| is(&event)))?;
        event(&fields).context("the line has an event")
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The most address space that it has taken so far, in KiB.
    pub fn peak(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let row = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
        let number = row.and_then(|row| row.trim().strip_suffix(" kB"));
        Ok(number.context("the system does not tell the peak")?.trim().parse()?)
    }

    /// Asks for a page, and returns status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
        let status = head.split(' ').nth(1).context("an answer without a status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) -> Result<()> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status()?;
        anyhow::ensure!(sent.success(), "cannot send {name}");
        Ok(())
    }

    /// Waits for the end.
    pub fn end(mut self) -> Result<Ended> {
        let code = self.child.wait()?.code();
        self.heard.extend(self.lines.iter());
        let text = std::fs::read_to_string(self.project.path().join(MESSAGE))?;
        let message = serde_json::from_str(&text).unwrap_or_default();
        Ok(Ended { code, message, log: self.heard.join("\n") })
    }
}

impl Ended {
    /// Events of the run that the log holds.
    pub fn events(&self) -> Vec<Value> {
        self.log.lines().filter_map(|line| event(&fields(line))).collect()
    }
}

/// The fields of a line of the log.
fn fields(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_default();
    value["fields"].clone()
}

fn event(fields: &Value) -> Option<Value> {
    serde_json::from_str(fields["event"].as_str()?).ok()
}
