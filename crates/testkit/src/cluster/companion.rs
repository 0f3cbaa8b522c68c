//! A program beside a control plane, such as a scheduler or an autoscaler.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Starts what follows, and kills it when the input ends: when the process that started it does.
const KEEP: &str = r#""$@" </dev/null >"$KEEPER_LOG" 2>&1 & child=$!
while read -r _; do :; done
kill -KILL $child
wait"#;

/// A program that ends with this value, or with this process, however that ends.
#[derive(Debug)]
pub struct Companion {
    keeper: Child,
    log: PathBuf,
}

impl Companion {
    /// Starts a program with these arguments and variables; it writes to a log of its name in a folder.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &Path)],
        folder: &Path,
    ) -> Result<Self> {
        let name = program.file_name().context("a program without a name")?;
        let log = folder.join(name).with_extension("log");
        let mut command = Command::new("bash");
        command.args(["-c", KEEP, "keeper"]).arg(program).args(arguments);
        command.env("KEEPER_LOG", &log).envs(environment.iter().copied());
        let keeper = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start `{}`", program.display()))?;
        Ok(Self { keeper, log })
    }

    /// All that it wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
