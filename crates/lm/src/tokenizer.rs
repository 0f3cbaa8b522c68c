//! Text to token ids and back, with the special tokens and the chat template of a model.
//!
//! A Hugging Face folder brings a `tokenizer.json`; from a GGUF file the same tokenizer is rebuilt
//! (`tokenizer/gguf.rs`). All fast work is done by the `tokenizers` crate.

mod folder;
mod gguf;
mod pieces;
mod special;
mod words;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use pieces::Pieces;
use sha2::{Digest, Sha256};
use tokenizers::tokenizer::Tokenizer as Inner;

use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::files::{FilesError, ModelFiles};
use crate::weights::gguf::GgufError;

/// The tokenizer of a model. It can be shared between threads.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
    /// The shorter way, where there is one.
    words: Option<words::Words>,
    bos: Option<u32>,
    pad: Option<u32>,
    eos: Vec<u32>,
    chat: Option<ChatTemplate>,
    /// `bos_token`, `eos_token`, `pad_token`, … and their text.
    special: BTreeMap<String, String>,
    /// What `strftime_now` tells, in seconds since 1970.
    told_time: i64,
}

/// Start and end of each token in the bytes of a text.
pub type Offsets = Vec<(usize, usize)>;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The folder or file cannot be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The GGUF file cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The folder has no `tokenizer.json`.
    #[error("cannot load the tokenizer of {}: there is no tokenizer.json", path.display())]
    Missing { path: PathBuf },
    /// The description of the tokenizer cannot be understood.
    #[error("cannot load the tokenizer of {}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
    /// A special token is named, and the vocabulary does not hold it.
    #[error(
        "cannot load the tokenizer of {}: its {role} `{token}` is not in its vocabulary", path.display()
    )]
    MissingSpecial { path: PathBuf, role: String, token: String },
    /// Nothing says which token ends a text.
    #[error("cannot load the tokenizer of {}: it names no eos_token", path.display())]
    NoEnd { path: PathBuf },
    /// A GGUF vocabulary of a kind that cannot be rebuilt.
    #[error(
        "cannot rebuild the tokenizer of {}: its {what} `{found}` is not supported; supported are {known}",
        path.display()
    )]
    Unsupported { path: PathBuf, what: &'static str, found: String, known: String },
    /// There are ids that the model has no embedding for.
    #[error(
        "cannot use the tokenizer with this model: it has {tokens} tokens and the model has room for {rows}"
    )]
    TooLarge { tokens: usize, rows: i64 },
    /// Encoding or decoding failed.
    #[error("cannot {what}: {reason}")]
    Failed { what: &'static str, reason: String },
}

impl TokenizerError {
    /// What the user can do next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Files(error) => return error.hint(),
            Self::Gguf(error) => return error.hint(),
            Self::Missing { .. } => "save it with transformers' AutoTokenizer.save_pretrained",
            Self::Invalid { .. } => "download the tokenizer's files again",
            Self::MissingSpecial { .. } | Self::TooLarge { .. } => {
                "take the tokenizer's files and the model from the same release"
            }
            Self::NoEnd { .. } => "name an eos_token in tokenizer_config.json",
            Self::Unsupported { .. } => "use the model's Hugging Face folder instead",
            Self::Failed { .. } => return None,
        };
        Some(text.to_owned())
    }
}

/// What is known of a tokenizer beside the vocabulary, before it is checked.
#[derive(Debug, Default)]
struct Description {
    /// `bos_token`, `eos_token`, `pad_token`, … and their text.
    special: BTreeMap<String, String>,
    /// Ids that the model's configuration names as ends.
    end_ids: Vec<u32>,
    /// Templates by name; the plain one is `default`.
    templates: BTreeMap<String, String>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
}

impl Tokenizer {
    /// Loads or rebuilds the tokenizer of a model.
    pub fn open(files: &ModelFiles) -> Result<Self, TokenizerError> {
        let (inner, description) = match files {
            ModelFiles::Folder(folder) => folder::read(files, folder)?,
            ModelFiles::Gguf(path) => gguf::read(path)?,
        };
        Self::assemble(files, inner, &description)
    }

    fn assemble(
        files: &ModelFiles,
        mut inner: Inner,
        description: &Description,
    ) -> Result<Self, TokenizerError> {
        let path = files.path();
        // Texts are cut and padded elsewhere, or not at all.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        let ids = special::resolve(path, &mut inner, description)?;
        special::set_post_processor(path, &mut inner, description, &ids)?;
        let eos = special::ends(path, &inner, description, &ids)?;
        let template = |name: &str| description.templates.get(name);
        let chat = template("default").map(|source| {
            let chat = ChatTemplate::new(source, description.special.clone());
            match template("tool_use") {
                Some(source) => chat.with_tools_template(source),
                None => chat,
            }
        });
        let (bos, pad) = (ids.get("bos_token").copied(), ids.get("pad_token").copied());
        let told_time = crate::chat::now();
        let special = description.special.clone();
        let words = words::Words::of(&inner);
        Ok(Self { inner, words, bos, pad, eos, chat, special, told_time }.telling(told_time))
    }

