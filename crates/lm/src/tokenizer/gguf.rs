//! The tokenizer inside a GGUF file: vocabulary, merges or scores, and the name of the way text is split.
//!
//! It is rebuilt as transformers' converter does, with what a GGUF leaves out and the original tokenizers
//! have put back: single digits for `SmolLM`, NFC for Qwen, whole words before merges for Llama 3.

mod bytes;
mod merges;
mod split;

use std::collections::BTreeMap;
use std::path::Path;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{SplitDelimiterBehavior, Tokenizer as Inner};
use tokenizers::{AddedToken, pre_tokenizers::byte_level::ByteLevel};

use super::{Description, TokenizerError};
use crate::weights::gguf::Gguf;

/// SentencePiece's sign for a space.
const SPACE: &str = "\u{2581}";
/// Token types of llama.cpp that are matched whole in a text.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The vocabulary as the file has it.
struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i64>,
    merges: Option<Vec<String>>,
    scores: Vec<f64>,
}

pub(super) fn read(path: &Path) -> Result<(Inner, Description), TokenizerError> {
    let gguf = Gguf::open(path)?;
    let vocabulary = vocabulary(&gguf)?;
    let arch = gguf.text("general.architecture").unwrap_or_default();
    let model = gguf.text("tokenizer.ggml.model").unwrap_or_default();
    let fault = |error: tokenizers::Error| TokenizerError::Invalid {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let inner = match (model, arch) {
        ("gpt2", _) => byte_level(&gguf, arch, &vocabulary)?,
        ("llama", "gemma3") => gemma(&vocabulary).map_err(fault)?,
        ("llama", _) => sentence_piece(&gguf, arch, &vocabulary).map_err(fault)?,
        (other, _) => {
            return Err(TokenizerError::Unsupported {
                path: path.to_owned(),
                what: "vocabulary type",
                found: other.to_owned(),
                known: "gpt2, llama".to_owned(),
            });
        }
    };
    let inner = add_whole_tokens(inner, &vocabulary).map_err(fault)?;
    let description = describe(&gguf, model, &vocabulary, path)?;
    Ok((inner, description))
}

fn vocabulary(gguf: &Gguf) -> Result<Vocabulary, TokenizerError> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let whole = |numbers: Vec<f64>| numbers.into_iter().map(|number| number as i64).collect();
    Ok(Vocabulary {
        tokens: gguf.texts(TOKENS)?.ok_or_else(|| gguf.missing(TOKENS))?,
        types: gguf.numbers("tokenizer.ggml.token_type")?.map(whole).unwrap_or_default(),
        merges: gguf.texts("tokenizer.ggml.merges")?,
        scores: gguf.numbers("tokenizer.ggml.scores")?.unwrap_or_default(),
    })
}

/// Byte-level BPE. Ordinary tokens that are not spelled in the byte alphabet are respelled.
fn byte_level(gguf: &Gguf, arch: &str, from: &Vocabulary) -> Result<Inner, TokenizerError> {
    let path = gguf.path();
    let fault = |reason: String| TokenizerError::Invalid { path: path.to_owned(), reason };
    let name = gguf.text("tokenizer.ggml.pre");
    let split = split::find(name, arch).ok_or_else(|| TokenizerError::Unsupported {
        path: path.to_owned(),
        what: "pre-tokenizer",
        found: name.unwrap_or_default().to_owned(),
        known: split::known(),
    })?;
    let whole = |index: usize| matches!(from.types.get(index), Some(&(CONTROL | USER_DEFINED)));
    let vocab: Vocab = from
        .tokens
        .iter()
        .enumerate()
        .map(|(index, token)| {
            let token = if whole(index) { token.clone() } else { bytes::respelled(token) };
            (token, index as u32)
        })
        .collect();
    let merges = match &from.merges {
        Some(lines) => merges::parse(lines).map_err(fault)?,
        None => merges::derive(&from.tokens, &from.scores),
    };
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(false)
        .ignore_merges(split.ignore_merges)
        .build()
        .map_err(|error| fault(error.to_string()))?;
    let mut inner = Inner::new(model);
    split.install(&mut inner).map_err(|error| fault(error.to_string()))?;
    inner.with_decoder(Some(ByteLevel::default()));
    Ok(inner)
}

