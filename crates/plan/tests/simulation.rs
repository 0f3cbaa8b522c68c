//! The page of the capacity simulation is what the functions of today give: its text, and the table of the
//! first workspaces, which is quickly made again.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/simulate_capacity/simulation/mod.rs"]
#[expect(dead_code, reason = "the whole page is made by the example")]
mod simulation;

#[test]
fn the_page_is_what_the_simulation_gives() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/capacity-simulation.md");
    let kept = std::fs::read_to_string(path).unwrap();
    let (head, check) = (simulation::page::head(), simulation::page::check());
    let stale = "the page is stale: run `cargo xtask simulate capacity --write`";
    assert!(kept.starts_with(&head), "{stale}\n{head}");
    assert!(kept.trim_end().ends_with(check.trim_end()), "{stale}\n{check}");
}
