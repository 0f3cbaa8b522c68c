//! Blocks of the key-value cache: who holds them, and which contents can be used again.
//!
//! A block that is full of known tokens is remembered under what it holds: these tokens, after those
//! before them, in this family. A sequence that begins alike shares it. When nobody holds a block any
//! more it is kept until its room is needed; the longest unused goes first.

use std::collections::{BTreeMap, HashMap};

/// Number of a block in the cache.
pub type Block = usize;

/// Names the contents of a block and of all before it. 0 is what is before the first.
pub(super) type Content = u64;

/// What a full block holds. Compared as a whole, so that no two contents are ever mistaken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    before: Content,
    family: u64,
    tokens: Box<[u32]>,
}

#[derive(Debug, Default)]
struct Entry {
    holders: usize,
    holds: Option<(Key, Content)>,
    /// Place in the order of eviction, while nobody holds it.
    idle: Option<u64>,
}

/// All blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    entries: Vec<Entry>,
    /// Hold nothing.
    empty: Vec<Block>,
    /// Held by nobody, but remembered; by how long.
    idle: BTreeMap<u64, Block>,
    known: HashMap<Key, Block>,
    contents: Content,
    clock: u64,
}

impl Blocks {
    pub(super) fn new(count: usize) -> Self {
        Self {
            entries: (0..count).map(|_| Entry::default()).collect(),
            empty: (0..count).rev().collect(),
            idle: BTreeMap::new(),
            known: HashMap::new(),
            contents: 0,
            clock: 0,
        }
    }

    /// Blocks that can be had now.
    pub(super) fn available(&self) -> usize {
        self.empty.len() + self.idle.len()
    }

    /// Blocks that sequences hold.
    pub(super) fn held(&self) -> usize {
        self.entries.len() - self.available()
    }

    pub(super) fn total(&self) -> usize {
        self.entries.len()
    }

    /// An empty block for one holder; what lay longest unused is forgotten for it.
    pub(super) fn take(&mut self) -> Option<Block> {
        let block = if let Some(block) = self.empty.pop() {
            block
        } else {
            let (_, block) = self.idle.pop_first()?;
            if let Some((key, _)) = self.entries[block].holds.take() {
                self.known.remove(&key);
            }
            block
        };
        self.entries[block] = Entry { holders: 1, ..Entry::default() };
        Some(block)
    }

    /// The block that holds `tokens` after `before`, if there is one; it has one more holder then.
    pub(super) fn share(
        &mut self,
        before: Content,
        family: u64,
        tokens: &[u32],
    ) -> Option<(Block, Content)> {
        let key = Key { before, family, tokens: tokens.into() };
        let block = *self.known.get(&key)?;
        let entry = &mut self.entries[block];
        entry.holders += 1;
        if let Some(stamp) = entry.idle.take() {
            self.idle.remove(&stamp);
        }
        let content = entry.holds.as_ref().map_or(0, |(_, content)| *content);
        Some((block, content))
    }

    /// Remembers what a held block is full of.
    pub(super) fn remember(
        &mut self,
        block: Block,
        before: Content,
        family: u64,
        tokens: &[u32],
    ) -> Content {
        let key = Key { before, family, tokens: tokens.into() };
        if let Some(other) = self.known.get(&key) {
            // Two sequences computed the same at once; one copy is enough to know.
            return self.entries[*other].holds.as_ref().map_or(0, |(_, content)| *content);
        }
        self.contents += 1;
        self.entries[block].holds = Some((key.clone(), self.contents));
        self.known.insert(key, block);
        self.contents
    }

    /// Gives back a sequence's blocks. Its end is forgotten before its beginning.
    pub(super) fn release(&mut self, blocks: &[Block]) {
        for block in blocks.iter().rev() {
            let entry = &mut self.entries[*block];
            entry.holders -= 1;
            if entry.holders > 0 {
                continue;
            }
            if entry.holds.is_some() {
                self.clock += 1;
                entry.idle = Some(self.clock);
                self.idle.insert(self.clock, *block);
            } else {
                self.empty.push(*block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_nobody_holds_is_found_until_its_room_is_needed() {
        let mut blocks = Blocks::new(3);
        let (a, b) = (blocks.take().unwrap(), blocks.take().unwrap());
        let first = blocks.remember(a, 0, 7, &[1, 2]);
        let second = blocks.remember(b, first, 7, &[3, 4]);
        blocks.release(&[a, b]);
        assert_eq!((blocks.available(), blocks.held()), (3, 0));
        assert_eq!(blocks.share(0, 7, &[1, 2]), Some((a, first)));
        assert_eq!(blocks.share(first, 7, &[3, 4]), Some((b, second)));
        assert_eq!(blocks.share(0, 8, &[1, 2]), None, "another family's are others");
        assert_eq!(blocks.share(second, 7, &[1, 2]), None, "the same tokens at another place");
        blocks.release(&[a, b]);
        // The unused one goes first, then the end of what is remembered.
        let third = blocks.take().unwrap();
        assert!(third != a && third != b);
        assert_eq!(blocks.take(), Some(b));
        assert_eq!(blocks.share(first, 7, &[3, 4]), None);
        assert_eq!(blocks.share(0, 7, &[1, 2]), Some((a, first)));
        assert_eq!(blocks.take(), None);
    }

    #[test]
    fn shared_blocks_stay_until_the_last_holder_leaves() {
        let mut blocks = Blocks::new(1);
        let block = blocks.take().unwrap();
        let content = blocks.remember(block, 0, 0, &[1]);
        assert_eq!(blocks.share(0, 0, &[1]), Some((block, content)));
        blocks.release(&[block]);
        assert_eq!(blocks.available(), 0);
        blocks.release(&[block]);
        assert_eq!(blocks.available(), 1);
    }
}
