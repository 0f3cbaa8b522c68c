//! Batches: every example once an epoch, whole sequences, right targets, and the same after resume.

use super::super::{
    Batch, Example, Examples, Learned, Loader, LoaderState, Packing, micro_batches, order,
};

/// Examples that share nothing, or what they have in common.
fn packing(most_tokens: usize) -> Packing {
    Packing { most_tokens, shares_up_to: usize::MAX }
}

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
            let batch = loader.next(10, packing(64)).unwrap();
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
            let expected = straight.next(4, packing(64)).unwrap();
            assert_eq!(resumed.next(4, packing(64)).unwrap(), expected);
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
    let batches = micro_batches(&examples, packing(50));
    let mut lengths = Vec::new();
    for batch in &batches {
        assert!(batch.ids.len() <= 50);
        assert_eq!(batch.lengths.iter().sum::<i64>() as usize, batch.ids.len());
        lengths.extend(batch.lengths.clone());
    }
    assert!(lengths.is_sorted());
    assert_eq!(lengths.len(), 40);
    let one_by_one = Examples::from(&*examples);
    let one_by_one: Vec<_> = one_by_one.micro_batches(packing(50)).map(Result::unwrap).collect();
    assert_eq!(one_by_one, batches);
}

#[test]
fn an_example_longer_than_the_budget_goes_alone() {
    let examples = [example(1, 4), example(2, 100), example(3, 5)];
    let batches = micro_batches(&examples, packing(10));
    let lengths: Vec<_> = batches.iter().map(|batch| batch.lengths.clone()).collect();
    assert_eq!(lengths, [vec![4, 5], vec![100]]);
}

#[test]
fn a_row_predicts_the_next_token_of_its_own_sequence() {
    let batches = micro_batches(&[example(1, 4), example(2, 5)], packing(100));
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
    let batches = micro_batches(&[example(1, 4), weighted, example(3, 6)], packing(100));
    assert_eq!(batches[0].weights.as_deref(), Some(&[1.0, 1.0, 0.5, 0.5, 1.0, 1.0][..]));
    assert!((batches[0].label_weight() - 5.0).abs() < 1e-9);
}

#[test]
fn without_examples_there_is_nothing_to_deal_out() {
    let none = Examples::from(&[][..]);
    let mut loader = Loader::new(&none, 3, LoaderState::default());
    assert_eq!(loader.next(4, packing(64)).unwrap().micro_batches, []);
}

/// Examples that begin with the same tokens, and then each with its own id.
fn alike(id: u32, beginning: usize, length: usize) -> Example {
    let mut example = example(id, length);
    let own = example.ids.split_off(0);
    example.ids = (0..beginning as u32).map(|at| 5000 + at).chain(own).collect();
    for run in &mut example.learned {
        run.tokens = run.tokens.start + beginning..run.tokens.end + beginning;
    }
    example
}

#[test]
fn a_common_beginning_is_packed_once() {
    let examples = [alike(1, 10, 4), alike(2, 10, 5), alike(3, 10, 6)];
    let batches = micro_batches(&examples, packing(100));
    let batch = &batches[0];
    assert_eq!((batches.len(), batch.shared, batch.tokens()), (1, 10, 45));
    assert_eq!(batch.lengths, [14, 5, 6]);
    assert_eq!(batch.ids.len(), 25);
    assert_eq!(batch.targets, [1001, 2001, 1002, 2002, 1003, 2003]);
    for (position, target) in batch.positions.iter().zip(&batch.targets) {
        assert_eq!(batch.ids[*position as usize + 1], *target);
    }
    let apart = micro_batches(&examples, Packing { shares_up_to: 15, ..packing(100) });
    assert_eq!((apart[0].shared, apart[0].lengths.as_slice()), (0, &[14, 15, 16][..]));
    assert_eq!(apart[0].tokens(), 45);
}

#[test]
fn what_predicts_a_learned_token_is_never_shared() {
    let mut early = alike(1, 20, 4);
    early.learned.insert(0, Learned { tokens: 12..14, weight: 1.0 });
    let batches = micro_batches(&[early, alike(2, 20, 5)], packing(100));
    assert_eq!(batches[0].shared, 11);
    let learned_from_the_start = |id: u32| {
        let mut example = alike(id, 20, 4);
        example.learned.insert(0, Learned { tokens: 1..3, weight: 1.0 });
        example
    };
    let all = [learned_from_the_start(1), learned_from_the_start(2)];
    assert_eq!(micro_batches(&all, packing(100))[0].shared, 0);
}
