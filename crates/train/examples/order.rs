//! Prints the order in which a run with the default seed takes `COUNT` examples in its first epoch, as
//! JSON: for a benchmark in which another program has to take them in the same order.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
    println!("{:?}", train::data::order(count, 42, 0));
}
