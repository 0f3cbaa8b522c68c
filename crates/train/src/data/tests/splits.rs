//! Splits are seeded, have about their share, and keep their examples when others are added.

use std::collections::HashSet;

use api::run_spec::{Duplicates, HeldOut};

use super::{Case, conversations, survey};

fn split(count: usize) -> Case {
    let mut case = Case::new("a.jsonl", conversations(count));
    case.data.validation = HeldOut::Fraction(0.1);
    case.data.test = HeldOut::Fraction(0.2);
    case
}

fn lines(examples: &[super::Example]) -> HashSet<u64> {
    examples.iter().map(|example| example.line).collect()
}

#[test]
fn shares_are_about_as_large_as_asked() {
    let facts = split(2000).survey();
    let counts = [facts.train.examples, facts.validation.examples, facts.test.examples];
    assert_eq!(counts.iter().sum::<u64>(), 2000);
    // Three standard deviations of a binomial distribution.
    assert!(counts[1].abs_diff(200) < 40, "{counts:?}");
    assert!(counts[2].abs_diff(400) < 54, "{counts:?}");
}

#[test]
fn examples_keep_their_split_when_others_are_added_or_the_system_message_changes() {
    let before = split(300).open();
    let mut grown = split(600);
    grown.data.system = Some("be brief".to_owned());
    let after = grown.open();
    assert!(lines(&before.test).is_subset(&lines(&after.test)));
    assert!(lines(&before.validation).is_subset(&lines(&after.validation)));
    assert!(lines(&before.train).is_subset(&lines(&after.train)));
}

#[test]
fn one_share_can_change_without_touching_the_other() {
    let mut case = split(300);
    let test = lines(&case.open().test);
    case.data.validation = HeldOut::Fraction(0.3);
    assert_eq!(lines(&case.open().test), test);
}

#[test]
fn another_seed_gives_another_split() {
    let case = split(300);
    let one = case.open_with(1);
    let other = case.open_with(2);
    assert_ne!(lines(&one.test), lines(&other.test));
}

#[test]
fn copies_never_sit_on_both_sides() {
    let mut case = Case::new("a.jsonl", conversations(100).repeat(2));
    case.data.test = HeldOut::Fraction(0.3);
    case.data.duplicates = Duplicates::Keep;
    let test = lines(&case.open().test);
    assert!(!test.is_empty());
    assert!((1..=100).all(|line| test.contains(&line) == test.contains(&(line + 100))));
}

#[test]
fn files_of_their_own_are_used_whole() {
    let mut case = Case::new("a.jsonl", conversations(10));
    let other = conversations(15).lines().skip(10).collect::<Vec<_>>().join("\n");
    case.data.validation = HeldOut::Files(vec![case.write("v.jsonl", other)]);
    let facts = survey(&case.data, &case.tokenizer, 0);
    assert_eq!((facts.train.examples, facts.validation.examples), (10, 5));
    let data = case.open();
    assert!(data.place(&data.validation[0]).ends_with("v.jsonl:1"));
}
