//! Conversations: rendered by the model's template, learned where the assistant speaks.
//!
//! What the assistant said in turn `i` is found by rendering: the messages before it with a
//! generation prompt are what the model is given, and the messages up to and with it are what
//! should stand there afterwards; the difference is the answer.
//!
//! Most templates only ever append, and a conversation is one example. Some rewrite earlier turns
//! (Qwen3 removes earlier reasoning): then each learned turn becomes an example of its own, with the
//! conversation before it exactly as the model will see it.

use lm::chat::{Conversation, Message};
use serde_json::{Map, Value};

use super::super::example::{Example, Learned, Question};
use super::super::sample::{Chat, Role, Turn};
use super::{EncodeError, Encoder};

/// An answer inside a rendered conversation, in bytes.
struct Answer {
    start: usize,
    end: usize,
    weight: f32,
}

impl Encoder<'_> {
    pub(super) fn chat(&self, chat: &Chat, ask: bool) -> Result<Vec<Example>, EncodeError> {
        let messages = self.messages(&chat.turns);
        let added = messages.len() - chat.turns.len();
        let template = self.tokenizer.chat().ok_or(EncodeError::NoTemplate)?;
        let conversation = template.conversation(&messages, chat.tools.as_ref());
        let script = Script { conversation, count: messages.len() };
        let turns: Vec<(usize, &Turn)> = (added..).zip(&chat.turns).collect();
        let mut examples = Vec::new();
        for (text, answers) in script.rendered(&turns)? {
            examples.push(self.example(&text, &answers)?);
        }
        let last = turns.iter().rev().find(|(_, turn)| turn.role == Role::Assistant);
        if let (true, Some((index, turn)), Some(example)) = (ask, last, examples.last_mut()) {
            let before = &messages[..*index];
            example.question = Some(Question {
                prompt_ids: self.ids(&script.render(*index, true)?, false)?,
                prompt: before.last().and_then(Message::text).unwrap_or_default().to_owned(),
                answer: turn.content.trim().to_owned(),
            });
        }
        Ok(examples)
    }

    /// The turns for the template, with the workspace's system message where they have none.
    fn messages(&self, turns: &[Turn]) -> Vec<Message> {
        let mut messages = Vec::with_capacity(turns.len() + 1);
        let own_system = turns.first().is_some_and(|turn| turn.role == Role::System);
        if let (false, Some(system)) = (own_system, &self.data.system) {
            messages.push(message(Role::System, system.clone(), Map::new()));
        }
        messages.extend(
            turns.iter().map(|turn| message(turn.role, turn.content.clone(), turn.extra.clone())),
        );
        messages
    }

    /// Tokenises a rendered conversation; a token is learned when it lies inside an answer, up to
    /// the token that ends the turn.
    fn example(&self, text: &str, answers: &[Answer]) -> Result<Example, EncodeError> {
        let (ids, spans) = self.tokens(text, answers)?;
        let mut learned = Vec::with_capacity(answers.len());
        for answer in answers {
            let first = spans.partition_point(|span| span.1 <= answer.start);
            let past = spans.partition_point(|span| span.0 < answer.end);
            let stop = (first..past).rev().find(|at| self.tokenizer.eos().contains(&ids[*at]));
            let tokens = first..stop.map_or(past, |at| at + 1);
            learned.push(Learned { tokens, weight: answer.weight });
        }
        Ok(Example { ids, learned, ..Example::default() })
    }

    /// The tokens of `text` with the bytes that each stands for. Where a token would lie across the
    /// start of an answer, each part is tokenised by itself, since a model that is asked has seen
    /// only the first.
    fn tokens(&self, text: &str, answers: &[Answer]) -> Result<Tokens, EncodeError> {
        let whole = self.piece(text, 0)?;
        let across = |answer: &Answer| {
            // Some tokenizers count a space before a word as no part of its token.
            text[..answer.start].ends_with(' ')
                || whole.1.iter().any(|span| span.0 < answer.start && span.1 > answer.start)
        };
        if !answers.iter().any(across) {
            return Ok(whole);
        }
        let starts = answers.iter().map(|answer| answer.start);
        let borders: Vec<usize> = [0].into_iter().chain(starts).chain([text.len()]).collect();
        let mut tokens = Tokens::default();
        for border in borders.windows(2) {
            let (ids, spans) = self.piece(&text[border[0]..border[1]], border[0])?;
            tokens.0.extend(ids);
            tokens.1.extend(spans);
        }
        Ok(tokens)
    }

    /// The tokens of a text that starts at the byte `offset`.
    fn piece(&self, text: &str, offset: usize) -> Result<Tokens, EncodeError> {
        let (ids, mut spans) = self
            .tokenizer
            .encode_with_offsets(text, false)
            .map_err(|error| EncodeError::Tokenizer(error.to_string()))?;
        for span in &mut spans {
            *span = (span.0 + offset, span.1 + offset);
        }
        Ok((ids, spans))
    }
}