    /// The same with another time for chat templates that ask for one, in seconds since 1970. At first it
    /// is that of opening: a template that writes the date then gives the same text all along.
    #[must_use]
    pub fn telling(mut self, unix_seconds: i64) -> Self {
        self.chat = self.chat.map(|chat| chat.at(unix_seconds));
        self.told_time = unix_seconds;
        self
    }

    /// The time that chat templates are told, in seconds since 1970.
    pub fn told_time(&self) -> i64 {
        self.told_time
    }

    /// Whether the chat template asks for the time.
    pub fn tells_time(&self) -> bool {
        self.chat.as_ref().is_some_and(ChatTemplate::tells_time)
    }

    /// Checks that the model has an embedding for every id.
    pub fn check(&self, config: &ModelConfig) -> Result<(), TokenizerError> {
        let (tokens, rows) = (self.vocab_size(), config.vocab_size);
        if tokens as i64 > rows {
            return Err(TokenizerError::TooLarge { tokens, rows });
        }
        Ok(())
    }

    /// The tokens of `text`. `add_special` adds what the tokenizer puts around a text (a beginning token,
    /// as a rule); a rendered chat has that already.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        if let Some((ids, _)) = self.by_words(text, add_special) {
            return Ok(ids);
        }
        let encoding =
            self.inner.encode_fast(text, add_special).map_err(failed("encode a text"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of `text`, each with the bytes of `text` that it stands for.
    pub fn encode_with_offsets(
        &self,
        text: &str,
        add_special: bool,
    ) -> Result<(Vec<u32>, Offsets), TokenizerError> {
        if let Some(encoded) = self.by_words(text, add_special) {
            return Ok(encoded);
        }
        let encoding = self.inner.encode(text, add_special).map_err(failed("encode a text"))?;
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
    }

    fn by_words(&self, text: &str, add_special: bool) -> Option<(Vec<u32>, Offsets)> {
        self.words.as_ref()?.encode(&self.inner, text, add_special)
    }

    /// SHA-256 over all that the tokens of a text or a conversation depend on, but for the time.
    pub fn fingerprint(&self) -> String {
        let inner = self.inner.to_string(false).unwrap_or_default();
        let chat = self.chat.as_ref().map(|chat| (chat.source(), chat.tools_source()));
        let all = (inner, chat, &self.special, &self.eos);
        let digest = Sha256::digest(serde_json::to_vec(&all).unwrap_or_default());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The text of `ids`, with or without special tokens.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.inner.decode(ids, skip_special).map_err(failed("decode tokens"))
    }

    /// A decoder for tokens that come one at a time.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream { tokenizer: self, skip_special, pending: Vec::new(), printed: 0 }
    }

    /// The id of a token in the vocabulary's own spelling.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id in the vocabulary's own spelling.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that fills.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// Every token that ends an answer: first the tokenizer's own, then those of the model's
    /// configuration and the one its chat template ends a turn with.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// How many ids there are, those of added tokens among them.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The model's chat template.
    pub fn chat(&self) -> Option<&ChatTemplate> {
        self.chat.as_ref()
    }
}

/// Decodes tokens as they are generated. A character whose bytes are spread over several tokens comes out
/// when its last one has come in.
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The tokens since the last point at which text and tokens were even.
    pending: Vec<u32>,
    /// Bytes of the text of `pending` that are out already.
    printed: usize,
}

/// Tokens kept to decode new ones in context: spacing may depend on the one before.
const CONTEXT: usize = 8;

impl DecodeStream<'_> {
    /// Takes one token and returns the text that it completes, which can be empty.
    pub fn step(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.pending.push(id);
        let text = self.tokenizer.decode(&self.pending, self.skip_special)?;
        if text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        let new = text.get(self.printed..).unwrap_or_default().to_owned();
        self.printed = text.len();
        self.forget()?;
        Ok(new)
    }

    /// The rest, where generation stopped within a character.
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        let text = self.tokenizer.decode(&self.pending, self.skip_special)?;
        let new = text.get(self.printed..).unwrap_or_default().to_owned();
        self.printed = text.len();
        Ok(new)
    }

    /// Drops old tokens once there are many, so that each step stays short.
    fn forget(&mut self) -> Result<(), TokenizerError> {
        if self.pending.len() < 4 * CONTEXT {
            return Ok(());
        }
        let kept = self.pending.split_off(self.pending.len() - CONTEXT);
        let text = self.tokenizer.decode(&kept, self.skip_special)?;
        if text.starts_with('\u{fffd}') {
            // The cut is within a character: keep all for now.
            self.pending.extend(kept);
            return Ok(());
        }
        self.printed = text.len();
        self.pending = kept;
        Ok(())
    }
}

fn failed(what: &'static str) -> impl Fn(tokenizers::Error) -> TokenizerError {
    move |error| TokenizerError::Failed { what, reason: error.to_string() }
}
