//! How full the fullest micro-batch of a run is.
//!
//! The examples of a step are cut into micro-batches of whole examples (`train/src/data/batch.rs`), so that a
//! step whose examples are short never fills a large budget. Which examples meet in a step is decided by a
//! shuffle; here the lengths are shuffled and dealt out in the same way, by another shuffle.

/// Runs whose mean is taken: in a single one a rare long example may or may not meet another.
const RUNS: usize = 4;
/// Examples that are dealt out at most in each: later steps raise the maximum by little.
const MOST_DEALT: usize = 2_000;

/// Tokens of the fullest micro-batch that is to be expected in `steps` steps of `batch` examples with these
/// `lengths`, of which each micro-batch takes at most `budget` tokens. `shared` tokens that all begin with count once
/// in a micro-batch, though not against the budget. `lengths` may be a sample of those of all examples.
pub(super) fn fullest(lengths: &[u32], batch: u64, steps: u64, budget: u64, shared: u64) -> u64 {
    let batch = usize::try_from(batch.max(1)).unwrap_or(usize::MAX);
    let most = usize::try_from(steps).unwrap_or(usize::MAX).saturating_mul(batch).min(MOST_DEALT);
    let mut deck = lengths.to_vec();
    let mut random = Random(0);
    let mut of_run = || {
        let (mut dealt, mut fullest) = (0, 0);
        while dealt < most && !deck.is_empty() {
            random.shuffle(&mut deck);
            for step in deck.chunks_mut(batch).take((most - dealt).div_ceil(batch)) {
                fullest = fullest.max(of_step(step, budget, shared));
                dealt += step.len();
            }
        }
        fullest
    };
    (0..RUNS).map(|_| of_run()).sum::<u64>() / RUNS as u64
}

/// The fullest micro-batch of one step: examples from the shortest to the longest, as many together as fit.
fn of_step(lengths: &mut [u32], budget: u64, shared: u64) -> u64 {
    lengths.sort_unstable();
    let (mut fullest, mut filled, mut rows) = (0, 0, 0);
    for length in lengths.iter().copied().map(u64::from) {
        (filled, rows) = if filled > 0 && filled + length <= budget {
            (filled + length, rows + length.saturating_sub(shared))
        } else {
            (length, length)
        };
        fullest = fullest.max(rows);
    }
    fullest
}

/// `SplitMix64` (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn shuffle(&mut self, deck: &mut [u32]) {
        for last in (1..deck.len()).rev() {
            let other = (u128::from(self.next()) * (last as u128 + 1)) >> 64;
            deck.swap(last, other as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fullest;

    #[test]
    fn a_budget_that_steps_do_not_fill_is_not_filled() {
        // One long example among short ones: four of a step make 10 + 10 + 10 + 100 at most.
        let lengths: Vec<u32> = [vec![10; 99], vec![100]].concat();
        assert_eq!(fullest(&lengths, 4, 25, 4096, 0), 130);
        assert!(fullest(&lengths, 4, 1, 4096, 0) < 130);
    }

    #[test]
    fn a_small_budget_is_filled_by_whole_examples() {
        assert_eq!(fullest(&[30; 50], 16, 3, 100, 0), 90);
        assert_eq!(fullest(&[10, 20, 300], 3, 1, 100, 0), 300);
    }

    #[test]
    fn what_all_begin_with_counts_once() {
        // Three fit into the budget: 30 + 20 + 20.
        assert_eq!(fullest(&[30; 50], 16, 3, 100, 10), 70);
        assert_eq!(fullest(&[10, 20, 300], 3, 1, 100, 8), 300);
    }

    #[test]
    fn more_steps_meet_fuller_batches() {
        let lengths: Vec<u32> = (1..=1000).collect();
        let [one, many] = [1, 500].map(|steps| fullest(&lengths, 8, steps, 1 << 20, 0));
        assert!(one > 8 * 250 && many > one && many < 8 * 1000, "{one} {many}");
    }

    #[test]
    fn a_step_may_take_every_example() {
        assert_eq!(fullest(&[5, 6, 7], 64, 10, 4096, 0), 18);
        assert_eq!(fullest(&[], 4, 10, 4096, 0), 0);
    }
}
