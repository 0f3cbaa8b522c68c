//! Special tokens: that they are in the vocabulary, what is put around a text, and which ones end it.

use std::collections::BTreeMap;
use std::path::Path;

use tokenizers::AddedToken;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::tokenizer::Tokenizer as Inner;

use super::{Description, TokenizerError};

/// Tokens that end a turn in the chat templates of the known models.
const TURN_ENDS: [&str; 7] =
    ["<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "</s>", "<|endoftext|>"];

/// The ids of the named special tokens, which become special in `inner` if they were not.
pub(super) fn resolve(
    path: &Path,
    inner: &mut Inner,
    description: &Description,
) -> Result<BTreeMap<String, u32>, TokenizerError> {
    let mut ids = BTreeMap::new();
    for (role, token) in &description.special {
        match inner.token_to_id(token) {
            Some(id) => {
                ids.insert(role.clone(), id);
            }
            // Only these two are used; a mask or class token of another model does no harm.
            None if role == "bos_token" || role == "eos_token" => {
                return Err(TokenizerError::MissingSpecial {
                    path: path.to_owned(),
                    role: role.clone(),
                    token: token.clone(),
                });
            }
            None => {}
        }
    }
    let known = inner.get_added_tokens_decoder();
    let new: Vec<AddedToken> = ids
        .iter()
        .filter(|(_, id)| !known.contains_key(id))
        .filter_map(|(role, _)| description.special.get(role))
        .map(|token| AddedToken::from(token.clone(), true).normalized(false))
        .collect();
    inner.add_special_tokens(new).map_err(|error| invalid(path, &error))?;
    Ok(ids)
}

/// Sets what is added around a text, where the configuration says so; else `tokenizer.json` decides.
pub(super) fn set_post_processor(
    path: &Path,
    inner: &mut Inner,
    description: &Description,
    ids: &BTreeMap<String, u32>,
) -> Result<(), TokenizerError> {
    if description.add_bos.is_none() && description.add_eos.is_none() {
        return Ok(());
    }
    let wanted = |flag: Option<bool>, role: &str| {
        let token = description.special.get(role).filter(|_| flag == Some(true))?;
        Some((token.clone(), *ids.get(role)?))
    };
    let begin = wanted(description.add_bos, "bos_token");
    let end = wanted(description.add_eos, "eos_token");
    let mut template: Vec<String> = Vec::new();
    template.extend(begin.iter().map(|(token, _)| token.clone()));
    template.push("$A".to_owned());
    template.extend(end.iter().map(|(token, _)| token.clone()));
    let mut tokens: Vec<(String, u32)> = begin.into_iter().chain(end).collect();
    tokens.dedup();
    let processor = TemplateProcessing::builder()
        .try_single(template)
        .map_err(|reason| TokenizerError::Invalid { path: path.to_owned(), reason })?
        .special_tokens(tokens)
        .build()
        .map_err(|error| invalid(path, &error.into()))?;
    inner.with_post_processor(Some(processor));
    Ok(())
}

/// All ids that end a generated answer, the tokenizer's own first.
pub(super) fn ends(
    path: &Path,
    inner: &Inner,
    description: &Description,
    ids: &BTreeMap<String, u32>,
) -> Result<Vec<u32>, TokenizerError> {
    let mut ends: Vec<u32> = ids.get("eos_token").copied().into_iter().collect();
    let count = inner.get_vocab_size(true) as u32;
    ends.extend(description.end_ids.iter().copied().filter(|&id| id < count));
    if let Some(template) = description.templates.get("default") {
        let used = TURN_ENDS.iter().filter(|token| template.contains(*token));
        ends.extend(used.filter_map(|token| inner.token_to_id(token)));
    }
    let mut seen = std::collections::BTreeSet::new();
    ends.retain(|&id| seen.insert(id));
    if ends.is_empty() {
        return Err(TokenizerError::NoEnd { path: path.to_owned() });
    }
    Ok(ends)
}

fn invalid(path: &Path, error: &tokenizers::Error) -> TokenizerError {
    TokenizerError::Invalid { path: path.to_owned(), reason: error.to_string() }
}
