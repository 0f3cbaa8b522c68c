//! Batches: every example once an epoch, whole sequences, right targets, and the same after resume.

use super::super::{Batch, Example, Examples, Learned, Loader, LoaderState, micro_batches, order};

/// An example of `length` tokens that starts with `id`, with its last two tokens learned.
fn example(id: u32, length: usize) -> Example {
    let mut ids = vec![0; length];
    ids[0] = id;
    ids[length - 2] = 1000 + id;
    ids[length - 1] = 2000 + id;
    let learned = vec![Learned { tokens: length - 2..length, weight: 1.0 }];
    Example { ids, learned, ..Example::default() }
}

fn examples(count: u32) -> Vec<Example> {
    (0..count).map(|id| example(id, 4 + (id as usize * 7) % 20)).collect()
}

/// The examples in a batch, by their first id.
fn members(batch: &Batch) -> Vec<i64> {
    let mut members = Vec::new();
    for micro_batch in &batch.micro_batches {
        let mut start = 0;
        for length in &micro_batch.lengths {
            members.push(micro_batch.ids[start as usize]);
            start += length;
        }
    }
    members
}

#[test]
fn every_example_is_dealt_out_once_an_epoch_in_another_order() {
    let examples = Examples::from(&*examples(25));
    let mut loader = Loader::new(&examples, 3, LoaderState::default());
    let mut epochs = Vec::new();
    for epoch in 0..2 {
        let mut dealt = Vec::new();
        for size in [10, 10, 5] {
            assert!(!loader.at_epoch_end() || dealt.is_empty());
            let batch = loader.next(10, 64).unwrap();
            assert_eq!((batch.examples, batch.epoch), (size, epoch));
            dealt.extend(members(&batch));
        }
        assert!(loader.at_epoch_end());
        epochs.push(dealt.clone());
        dealt.sort_unstable();
        assert_eq!(dealt, (0..25).collect::<Vec<_>>());
    }
    assert_ne!(epochs[0], epochs[1]);
}

#[test]
fn a_loader_goes_on_from_its_state() {
    let examples = Examples::from(&*examples(25));
    let mut whole = Loader::new(&examples, 3, LoaderState::default());
    for _ in 0..7 {
        let text = serde_json::to_string(&whole.state()).unwrap();
        let mut resumed = Loader::new(&examples, 3, serde_json::from_str(&text).unwrap());
        for _ in 0..4 {
            let mut straight = whole.clone();
            assert_eq!(resumed.next(4, 64).unwrap(), straight.next(4, 64).unwrap());
            resumed = Loader::new(&examples, 3, straight.state());
            whole = straight;
        }
    }
}

#[test]
fn the_order_is_pinned() {
    // A change of these numbers would change the data order of every run.
    assert_eq!(
        [order(10, 7, 0), order(10, 7, 1)],
        [[4, 6, 2, 0, 8, 3, 7, 5, 9, 1], [7, 1, 6, 4, 2, 8, 3, 5, 0, 9]]
    );
    assert_eq!(order(1, 7, 0), [0]);
    assert!(order(0, 7, 0).is_empty());
}

#[test]
fn micro_batches_hold_whole_examples_sorted_by_length_within_the_budget() {
    let examples = examples(40);
    let batches = micro_batches(&examples, 50);
    let mut lengths = Vec::new();
    for batch in &batches {
        assert!(batch.ids.len() <= 50);
        assert_eq!(batch.lengths.iter().sum::<i64>() as usize, batch.ids.len());
        lengths.extend(batch.lengths.clone());
    }
    assert!(lengths.is_sorted());
    assert_eq!(lengths.len(), 40);
    let one_by_one = Examples::from(&*examples);
    let one_by_one: Vec<_> = one_by_one.micro_batches(50).map(Result::unwrap).collect();
    assert_eq!(one_by_one, batches);
}

#[test]
fn an_example_longer_than_the_budget_goes_alone() {
    let examples = [example(1, 4), example(2, 100), example(3, 5)];
    let batches = micro_batches(&examples, 10);
    let lengths: Vec<_> = batches.iter().map(|batch| batch.lengths.clone()).collect();
    assert_eq!(lengths, [vec![4, 5], vec![100]]);
}

#[test]
fn a_row_predicts_the_next_token_of_its_own_sequence() {
    let batches = micro_batches(&[example(1, 4), example(2, 5)], 100);
    assert_eq!(batches.len(), 1);
    let batch = &batches[0];
    assert_eq!(batch.ids, [1, 0, 1001, 2001, 2, 0, 0, 1002, 2002]);
    assert_eq!(batch.positions, [1, 2, 6, 7]);
    assert_eq!(batch.targets, [1001, 2001, 1002, 2002]);
    for (position, target) in batch.positions.iter().zip(&batch.targets) {
        assert_eq!(batch.ids[*position as usize + 1], *target);
    }
    assert_eq!((batch.weights.as_ref(), batch.label_weight()), (None, 4.0));
}

#[test]
fn weights_stand_beside_their_targets() {
    let mut weighted = example(2, 5);
    weighted.learned[0].weight = 0.5;
    let batches = micro_batches(&[example(1, 4), weighted, example(3, 6)], 100);
    assert_eq!(batches[0].weights.as_deref(), Some(&[1.0, 1.0, 0.5, 0.5, 1.0, 1.0][..]));
    assert!((batches[0].label_weight() - 5.0).abs() < 1e-9);
}

#[test]
fn without_examples_there_is_nothing_to_deal_out() {
    let none = Examples::from(&[][..]);
    let mut loader = Loader::new(&none, 3, LoaderState::default());
    assert_eq!(loader.next(4, 64).unwrap().micro_batches, []);
}
