//! An example as bytes: numbers in little-endian order, each list behind its length.

use super::example::{Example, Learned, Question};

/// Appends `example` to `to`.
pub(super) fn write(example: &Example, to: &mut Vec<u8>) {
    number(example.file, to);
    to.extend(example.line.to_le_bytes());
    ids(&example.ids, to);
    number(example.learned.len() as u32, to);
    for run in &example.learned {
        number(run.tokens.start as u32, to);
        number(run.tokens.end as u32, to);
        number(run.weight.to_bits(), to);
    }
    number(u32::from(example.question.is_some()), to);
    if let Some(question) = &example.question {
        ids(&question.prompt_ids, to);
        text(&question.prompt, to);
        text(&question.answer, to);
    }
}

/// The example that is all of `bytes`; none where they are something else.
pub(super) fn read(bytes: &[u8]) -> Option<Example> {
    let mut rest = Rest(bytes);
    let file = rest.number()?;
    let line = u64::from_le_bytes(rest.take(8)?.try_into().ok()?);
    let ids = rest.ids()?;
    let mut learned = Vec::new();
    for _ in 0..rest.number()? {
        let tokens = rest.number()? as usize..rest.number()? as usize;
        learned.push(Learned { tokens, weight: f32::from_bits(rest.number()?) });
    }
    let question = if rest.number()? == 0 {
        None
    } else {
        let (prompt_ids, prompt, answer) = (rest.ids()?, rest.text()?, rest.text()?);
        Some(Question { prompt_ids, prompt, answer })
    };
    rest.0.is_empty().then_some(Example { ids, learned, question, file, line })
}

fn number(number: u32, to: &mut Vec<u8>) {
    to.extend(number.to_le_bytes());
}

fn ids(ids: &[u32], to: &mut Vec<u8>) {
    number(ids.len() as u32, to);
    to.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
}

fn text(text: &str, to: &mut Vec<u8>) {
    number(text.len() as u32, to);
    to.extend(text.as_bytes());
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn ids(&mut self) -> Option<Vec<u32>> {
        let count = self.number()? as usize;
        let (numbers, _) = self.take(count.checked_mul(4)?)?.as_chunks::<4>();
        Some(numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }

    fn text(&mut self) -> Option<String> {
        let count = self.number()? as usize;
        Some(std::str::from_utf8(self.take(count)?).ok()?.to_owned())
    }
}
