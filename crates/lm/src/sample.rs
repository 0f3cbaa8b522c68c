//! How the next token of one sequence is drawn from its logits: penalties, what is allowed at all,
//! temperature, cut-offs, and the probabilities that are told.
//!
//! Plain arithmetic over one row on the CPU. The same seed and place give the same token.

use std::collections::HashMap;

use crate::generate::uniform;

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token.
    pub temperature: f64,
    /// Draw from the fewest tokens that hold this much probability (Holtzman et al. 2020).
    pub top_p: f64,
    /// Draw from so many most likely tokens; 0 is all of them.
    pub top_k: usize,
    /// Leave out tokens less likely than this share of the most likely one.
    pub min_p: f64,
    /// Divides what was seen in prompt or answer, where above 1 (Keskar et al. 2019).
    pub repetition_penalty: f64,
    /// Taken off what was answered before, once.
    pub presence_penalty: f64,
    /// Taken off what was answered before, for each time.
    pub frequency_penalty: f64,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    pub seed: u64,
    /// How many most likely tokens are told with their probabilities; `None` tells none at all.
    pub logprobs: Option<usize>,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            logprobs: None,
        }
    }
}

impl Sampling {
    /// Whether the token is the one with the largest logit, and nothing else is asked.
    pub fn is_plain_greedy(&self) -> bool {
        self.temperature <= 0.0 && !self.changes_logits() && self.logprobs.is_none()
    }

    fn changes_logits(&self) -> bool {
        self.penalises() || !self.logit_bias.is_empty()
    }

    fn penalises(&self) -> bool {
        [self.repetition_penalty - 1.0, self.presence_penalty, self.frequency_penalty]
            .iter()
            .any(|penalty| *penalty != 0.0)
    }
}

/// A token, and how likely it and others were to the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawn {
    pub id: u32,
    /// Natural logarithm of the model's own probability; 0 where none was asked for.
    pub logprob: f32,
    pub top: Vec<(u32, f32)>,
}

/// What a sequence has seen, as far as penalties look at it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub prompt: &'a [u32],
    pub answer: &'a [u32],
}