/// SentencePiece's BPE with bytes for what is not in the vocabulary.
fn sentence_piece(gguf: &Gguf, arch: &str, from: &Vocabulary) -> tokenizers::Result<Inner> {
    let merges = match &from.merges {
        Some(lines) => merges::parse(lines)?,
        None => merges::derive(&from.tokens, &from.scores),
    };
    let model = byte_fallback(&from.tokens, merges).build()?;
    let mut inner = Inner::new(model);
    let prefix = gguf.boolean("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    if arch == "phi3" {
        // Phi-3 puts the space before the text instead of before its first word.
        let steps: Vec<NormalizerWrapper> =
            vec![Prepend::new(SPACE.to_owned()).into(), Replace::new(" ", SPACE)?.into()];
        inner.with_normalizer(Some(Normalizers::new(steps)))?;
    } else {
        let scheme = if prefix { PrependScheme::First } else { PrependScheme::Never };
        inner.with_pre_tokenizer(Some(Metaspace::new('\u{2581}', scheme, false)));
    }
    let strip = prefix || arch == "phi3";
    inner.with_decoder(Some(sentence_piece_decoder(strip)?));
    Ok(inner)
}

/// Gemma: no space before the text, runs of spaces are tokens, and the order of the tokens is the order
/// of the merges.
fn gemma(from: &Vocabulary) -> tokenizers::Result<Inner> {
    let blank = |token: &String| token.contains(' ') && token.trim().is_empty();
    let tokens: Vec<String> = from
        .tokens
        .iter()
        .map(|token| if blank(token) { SPACE.repeat(token.chars().count()) } else { token.clone() })
        .collect();
    let merges = if let Some(lines) = &from.merges {
        merges::parse(lines)?
    } else {
        let order: Vec<f64> = (0..tokens.len()).map(|index| -(index as f64)).collect();
        merges::derive(&tokens, &order)
    };
    let model = byte_fallback(&tokens, merges).unk_token("<unk>".to_owned()).build()?;
    let mut inner = Inner::new(model);
    inner.with_normalizer(Some(Replace::new(" ", SPACE)?))?;
    let pattern = SplitPattern::String(" ".to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::MergedWithPrevious, false)?;
    inner.with_pre_tokenizer(Some(split));
    inner.with_decoder(Some(sentence_piece_decoder(false)?));
    Ok(inner)
}

fn byte_fallback(tokens: &[String], merges: Vec<(String, String)>) -> BpeBuilder {
    let vocab: Vocab =
        tokens.iter().enumerate().map(|(index, token)| (token.clone(), index as u32)).collect();
    BPE::builder().vocab_and_merges(vocab, merges).fuse_unk(true).byte_fallback(true)
}

fn sentence_piece_decoder(strip: bool) -> tokenizers::Result<Decoders> {
    let mut steps =
        vec![Replace::new(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if strip {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Decoders::new(steps))
}

/// Tokens marked as control become special ones, those marked as user-defined are matched whole.
fn add_whole_tokens(mut inner: Inner, from: &Vocabulary) -> tokenizers::Result<Inner> {
    let of = |wanted: i64| {
        let marked = from.tokens.iter().zip(&from.types).filter(move |(_, kind)| **kind == wanted);
        marked.map(move |(token, _)| {
            AddedToken::from(token.clone(), wanted == CONTROL).normalized(false)
        })
    };
    inner.add_special_tokens(of(CONTROL))?;
    let known: Vec<AddedToken> =
        of(USER_DEFINED).filter(|token| inner.token_to_id(&token.content).is_some()).collect();
    inner.add_tokens(known)?;
    Ok(inner)
}

fn describe(
    gguf: &Gguf,
    model: &str,
    from: &Vocabulary,
    path: &Path,
) -> Result<Description, TokenizerError> {
    let mut special = BTreeMap::new();
    for (role, key) in [
        ("bos_token", "tokenizer.ggml.bos_token_id"),
        ("eos_token", "tokenizer.ggml.eos_token_id"),
        ("unk_token", "tokenizer.ggml.unknown_token_id"),
        ("pad_token", "tokenizer.ggml.padding_token_id"),
    ] {
        let Some(id) = gguf.integer(key) else { continue };
        let token = usize::try_from(id).ok().and_then(|id| from.tokens.get(id));
        let token = token.ok_or_else(|| TokenizerError::MissingSpecial {
            path: path.to_owned(),
            role: role.to_owned(),
            token: format!("number {id}"),
        })?;
        special.insert(role.to_owned(), token.clone());
    }
    let mut templates = BTreeMap::new();
    for (name, key) in
        [("default", "tokenizer.chat_template"), ("tool_use", "tokenizer.chat_template.tool_use")]
    {
        if let Some(text) = gguf.text(key) {
            templates.insert(name.to_owned(), text.to_owned());
        }
    }
    let ends = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
    let ends = ends.iter().filter_map(|key| u32::try_from(gguf.integer(key)?).ok()).collect();
    // Older files say nothing, and SentencePiece vocabularies then begin with their token.
    let default_bos = model == "llama";
    Ok(Description {
        special,
        end_ids: ends,
        templates,
        add_bos: Some(gguf.boolean("tokenizer.ggml.add_bos_token").unwrap_or(default_bos)),
        add_eos: Some(gguf.boolean("tokenizer.ggml.add_eos_token").unwrap_or(false)),
    })
}
