//! A shorter way to the same tokens, for byte-level tokenizers (GPT-2's, Llama 3's, Qwen's, `SmolLM`'s).
//!
//! The `tokenizers` crate keeps, for every text, what each byte was changed to and from, which takes most of
//! its time. Where a text is only cut into words and each word goes through the model by itself, the words
//! can be looked up: the same regular expressions cut, or for ASCII what is written out of them in [`ascii`], and the
//! same model is asked once for each new word.
//! [`Words::of`] knows what it can do by the tokenizer's own description and leaves all else alone.

mod ascii;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use regex::Regex;
use serde_json::Value;
use tokenizers::Model as _;
use tokenizers::tokenizer::Tokenizer as Inner;
use tokenizers::utils::SysRegex;

use super::pieces::letter;
use ascii::Grammar;

/// Words that are remembered at once by a thread, and the longest of them in bytes.
const REMEMBERED: usize = 100_000;
const LONGEST: usize = 64;

/// What is known of a tokenizer that can be used by its words.
#[derive(Debug)]
pub(super) struct Words {
    /// Finds the added tokens.
    added: Option<Regex>,
    added_tokens: HashMap<String, Token>,
    cuts: Vec<Cut>,
    /// Whether characters are composed first, which leaves ASCII as it is.
    composes: bool,
    after: After,
    /// The character that stands for each byte in the vocabulary.
    alphabet: Vec<char>,
    /// One for each thread that was at work at the same time.
    memories: Mutex<Vec<Memory>>,
}

/// A way to cut a text, applied to each piece of the one before.
#[derive(Debug)]
enum Cut {
    /// Each digit, or each run of them, is a word.
    Digits { single: bool },
    Matches {
        expression: SysRegex,
        /// The same for ASCII, where it is known.
        grammar: Option<Grammar>,
    },
}

impl Cut {
    fn matches(expression: &str) -> Option<Self> {
        let grammar = Grammar::of(expression);
        Some(Self::Matches { expression: SysRegex::new(expression).ok()?, grammar })
    }
}

/// What is done to tokens at the end.
#[derive(Clone, Copy, Debug, Default)]
struct After {
    /// Whether spans leave out white space, and whether one space at the start of a text stays.
    trims: Option<bool>,
    /// Whether special tokens may be put around a text.
    adds: bool,
}

/// The tokens of words.
#[derive(Debug, Default)]
struct Memory {
    places: HashMap<Box<str>, Range<u32>, ahash::RandomState>,
    tokens: Vec<Token>,
}

impl Memory {
    fn keep(&mut self, word: &str, tokens: &[Token]) -> Range<u32> {
        if self.places.len() >= REMEMBERED {
            self.places.clear();
            self.tokens.clear();
        }
        let start = self.tokens.len() as u32;
        self.tokens.extend_from_slice(tokens);
        let place = start..self.tokens.len() as u32;
        self.places.insert(word.into(), place.clone());
        place
    }
}

/// A token of a word.
#[derive(Clone, Copy, Debug)]
struct Token {
    id: u32,
    bytes: usize,
    /// White space at its start and at its end.
    before: usize,
    after: usize,
}

/// Ids, and the bytes that each stands for.
type Encoded = (Vec<u32>, Vec<(usize, usize)>);

impl Words {
    /// None where the tokenizer does more than this.
    pub(super) fn of(inner: &Inner) -> Option<Self> {
        let json = |part: Result<Value, serde_json::Error>| part.ok();
        let normalizer = json(serde_json::to_value(inner.get_normalizer()))?;
        let composes = match normalizer["type"].as_str() {
            None if normalizer.is_null() => false,
            Some("NFC") => true,
            _ => return None,
        };
        let cuts = cuts(&json(serde_json::to_value(inner.get_pre_tokenizer()))?)?;
        let after = after(&json(serde_json::to_value(inner.get_post_processor()))?)?;
        let tokenizers::ModelWrapper::BPE(model) = inner.get_model() else { return None };
        if model.dropout.is_some_and(|rate| rate > 0.0) {
            return None;
        }
        let mut added_tokens = HashMap::new();
        for (id, token) in inner.get_added_tokens_decoder() {
            if token.single_word || token.lstrip || token.rstrip || token.normalized {
                return None;
            }
            let (before, after) = blanks(&token.content);
            let bytes = token.content.len();
            added_tokens.insert(token.content, Token { id, bytes, before, after });
        }
        let alphabet = (0..=u8::MAX).map(letter).collect();
        let memories = Mutex::default();
        let added = finder(added_tokens.keys()).ok()?;
        Some(Self { added, added_tokens, cuts, composes, after, alphabet, memories })
    }

