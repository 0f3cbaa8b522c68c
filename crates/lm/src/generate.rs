//! Generation: several prompts at once, each token by token over a key-value cache.

use std::cell::RefCell;

use tch::{Kind, Tensor};

use crate::kv_cache::KvCache;
use crate::model::Model;
use crate::packed::Packed;

/// How answers are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// 0 takes the most likely token; 1 draws from the model's own distribution.
    pub temperature: f64,
    /// Draw from the fewest tokens that hold this much probability (Holtzman et al. 2020).
    pub top_p: f64,
    pub seed: u64,
    /// Tokens that end an answer; not part of it.
    pub stop: Vec<u32>,
    /// Prompts that go through the model at once.
    pub batch: usize,
}

impl Default for GenerateOptions {
    /// Greedy.
    fn default() -> Self {
        Self {
            max_new_tokens: 256,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            stop: Vec::new(),
            batch: 16,
        }
    }
}

/// What to do after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// End this prompt's answer here.
    Stop,
}

/// Answers to `prompts`, as token ids without the token that ended them.
///
/// `on_token` is told of each token with the prompt's index, as it is drawn. An answer depends on
/// its own prompt, the options and the prompt's index alone, not on what else is in the batch.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(usize, u32) -> Flow,
) -> Vec<Vec<u32>> {
    let mut answers = vec![Vec::new(); prompts.len()];
    // Prompts of similar length side by side keep the batch full for longest.
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&index| prompts[index].len());
    for group in order.chunks(options.batch.max(1)) {
        tch::no_grad(|| generate_batch(model, prompts, group, options, on_token, &mut answers));
    }
    answers
}

fn generate_batch(
    model: &Model,
    prompts: &[Vec<u32>],
    group: &[usize],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(usize, u32) -> Flow,
    answers: &mut [Vec<u32>],
) {
    let cache = RefCell::new(KvCache::new());
    let lengths: Vec<i64> = group.iter().map(|&index| prompts[index].len() as i64).collect();
    let mut logits = model.next_logits(&packed(model, prompts, group), &cache);
    let mut active: Vec<usize> = (0..group.len()).collect();
    for step in 0..options.max_new_tokens {
        let drawn = draw(&logits, options, step, active.iter().map(|&place| group[place]));
        let mut next = Vec::new();
        for (&place, id) in active.iter().zip(drawn) {
            let index = group[place];
            if options.stop.contains(&id) {
                continue;
            }
            answers[index].push(id);
            if on_token(index, id) == Flow::Continue {
                next.push((place, lengths[place] + step as i64, i64::from(id)));
            }
        }
        active = next.iter().map(|(place, _, _)| *place).collect();
        if active.is_empty() || step + 1 == options.max_new_tokens {
            break;
        }
        logits = model.next_logits(&Packed::next(&next, model.device()), &cache);
    }
}

/// The prompts of a group. They often begin alike, with a system message or an instruction.
fn packed(model: &Model, prompts: &[Vec<u32>], group: &[usize]) -> Packed {
    let whole: Vec<&[u32]> = group.iter().map(|&index| prompts[index].as_slice()).collect();
    let longest = whole.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    if model.long_from().is_none_or(|limit| longest <= limit) {
        return Packed::alike(&whole, model.device());
    }
    let lengths: Vec<i64> = whole.iter().map(|prompt| prompt.len() as i64).collect();
    let ids: Vec<i64> = whole.concat().into_iter().map(i64::from).collect();
    Packed::new(&ids, &lengths, model.device())
}

/// One token for each row of `logits [B, V]`.
fn draw(
    logits: &Tensor,
    options: &GenerateOptions,
    step: usize,
    indices: impl Iterator<Item = usize>,
) -> Vec<u32> {
    if options.temperature <= 0.0 {
        let best = logits.argmax(-1, false);
        return (0..logits.size()[0]).map(|row| best.int64_value(&[row]) as u32).collect();
    }
    let p = (logits.to_kind(Kind::Float) / options.temperature).softmax(-1, Kind::Float);
    let p = p.to_device(tch::Device::Cpu).contiguous();
    indices
        .enumerate()
        .map(|(row, index)| {
            let row = Vec::<f32>::try_from(p.get(row as i64)).expect("a row of fp32 probabilities");
            draw_row(&row, options.top_p, uniform(options.seed, index as u64, step as u64))
        })
        .collect()
}

/// Draws from the most likely tokens that together hold `top_p`, by a number in `0..1`.
fn draw_row(p: &[f32], top_p: f64, at: f64) -> u32 {
    let mut order: Vec<u32> = (0..p.len() as u32).collect();
    order.sort_unstable_by(|a, b| p[*b as usize].total_cmp(&p[*a as usize]).then(a.cmp(b)));
    let mut kept = 0.0;
    let mut count = 0;
    while count < order.len() && (count == 0 || kept < top_p) {
        kept += f64::from(p[order[count] as usize]);
        count += 1;
    }
    let mut left = at * kept;
    for &id in &order[..count] {
        left -= f64::from(p[id as usize]);
        if left < 0.0 {
            return id;
        }
    }
    order[count - 1]
}

/// A number in `0..1` from a seed, a prompt's index and a step (SplitMix64).
pub(crate) fn uniform(seed: u64, index: u64, step: u64) -> f64 {
    let mut state = seed;
    for part in [index, step] {
        state = state.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    (state >> 11) as f64 / (1u64 << 53) as f64
}
