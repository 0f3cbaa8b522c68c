//! Which tokens of which sequences go through the model next. Pure decisions: no tensors, no threads, no
//! clock.
//!
//! A step takes one token of every sequence that is being answered, then pieces of prompts, up to so many
//! tokens in all, so that a long prompt does not hold up the others. A sequence is admitted when the cache
//! has room for all it has so far. When there is no room for a next token, the youngest sequence gives its
//! blocks back and waits in front; it is computed anew later, as far as its blocks are not found again.

mod blocks;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use blocks::{Blocks, Content};

pub use blocks::Block;

/// Names a sequence.
pub type SequenceId = u64;

/// What a step may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that are answered at once.
    pub sequences: usize,
    /// Tokens of one step.
    pub step_tokens: usize,
    /// Blocks of the cache.
    pub blocks: usize,
    /// Tokens of a block.
    pub block_tokens: usize,
}

/// A sequence to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSequence {
    pub id: SequenceId,
    pub prompt: Vec<u32>,
    /// The adapter's revision; 0 is the base model.
    pub adapter: u64,
    /// Known blocks are shared within a family only; two adapters are never of one.
    pub family: u64,
}

/// New tokens of one sequence, which follow `start` tokens that the cache holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    pub id: SequenceId,
    pub adapter: u64,
    pub tokens: Vec<u32>,
    pub start: usize,
    pub blocks: Vec<Block>,
    /// Whether a next token is drawn after the last of these.
    pub draws: bool,
    /// Tokens that the sequence has so far, these and later ones.
    pub reach: usize,
}

/// What goes through the model at once; sequences of one adapter side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub work: Vec<Work>,
    /// Sequences that had to give their room back.
    pub preempted: Vec<SequenceId>,
}

/// How full everything is, and what was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: usize,
    pub waiting: usize,
    pub blocks_held: usize,
    pub blocks: usize,
    pub preemptions: u64,
    /// Prompt tokens that were looked up in the cache, and that were found.
    pub prefix_queries: u64,
    pub prefix_hits: u64,
}

#[derive(Debug)]
struct Sequence {
    id: SequenceId,
    adapter: u64,
    family: u64,
    /// Prompt and answer.
    tokens: Vec<u32>,
    /// Tokens whose keys and values the cache holds.
    computed: usize,
    blocks: Vec<Block>,
    /// What its full blocks hold.
    contents: Vec<Content>,
}

impl Sequence {
    fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    fn last_content(&self) -> Content {
        self.contents.last().copied().unwrap_or_default()
    }
}

/// All sequences and the blocks of the cache.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    blocks: Blocks,
    waiting: VecDeque<Sequence>,
    /// Oldest first.
    running: Vec<Sequence>,
    counts: Counts,
}

impl Scheduler {
    pub fn new(limits: Limits) -> Self {
        let blocks = Blocks::new(limits.blocks);
        let (waiting, running) = (VecDeque::new(), Vec::new());
        Self { limits, blocks, waiting, running, counts: Counts::default() }
    }

    /// Most tokens, prompt and answer, that a sequence may have so that it can always be finished.
    pub fn longest(&self) -> usize {
        self.limits.blocks * self.limits.block_tokens
    }

    /// Puts a sequence behind those that wait. It must not become longer than [`Scheduler::longest`].
    pub fn add(&mut self, new: NewSequence) {
        let NewSequence { id, prompt: tokens, adapter, family } = new;
        self.waiting.push_back(Sequence {
            id,
            adapter,
            family,
            tokens,
            computed: 0,
            blocks: Vec::new(),
            contents: Vec::new(),
        });
    }

