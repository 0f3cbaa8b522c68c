//! The shorter way to tokens, held against the `tokenizers` crate on texts that are hard in every combination.

use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;

use super::fixture;

/// What is hard about a text.
const PARTS: [&str; 40] = [
    "a",
    "Hello",
    "don't",
    "WE'RE",
    "'s",
    " the",
    "  two",
    "\n",
    "\r\n",
    "\n\n",
    "\t",
    " ",
    "   ",
    "7",
    "1234",
    "³",
    "½",
    "é",
    "e\u{301}",
    "日本",
    "🦀",
    "👩‍👩‍👧",
    "\u{a0}",
    "\u{2003}",
    "\u{85}",
    "_",
    "--",
    "...",
    "!?",
    "(x)",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<tool_call>",
    "<|im_",
    "|>",
    "\u{0}",
    "ſ",
    "ﬁ",
    "ß",
];

/// Always the same ones.
fn texts() -> impl Iterator<Item = String> {
    let mut state = 1_u64;
    let mut next = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    (0..3000).map(move |_| (0..next(12)).map(|_| PARTS[next(PARTS.len())]).collect())
}

#[test]
fn tokens_and_spans_are_those_of_the_tokenizers_crate() {
    for name in ["gpt2", "smollm", "llama_bpe", "qwen2", "nemo", "spm"] {
        let path = fixture(&format!("tokenizers/{name}.gguf"));
        let ours = Tokenizer::open(&ModelFiles::Gguf(path)).unwrap();
        let files = ours.to_files(2048).unwrap();
        let theirs = ::tokenizers::Tokenizer::from_bytes(&files["tokenizer.json"]).unwrap();
        for text in texts() {
            for special in [false, true] {
                let expected = theirs.encode(text.as_str(), special).unwrap();
                let (ids, spans) = ours.encode_with_offsets(&text, special).unwrap();
                assert_eq!(ids, expected.get_ids(), "{name}: {text:?}");
                assert_eq!(spans, expected.get_offsets(), "{name}: {text:?}");
                assert_eq!(ours.encode(&text, special).unwrap(), ids, "{name}: {text:?}");
            }
        }
    }
}