    /// What `inner` makes of `text`; none where it has to be asked.
    pub(super) fn encode(&self, inner: &Inner, text: &str, add_special: bool) -> Option<Encoded> {
        if (add_special && self.after.adds) || (self.composes && !text.is_ascii()) {
            return None;
        }
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = memories.pop().unwrap_or_default();
        drop(memories);
        let mut writing =
            Writing { words: self, inner, text, memory: &mut memory, to: Encoded::default() };
        let done = writing.all();
        let encoded = writing.to;
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        done.map(|()| encoded)
    }
}

/// A text that is being turned into tokens.
struct Writing<'a> {
    words: &'a Words,
    inner: &'a Inner,
    text: &'a str,
    memory: &'a mut Memory,
    to: Encoded,
}

impl Writing<'_> {
    fn all(&mut self) -> Option<()> {
        let (text, words) = (self.text, self.words);
        let mut start = 0;
        for found in words.added.iter().flat_map(|added| added.find_iter(text)) {
            self.cut(start..found.start(), &words.cuts)?;
            self.push(found.start(), *words.added_tokens.get(found.as_str())?);
            start = found.end();
        }
        self.cut(start..text.len(), &words.cuts)
    }

    /// Cuts a piece of the text by the first of `cuts`, and what comes out by the others.
    fn cut(&mut self, piece: Range<usize>, cuts: &[Cut]) -> Option<()> {
        if piece.is_empty() {
            return Some(());
        }
        let Some((cut, others)) = cuts.split_first() else { return self.word(piece) };
        let text = &self.text[piece.clone()];
        match cut {
            Cut::Digits { single } => {
                let mut rest = text;
                while let Some(first) = rest.chars().next() {
                    let digits = first.is_numeric();
                    let same = |letter: char| letter.is_numeric() == digits;
                    let length = match (digits, single) {
                        (true, true) => first.len_utf8(),
                        _ => rest.find(|letter| !same(letter)).unwrap_or(rest.len()),
                    };
                    let start = piece.end - rest.len();
                    self.cut(start..start + length, others)?;
                    rest = &rest[length..];
                }
            }
            Cut::Matches { expression, grammar } => {
                let mut done = 0;
                let place =
                    |range: Range<usize>| piece.start + range.start..piece.start + range.end;
                while done < text.len() {
                    let plain = grammar.and_then(|grammar| grammar.end(text.as_bytes(), done));
                    // None of the expressions looks back: they find the same from here on.
                    let (start, end) = match plain {
                        Some(end) => (done, end),
                        None => match expression.find_iter(&text[done..]).next() {
                            Some((start, end)) => (done + start, done + end),
                            None => break,
                        },
                    };
                    self.cut(place(done..start), others)?;
                    self.cut(place(start..end), others)?;
                    done = end;
                }
                self.cut(place(done..text.len()), others)?;
            }
        }
        Some(())
    }

    fn word(&mut self, place: Range<usize>) -> Option<()> {
        let word = &self.text[place.clone()];
        let mut start = place.start;
        let known = if let Some(known) = self.memory.places.get(word) {
            known.clone()
        } else {
            let tokens = self.ask(word)?;
            if word.len() > LONGEST {
                for token in tokens {
                    self.push(start, token);
                    start += token.bytes;
                }
                return Some(());
            }
            self.memory.keep(word, &tokens)
        };
        for index in known {
            let token = self.memory.tokens[index as usize];
            self.push(start, token);
            start += token.bytes;
        }
        Some(())
    }

    /// What the model itself makes of a word.
    fn ask(&self, word: &str) -> Option<Vec<Token>> {
        let spelled: String =
            word.bytes().map(|byte| self.words.alphabet[usize::from(byte)]).collect();
        let tokens = self.inner.get_model().tokenize(&spelled).ok()?;
        let tokens: Vec<Token> = tokens
            .iter()
            .map(|token| {
                let (before, after) = blanks(&token.value);
                Token { id: token.id, bytes: token.value.chars().count(), before, after }
            })
            .collect();
        // A vocabulary that lacks bytes leaves some out, or has a token for the unknown.
        (tokens.iter().map(|token| token.bytes).sum::<usize>() == word.len()).then_some(tokens)
    }

    /// The span of a part of a character is the whole character's.
    fn push(&mut self, start: usize, token: Token) {
        let (mut from, mut to) = (start, start + token.bytes);
        while !self.text.is_char_boundary(from) {
            from -= 1;
        }
        while !self.text.is_char_boundary(to) {
            to += 1;
        }
        if let Some(keeps_first) = self.words.after.trims {
            let first = (self.to.0.is_empty() || from == 0) && keeps_first && token.before == 1;
            from = (from + if first { 0 } else { token.before }).min(to);
            if to >= token.after {
                to = (to - token.after).max(from);
            }
        }
        self.to.0.push(token.id);
        self.to.1.push((from, to));
    }
}