/// Ids, and the bytes that each stands for.
type Tokens = (Vec<u32>, Vec<(usize, usize)>);

/// One conversation with the template that renders it.
struct Script<'a> {
    conversation: Conversation<'a>,
    /// Messages in it.
    count: usize,
}

impl Script<'_> {
    /// The texts to learn from, each with its answers.
    fn rendered(
        &self,
        turns: &[(usize, &Turn)],
    ) -> Result<Vec<(String, Vec<Answer>)>, EncodeError> {
        let full = self.render(self.count, false)?;
        let mut answers = Vec::new();
        for (index, turn) in turns.iter().filter(|(_, turn)| turn.weight > 0.0) {
            let last = index + 1 == self.count;
            let until = if last { full.clone() } else { self.render(index + 1, false)? };
            let start = self.answer_start(*index, &until)?;
            check_tool_calls(turn, &until[start..])?;
            let end = until.len();
            answers.push((until, Answer { start, end, weight: turn.weight }));
        }
        if answers.iter().all(|(until, _)| full.starts_with(until.as_str())) {
            return Ok(vec![(full, answers.into_iter().map(|(_, answer)| answer).collect())]);
        }
        Ok(answers.into_iter().map(|(until, answer)| (until, vec![answer])).collect())
    }

    /// Where the answer at `index` starts in `until`, which ends with it.
    fn answer_start(&self, index: usize, until: &str) -> Result<usize, EncodeError> {
        let given = self.render(index, true)?;
        if until.starts_with(&given) {
            return Ok(given.len());
        }
        // The generation prompt may end in words that a recorded answer lacks, such as an opening
        // tag for reasoning: then the answer starts where the two part, inside its own turn.
        let before = self.render(index, false)?;
        let shared = shared_prefix(&given, until);
        if until.starts_with(&before) && shared > before.len() {
            return Ok(shared);
        }
        Err(EncodeError::Rewritten(index + 1))
    }

    /// The first `count` messages as text.
    fn render(&self, count: usize, generation_prompt: bool) -> Result<String, EncodeError> {
        if count == 0 {
            return Err(EncodeError::NothingBefore);
        }
        let text = self.conversation.render(count, generation_prompt);
        text.map_err(|error| EncodeError::Template(error.to_string()))
    }
}

fn message(role: Role, content: String, extra: Map<String, Value>) -> Message {
    Message { extra, ..Message::new(role.as_str(), content) }
}

/// A template that knows no tools shows a call as an empty turn, which would teach silence.
fn check_tool_calls(turn: &Turn, rendered: &str) -> Result<(), EncodeError> {
    let calls = turn.extra.get("tool_calls").and_then(Value::as_array);
    for call in calls.into_iter().flatten() {
        if let Some(name) = call.pointer("/function/name").and_then(Value::as_str)
            && !rendered.contains(name)
        {
            return Err(EncodeError::ToolCall(name.to_owned()));
        }
    }
    Ok(())
}

/// Length in bytes of the text that both start with.
fn shared_prefix(one: &str, other: &str) -> usize {
    let pairs = one.char_indices().zip(other.chars());
    let mut same = pairs.take_while(|((_, left), right)| left == right);
    same.by_ref().last().map_or(0, |((at, letter), _)| at + letter.len_utf8())
}