/// Draws the token at place `step` of an answer. `allowed` has a bit for each token, where only some are.
pub fn draw(
    logits: &mut [f32],
    sampling: &Sampling,
    seen: Seen<'_>,
    step: usize,
    allowed: Option<&[u32]>,
) -> Drawn {
    let told = sampling.logprobs.map(|count| Told::new(logits, count));
    penalise(logits, sampling, seen);
    for (id, bias) in &sampling.logit_bias {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit += bias;
        }
    }
    if let Some(allowed) = allowed {
        for (id, logit) in logits.iter_mut().enumerate() {
            if allowed.get(id / 32).is_none_or(|word| word >> (id % 32) & 1 == 0) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    let id = if sampling.temperature <= 0.0 {
        most_likely(logits)
    } else {
        let at = uniform(sampling.seed, 0, step as u64);
        pick(logits, sampling, at)
    };
    match told {
        Some(told) => Drawn { id, logprob: told.logprob(id), top: told.top },
        None => Drawn { id, ..Drawn::default() },
    }
}

/// The model's own probabilities of one row.
struct Told {
    logits: Vec<f32>,
    log_sum: f32,
    top: Vec<(u32, f32)>,
}

impl Told {
    fn new(logits: &[f32], count: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let log_sum = largest + sum.ln() as f32;
        let mut told = Self { logits: logits.to_vec(), log_sum, top: Vec::new() };
        told.top = best(logits, count).into_iter().map(|id| (id, told.logprob(id))).collect();
        told
    }

    fn logprob(&self, id: u32) -> f32 {
        self.logits[id as usize] - self.log_sum
    }
}

fn penalise(logits: &mut [f32], sampling: &Sampling, seen: Seen<'_>) {
    if !sampling.penalises() {
        return;
    }
    let mut counts: HashMap<u32, u32> = seen.prompt.iter().map(|id| (*id, 0)).collect();
    for id in seen.answer {
        *counts.entry(*id).or_default() += 1;
    }
    for (id, count) in counts {
        let Some(logit) = logits.get_mut(id as usize) else { continue };
        let factor = sampling.repetition_penalty as f32;
        *logit = if *logit > 0.0 { *logit / factor } else { *logit * factor };
        if count > 0 {
            let off = sampling.presence_penalty + sampling.frequency_penalty * f64::from(count);
            *logit -= off as f32;
        }
    }
}

fn most_likely(logits: &[f32]) -> u32 {
    let better = |best: usize, id: usize| if logits[id] > logits[best] { id } else { best };
    (0..logits.len()).reduce(better).unwrap_or_default() as u32
}

/// The `count` largest, largest first; of equal ones the one with the lower id.
fn best(logits: &[f32], count: usize) -> Vec<u32> {
    let count = count.min(logits.len());
    if count == 0 {
        return Vec::new();
    }
    let order =
        |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

/// Draws by a number in `0..1` from what the cut-offs leave.
fn pick(logits: &[f32], sampling: &Sampling, at: f64) -> u32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: u32| (f64::from(logits[id as usize] - largest) / sampling.temperature).exp();
    let bound = if sampling.min_p > 0.0 { sampling.min_p } else { 0.0 };
    let mut kept: Vec<(u32, f64)> = match sampling.top_k {
        0 if sampling.top_p >= 1.0 => (0..logits.len() as u32).map(|id| (id, weight(id))).collect(),
        0 => nucleus(logits, sampling.top_p, &weight),
        k => {
            let mut kept: Vec<_> = best(logits, k).into_iter().map(|id| (id, weight(id))).collect();
            let total: f64 = kept.iter().map(|(_, w)| w).sum();
            kept.truncate(holding(&kept, sampling.top_p * total));
            kept
        }
    };
    kept.retain(|(_, weight)| *weight > 0.0 && *weight >= bound);
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    let mut left = at * total;
    for (id, weight) in &kept {
        left -= weight;
        if left < 0.0 {
            return *id;
        }
    }
    kept.last().map_or_else(|| most_likely(logits), |(id, _)| *id)
}

/// The fewest most likely tokens that hold `top_p`, found without sorting the whole vocabulary.
fn nucleus(logits: &[f32], top_p: f64, weight: &impl Fn(u32) -> f64) -> Vec<(u32, f64)> {
    let total: f64 = (0..logits.len() as u32).map(weight).sum();
    let mut count = 128;
    loop {
        let mut kept: Vec<_> = best(logits, count).into_iter().map(|id| (id, weight(id))).collect();
        let needed = holding(&kept, top_p * total);
        if needed < kept.len() || kept.len() == logits.len() {
            kept.truncate(needed);
            return kept;
        }
        count *= 8;
    }
}

/// How many of the first are needed to hold `wanted`; at least one.
fn holding(kept: &[(u32, f64)], wanted: f64) -> usize {
    let mut sum = 0.0;
    for (index, (_, weight)) in kept.iter().enumerate() {
        sum += weight;
        if sum >= wanted {
            return index + 1;
        }
    }
    kept.len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Seen<'static> = Seen { prompt: &[], answer: &[] };

    fn drawn(logits: &[f32], sampling: &Sampling, seen: Seen<'_>) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..200)
            .map(|step| draw(&mut logits.to_vec(), sampling, seen, step, None).id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn hot() -> Sampling {
        Sampling { temperature: 1.0, seed: 3, ..Sampling::default() }
    }

    #[test]
    fn cut_offs_leave_what_they_should() {
        // Probabilities 0.5, 0.25, 0.125, 0.125.
        let logits = [0.5f32.ln(), 0.25f32.ln(), 0.125f32.ln(), 0.125f32.ln()];
        assert_eq!(drawn(&logits, &hot(), NONE), [0, 1, 2, 3]);
        assert_eq!(drawn(&logits, &Sampling { top_p: 0.7, ..hot() }, NONE), [0, 1]);
        assert_eq!(drawn(&logits, &Sampling { top_p: 0.1, ..hot() }, NONE), [0]);
        assert_eq!(drawn(&logits, &Sampling { top_k: 3, ..hot() }, NONE), [0, 1, 2]);
        assert_eq!(drawn(&logits, &Sampling { min_p: 0.4, ..hot() }, NONE), [0, 1]);
        let both = Sampling { top_k: 2, top_p: 0.6, ..hot() };
        assert_eq!(drawn(&logits, &both, NONE), [0], "top_p counts within top_k");
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.75f32.ln(), 0.25f32.ln()];
        let ones = (0..4000)
            .filter(|step| draw(&mut logits.to_vec(), &hot(), NONE, *step, None).id == 1)
            .count();
        assert!((900..1100).contains(&ones), "{ones} of 4000");
    }

    #[test]
    fn penalties_look_at_what_was_seen() {
        let logits = [2.0, 1.5, 1.0];
        let seen = Seen { prompt: &[0], answer: &[1, 1] };
        let with = |sampling: Sampling| draw(&mut logits.to_vec(), &sampling, seen, 0, None).id;
        let greedy = Sampling::default;
        assert_eq!(with(greedy()), 0);
        assert_eq!(with(Sampling { repetition_penalty: 3.0, ..greedy() }), 2);
        assert_eq!(with(Sampling { presence_penalty: 2.0, ..greedy() }), 0, "not for prompts");
        let bias = vec![(0, -10.0)];
        assert_eq!(with(Sampling { logit_bias: bias.clone(), ..greedy() }), 1);
        let frequency = Sampling { frequency_penalty: 0.3, logit_bias: bias, ..greedy() };
        assert_eq!(with(frequency), 2, "1.5 - 2 · 0.3 is less than 1");
    }

    #[test]
    fn what_is_not_allowed_is_never_drawn_and_is_still_told() {
        let logits = [5.0, 1.0, 0.0];
        let sampling = Sampling { logprobs: Some(2), ..hot() };
        for step in 0..50 {
            let drawn = draw(&mut logits.to_vec(), &sampling, NONE, step, Some(&[0b110]));
            assert_ne!(drawn.id, 0);
            assert_eq!(drawn.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 1]);
            let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
            assert!((drawn.top[0].1 - (5.0 - sum.ln())).abs() < 1e-5);
        }
    }

    #[test]
    fn a_long_tail_is_cut_exactly() {
        let logits = vec![0.0; 5000];
        let kept = nucleus(&logits, 0.5, &|_| 1.0);
        assert_eq!(kept.len(), 2500);
    }
}
