//! `anneal`: fine-tunes language models on this machine. The one program in which reading a
//! workspace, deciding, training and publishing meet; each of them is a crate of its own.

mod args;
mod command;
mod failure;
mod machine;
mod prepare;
mod publish;
mod say;
mod server_file;
mod sources;
mod stop;
mod view;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::args::{Anneal, Command, Output};
use crate::failure::Failure;

/// What is logged unless `ANNEAL_LOG` says otherwise. A certificate that is refused is told by the command.
const LOGGED: &str = "error,rustls_platform_verifier=off";

fn main() -> ExitCode {
    train::runtime::prepare();
    let filter = EnvFilter::try_from_env("ANNEAL_LOG").unwrap_or_else(|_| EnvFilter::new(LOGGED));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let anneal = Anneal::parse();
    let output = output(&anneal.command);
    match run(&anneal.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if output == Output::Json {
                say::json_line(&failure.json());
            }
            eprint!("{}", failure.text());
            ExitCode::from(u8::try_from(failure.class.code()).unwrap_or(1))
        }
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => command::run::run(args),
        Command::Validate(args) => command::validate::run(args),
        Command::Plan(args) => command::plan::run(args),
        Command::Generate(args) => command::generate::run(args),
        Command::Serve(args) => command::serve::run(args),
        Command::Front(args) => command::front::run(args),
        Command::Link(args) => command::link::run(args),
        Command::Chat(args) => command::chat::run(args),
        Command::Push(args) => command::push::run(args),
        Command::Pull(args) => command::pull::run(args),
    }
}

fn output(command: &Command) -> Output {
    match command {
        Command::Run(args) => args.output.output,
        Command::Validate(args) => args.output.output,
        Command::Plan(args) => args.output.output,
        Command::Generate(args) => args.output.output,
        Command::Serve(args) => args.output.output,
        Command::Front(args) => args.output.output,
        Command::Link(args) => args.output.output,
        Command::Chat(args) => args.output.output,
        Command::Push(args) => args.output.output,
        Command::Pull(args) => args.output.output,
    }
}
