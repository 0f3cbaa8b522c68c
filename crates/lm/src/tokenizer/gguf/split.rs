//! How text is cut before byte-level merges, by the name in `tokenizer.ggml.pre`.
//!
//! The patterns are those of the original `tokenizer.json` files.

use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split as SplitAt, SplitPattern};
use tokenizers::tokenizer::{SplitDelimiterBehavior, Tokenizer as Inner};

/// What comes before the merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    kind: Kind,
    /// A word that is a token as a whole is taken without looking at the merges.
    pub(super) ignore_merges: bool,
    /// Text is brought to Unicode's composed form first.
    nfc: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// GPT-2's own pattern.
    Gpt2,
    /// Each digit by itself, then GPT-2's pattern.
    Digits,
    /// A pattern that is found in the text.
    Pattern(&'static str),
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const fn plain(kind: Kind) -> Split {
    Split { kind, ignore_merges: false, nfc: false }
}

const WHOLE_WORDS: Split = Split { kind: Kind::Pattern(LLAMA3), ignore_merges: true, nfc: false };
const QWEN: Split = Split { kind: Kind::Pattern(QWEN2), ignore_merges: false, nfc: true };

/// Every name that is known. A table: one row for each.
const TABLE: [(&str, Split); 20] = [
    ("default", plain(Kind::Gpt2)),
    ("gpt-2", plain(Kind::Gpt2)),
    ("phi-2", plain(Kind::Gpt2)),
    ("olmo", plain(Kind::Gpt2)),
    ("smollm", plain(Kind::Digits)),
    ("starcoder", plain(Kind::Digits)),
    ("refact", plain(Kind::Digits)),
    ("command-r", plain(Kind::Digits)),
    ("llama3", WHOLE_WORDS),
    ("llama-v3", WHOLE_WORDS),
    ("llama-bpe", WHOLE_WORDS),
    ("falcon3", WHOLE_WORDS),
    ("pixtral", WHOLE_WORDS),
    ("smaug-bpe", plain(Kind::Pattern(LLAMA3))),
    ("dbrx", plain(Kind::Pattern(LLAMA3))),
    ("tekken", Split { kind: Kind::Pattern(TEKKEN), ignore_merges: true, nfc: false }),
    ("qwen2", QWEN),
    ("deepseek-r1-qwen", QWEN),
    ("megrez", QWEN),
    ("gpt-4o", plain(Kind::Pattern(GPT4O))),
];

/// The split of this name; without a name, the one that the architecture had when names were not written.
pub(super) fn find(name: Option<&str>, arch: &str) -> Option<Split> {
    let name = match (name, arch) {
        (Some(name), _) => name,
        (None, "qwen2" | "qwen3") => "qwen2",
        (None, _) => "default",
    };
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, split)| *split)
}

/// The names of all, for messages.
pub(super) fn known() -> String {
    TABLE.map(|(name, _)| name).join(", ")
}

impl Split {
    /// Sets normalizer and pre-tokenizer of `inner`.
    pub(super) fn install(self, inner: &mut Inner) -> tokenizers::Result<()> {
        if self.nfc {
            inner.with_normalizer(Some(NFC))?;
        }
        let bytes = |regex: bool| ByteLevel::default().add_prefix_space(false).use_regex(regex);
        let steps: Vec<PreTokenizerWrapper> = match self.kind {
            Kind::Gpt2 => vec![bytes(true).into()],
            Kind::Digits => vec![Digits::new(true).into(), bytes(true).into()],
            Kind::Pattern(pattern) => {
                let pattern = SplitPattern::Regex(pattern.to_owned());
                let split = SplitAt::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
                vec![split.into(), bytes(false).into()]
            }
        };
        inner.with_pre_tokenizer(Some(Sequence::new(steps)));
        Ok(())
    }
}
