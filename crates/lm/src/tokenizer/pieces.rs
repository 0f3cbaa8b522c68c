//! The bytes of text that single tokens stand for.

use std::collections::{BTreeMap, HashMap};

use super::Tokenizer;

/// A tokenizer's tokens as bytes.
#[derive(Debug)]
pub struct Pieces<'a> {
    tokenizer: &'a Tokenizer,
    /// Text of added tokens, and whether they are special.
    added: BTreeMap<u32, (String, bool)>,
    /// Bytes of the characters of GPT-2's alphabet, where the vocabulary is spelled in it.
    alphabet: Option<HashMap<char, u8>>,
}

impl Tokenizer {
    /// The tokens as bytes.
    pub fn pieces(&self) -> Pieces<'_> {
        let added = self.inner.get_added_tokens_decoder();
        let added = added.into_iter().map(|(id, token)| (id, (token.content, token.special)));
        let decoder = serde_json::to_string(&self.inner.get_decoder()).unwrap_or_default();
        let alphabet = decoder.contains("ByteLevel").then(alphabet);
        Pieces { tokenizer: self, added: added.collect(), alphabet }
    }
}

impl Pieces<'_> {
    /// The bytes of a token; none where it is special or unknown.
    pub fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        if let Some((text, special)) = self.added.get(&id) {
            return (!special).then(|| text.clone().into_bytes());
        }
        let token = self.tokenizer.token(id)?;
        if let Some(alphabet) = &self.alphabet {
            return token.chars().map(|found| alphabet.get(&found).copied()).collect();
        }
        let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => Some(vec![byte]),
            None => Some(token.replace('\u{2581}', " ").into_bytes()),
        }
    }
}

/// The bytes by the letters that stand for them.
fn alphabet() -> HashMap<char, u8> {
    (0..=u8::MAX).map(|byte| (letter(byte), byte)).collect()
}

/// GPT-2's table: printable bytes are themselves, the others follow from 256 on.
pub(super) fn letter(byte: u8) -> char {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(&byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|other| !printable(other)).count() as u32;
    char::from_u32(256 + before).unwrap_or_default()
}
