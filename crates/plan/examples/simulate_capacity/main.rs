//! A trace of many workspaces under two policies of giving GPU nodes: ours, by the functions that the
//! operator uses, and nodes that come first and stay until the workspace is deleted. Prints the page that
//! `docs/capacity-simulation.md` holds.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

mod simulation;

fn main() {
    println!("{}", simulation::page::page().trim_end());
}
