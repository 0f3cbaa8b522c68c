//! Whole sequences one after another, with no padding between them.

use tch::{Device, Kind, Tensor};

/// A shorter common beginning is not worth the way there and back.
pub const LEAST_SHARED: usize = 8;

/// Token ids of several sequences, packed. Attention and positions start anew in each.
#[derive(Debug)]
pub struct Packed {
    /// `[T]`, int64: the sequences' ids, one after another.
    ids: Tensor,
    lengths: Vec<i64>,
    /// Tokens of each sequence that come before these: a key-value cache holds them, or they are shared.
    starts: Vec<i64>,
    /// Each sequence's place in a key-value cache.
    places: Vec<usize>,
    /// Tokens that each sequence is known to have in all, these and later ones.
    reaches: Vec<i64>,
    /// Tokens of the first sequence that all others begin with too, and do not repeat.
    shared: i64,
}

impl Packed {
    /// Sequences that begin here.
    pub fn new(ids: &[i64], lengths: &[i64], device: Device) -> Self {
        assert_eq!(ids.len() as i64, lengths.iter().sum::<i64>(), "lengths cover all ids");
        let ids = Tensor::from_slice(ids).to_device(device);
        let places = (0..lengths.len()).collect();
        let (starts, reaches) = (vec![0; lengths.len()], lengths.to_vec());
        Self { ids, lengths: lengths.to_vec(), starts, places, reaches, shared: 0 }
    }

    /// Sequences that begin with the first `shared` tokens of the first one, and are here without them; `lengths`
    /// are those of what is here.
    pub fn sharing(ids: &[i64], lengths: &[i64], shared: i64, device: Device) -> Self {
        let packed = Self::new(ids, lengths, device);
        assert!(lengths.first().is_some_and(|first| *first >= shared), "the first one is whole");
        let start = |index: usize| if index == 0 { 0 } else { shared };
        let starts: Vec<i64> = (0..lengths.len()).map(start).collect();
        let reaches = lengths.iter().zip(&starts).map(|(length, start)| length + start).collect();
        Self { starts, reaches, shared, ..packed }
    }

    /// Whole sequences, of which the last token counts; what all begin with is here once.
    pub fn alike(sequences: &[&[u32]], device: Device) -> Self {
        let shortest = sequences.iter().map(|one| one.len()).min().unwrap_or(0);
        let common = |one: &[u32], most: &[u32]| {
            one.iter().zip(most).take_while(|(left, right)| left == right).count()
        };
        let first = sequences.first().copied().unwrap_or_default();
        let most = &first[..shortest.saturating_sub(1)];
        let shared = sequences.iter().fold(most, |most, one| &most[..common(one, most)]).len();
        let shared = if sequences.len() > 1 && shared >= LEAST_SHARED { shared } else { 0 };
        let own = |(number, one): (usize, &&[u32])| -> Vec<i64> {
            let own = &one[if number == 0 { 0 } else { shared }..];
            own.iter().copied().map(i64::from).collect()
        };
        let own: Vec<Vec<i64>> = sequences.iter().enumerate().map(own).collect();
        let lengths: Vec<i64> = own.iter().map(|ids| ids.len() as i64).collect();
        Self::sharing(&own.concat(), &lengths, shared as i64, device)
    }

    /// Pieces of sequences, `(cached tokens, tokens of the piece, known tokens in all)` of each.
    pub fn pieces(ids: &[i64], pieces: &[(i64, i64, i64)], device: Device) -> Self {
        let lengths: Vec<i64> = pieces.iter().map(|(_, length, _)| *length).collect();
        Self {
            starts: pieces.iter().map(|(start, _, _)| *start).collect(),
            reaches: pieces.iter().map(|(_, _, reach)| *reach).collect(),
            ..Self::new(ids, &lengths, device)
        }
    }

    /// One more token each for sequences that are cached: `(place, cached tokens, next id)`.
    pub fn next(sequences: &[(usize, i64, i64)], device: Device) -> Self {
        let ids: Vec<i64> = sequences.iter().map(|(_, _, id)| *id).collect();
        Self {
            ids: Tensor::from_slice(&ids).to_device(device),
            lengths: vec![1; sequences.len()],
            starts: sequences.iter().map(|(_, start, _)| *start).collect(),
            places: sequences.iter().map(|(place, _, _)| *place).collect(),
            reaches: sequences.iter().map(|(_, start, _)| start + 1).collect(),
            shared: 0,
        }
    }

    pub fn ids(&self) -> &Tensor {
        &self.ids
    }

    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    pub fn starts(&self) -> &[i64] {
        &self.starts
    }

    pub fn reaches(&self) -> &[i64] {
        &self.reaches
    }

    pub fn shared(&self) -> i64 {
        self.shared
    }

    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// Tokens of each sequence with what it shares.
    pub fn whole_lengths(&self) -> Vec<i64> {
        let more = |index: usize| if index == 0 { 0 } else { self.shared };
        self.lengths.iter().zip(0..).map(|(length, index)| length + more(index)).collect()
    }

    /// Tokens in all, `T`.
    pub fn tokens(&self) -> i64 {
        self.lengths.iter().sum()
    }

    /// `[T]`, int64: each token's position in its own sequence.
    pub fn positions(&self) -> Tensor {
        let parts: Vec<Tensor> = self
            .lengths
            .iter()
            .zip(&self.starts)
            .map(|(len, start)| {
                Tensor::arange_start(*start, start + len, (Kind::Int64, self.ids.device()))
            })
            .collect();
        Tensor::cat(&parts, 0)
    }

    /// Runs of whole sequences of equal length, which one batched attention call can take.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut offset = 0;
        for length in self.whole_lengths() {
            match runs.last_mut() {
                Some(run) if run.length == length => run.count += 1,
                _ => runs.push(Run { offset, count: 1, length }),
            }
            offset += length;
        }
        runs
    }
}

/// `count` sequences of `length` tokens each, from row `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub offset: i64,
    pub count: i64,
    pub length: i64,
}

impl Run {
    /// This run's rows of a `[T, …]` tensor.
    pub fn rows(self, tensor: &Tensor) -> Tensor {
        tensor.narrow(0, self.offset, self.count * self.length)
    }
}