    /// Takes note of the token that was drawn for a sequence of the last step.
    pub fn drawn(&mut self, id: SequenceId, token: u32) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) {
            sequence.tokens.push(token);
        }
    }

    /// Forgets a sequence that is answered, or that nobody wants any more.
    pub fn end(&mut self, id: SequenceId) {
        self.waiting.retain(|sequence| sequence.id != id);
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(index);
            self.blocks.release(&sequence.blocks);
        }
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    pub fn counts(&self) -> Counts {
        Counts {
            running: self.running.len(),
            waiting: self.waiting.len(),
            blocks_held: self.blocks.held(),
            blocks: self.blocks.total(),
            ..self.counts
        }
    }

    /// What goes through the model next; it is taken as done.
    pub fn plan(&mut self) -> Step {
        let mut step = Step::default();
        let mut budget = self.limits.step_tokens;
        let mut index = 0;
        while index < self.running.len() && budget > 0 {
            if self.running[index].pending() == 1 && self.has_room(index, &mut step) {
                step.work.push(self.advance(index, 1));
                budget -= 1;
            }
            index += 1;
        }
        for index in 0..self.running.len() {
            let count = self.running[index].pending().min(budget);
            if count > 0 && !step.work.iter().any(|work| work.id == self.running[index].id) {
                step.work.push(self.advance(index, count));
                budget -= count;
            }
        }
        while budget > 0 && step.preempted.is_empty() && self.admit() {
            let index = self.running.len() - 1;
            let count = self.running[index].pending().min(budget);
            step.work.push(self.advance(index, count));
            budget -= count;
        }
        step.work.sort_by_key(|work| work.adapter);
        step
    }

    /// Sees that the next token of a sequence has a block, at the cost of the youngest if need be. Not so
    /// where the sequence itself was the youngest.
    fn has_room(&mut self, index: usize, step: &mut Step) -> bool {
        let sequence = &self.running[index];
        if sequence.blocks.len() * self.limits.block_tokens > sequence.computed {
            return true;
        }
        loop {
            if let Some(block) = self.blocks.take() {
                self.running[index].blocks.push(block);
                return true;
            }
            let Some(mut youngest) = self.running.pop() else { return false };
            self.blocks.release(&std::mem::take(&mut youngest.blocks));
            youngest.contents.clear();
            youngest.computed = 0;
            step.preempted.push(youngest.id);
            self.counts.preemptions += 1;
            self.waiting.push_front(youngest);
            if self.running.len() == index {
                return false;
            }
        }
    }

    /// Moves the first that waits to those that are answered, if there is room for all its tokens.
    fn admit(&mut self) -> bool {
        if self.running.len() >= self.limits.sequences {
            return false;
        }
        let Some(mut sequence) = self.waiting.pop_front() else { return false };
        self.find_prefix(&mut sequence);
        let wanted = sequence.tokens.len().div_ceil(self.limits.block_tokens);
        // One more, so that the others' next tokens do not drive it out at once.
        let spare = usize::from(!self.running.is_empty());
        if self.blocks.available() < wanted - sequence.blocks.len() + spare {
            self.blocks.release(&std::mem::take(&mut sequence.blocks));
            sequence.contents.clear();
            sequence.computed = 0;
            self.waiting.push_front(sequence);
            return false;
        }
        self.counts.prefix_queries += sequence.tokens.len() as u64;
        self.counts.prefix_hits += sequence.computed as u64;
        while sequence.blocks.len() < wanted {
            sequence.blocks.extend(self.blocks.take());
        }
        self.running.push(sequence);
        true
    }

    /// Shares the blocks that hold what the sequence begins with. Its last token is always computed: the
    /// next one is drawn after it.
    fn find_prefix(&mut self, sequence: &mut Sequence) {
        let size = self.limits.block_tokens;
        let whole = (sequence.tokens.len() - 1) / size;
        for index in 0..whole {
            let tokens = &sequence.tokens[index * size..(index + 1) * size];
            let found = self.blocks.share(sequence.last_content(), sequence.family, tokens);
            let Some((block, content)) = found else { break };
            sequence.blocks.push(block);
            sequence.contents.push(content);
            sequence.computed += size;
        }
    }

    /// Takes `count` tokens of a sequence into the step, and remembers the blocks that they fill.
    fn advance(&mut self, index: usize, count: usize) -> Work {
        let size = self.limits.block_tokens;
        let sequence = &mut self.running[index];
        let start = sequence.computed;
        sequence.computed += count;
        while (sequence.contents.len() + 1) * size <= sequence.computed {
            let full = sequence.contents.len();
            let tokens = &sequence.tokens[full * size..(full + 1) * size];
            let (block, before) = (sequence.blocks[full], sequence.last_content());
            let content = self.blocks.remember(block, before, sequence.family, tokens);
            sequence.contents.push(content);
        }
        Work {
            id: sequence.id,
            adapter: sequence.adapter,
            tokens: sequence.tokens[start..sequence.computed].to_vec(),
            start,
            blocks: sequence.blocks.clone(),
            draws: sequence.pending() == 0,
            reach: sequence.tokens.len(),
        }
    }
}