/// White space at the start and at the end of a token in the vocabulary's spelling.
fn blanks(token: &str) -> (usize, usize) {
    let space = letter(b' ');
    let blank = |letter: &char| *letter == space || letter.is_whitespace();
    let before = token.chars().take_while(blank).count();
    (before, token.chars().rev().take_while(blank).count())
}

/// Finds the longest of `tokens` at the first place where there is one; nothing where there are none.
fn finder<'a>(tokens: impl Iterator<Item = &'a String>) -> Result<Option<Regex>, regex::Error> {
    let mut tokens: Vec<&String> = tokens.collect();
    tokens.sort_by_key(|token| std::cmp::Reverse(token.len()));
    let all: Vec<String> = tokens.into_iter().map(|token| regex::escape(token)).collect();
    if all.is_empty() { Ok(None) } else { Regex::new(&all.join("|")).map(Some) }
}

/// The cuts of a pre-tokenizer that ends in the byte alphabet.
fn cuts(description: &Value) -> Option<Vec<Cut>> {
    let list = match description["type"].as_str()? {
        "Sequence" => description["pretokenizers"].as_array()?.as_slice(),
        _ => std::slice::from_ref(description),
    };
    let mut cuts = Vec::new();
    for (place, part) in (1..).zip(list) {
        match part["type"].as_str()? {
            "Digits" => cuts.push(Cut::Digits { single: part["individual_digits"].as_bool()? }),
            "Split" if part["behavior"] == "Isolated" && part["invert"] == false => {
                cuts.push(Cut::matches(part["pattern"]["Regex"].as_str()?)?);
            }
            "ByteLevel" if part["add_prefix_space"] == false && place == list.len() => {
                if part["use_regex"] == true {
                    cuts.push(Cut::matches(ascii::GPT2)?);
                }
                return Some(cuts);
            }
            _ => return None,
        }
    }
    None
}

/// What a processor does; none where that is more than this.
fn after(description: &Value) -> Option<After> {
    let list = match description["type"].as_str() {
        None if description.is_null() => &[],
        Some("Sequence") => description["processors"].as_array()?.as_slice(),
        _ => std::slice::from_ref(description),
    };
    let mut after = After::default();
    for part in list {
        match part["type"].as_str()? {
            "TemplateProcessing" => after.adds = true,
            "ByteLevel" if part["trim_offsets"] == false => {}
            "ByteLevel" if after.trims.is_none() => {
                after.trims = Some(part["add_prefix_space"] == true);
            }
            _ => return None,
        }
    }
    Some(after)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use crate::files::ModelFiles;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn it_is_known_which_tokenizers_go_by_their_words() {
        let by_words = |name: &str| {
            let fixtures =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/numerics/fixtures");
            let path = fixtures.join(format!("files/tokenizers/{name}.gguf"));
            Tokenizer::open(&ModelFiles::Gguf(path)).unwrap().words.is_some()
        };
        for name in ["gpt2", "smollm", "llama_bpe", "qwen2", "nemo"] {
            assert!(by_words(name), "{name}");
        }
        for name in ["spm", "phi3", "gemma3"] {
            assert!(!by_words(name), "{name}");
        }
    }
}
