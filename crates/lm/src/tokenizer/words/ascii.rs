//! Two regular expressions, written out for the ASCII part of a text: GPT-2's, and the one that Llama 3 and Qwen 2
//! cut by. A match depends on its own letters and at most on the one that follows, so that what reaches a letter
//! beyond ASCII is left to the expression itself.

/// What an expression cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    Gpt2,
    /// Words take a sign in front of them, punctuation the ends of lines behind it; `digits` of a number at once.
    Llama3 {
        digits: usize,
    },
}

/// What `ByteLevel` uses where its description names no expression.
pub(super) const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    /// White space other than the ends of lines.
    Blank,
    Line,
    Sign,
    Beyond,
}

use Class::{Beyond, Blank, Digit, Letter, Line, Sign};

const CLASSES: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut all = [Sign; 256];
    let mut byte = 0;
    while byte < 256 {
        all[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Letter,
            b'0'..=b'9' => Digit,
            b'\n' | b'\r' => Line,
            b'\t' | 0x0b | 0x0c | b' ' => Blank,
            0x80..=0xff => Beyond,
            _ => Sign,
        };
        byte += 1;
    }
    all
}

impl Grammar {
    /// The grammar of an expression, where it is one of these.
    pub(super) fn of(expression: &str) -> Option<Self> {
        match expression {
            GPT2 => Some(Self::Gpt2),
            LLAMA3 => Some(Self::Llama3 { digits: 3 }),
            QWEN2 => Some(Self::Llama3 { digits: 1 }),
            _ => None,
        }
    }

    /// Where the match that begins at `at` ends; none where letters beyond ASCII have a say in it. A text that
    /// ends decides as well as a letter does.
    pub(super) fn end(self, text: &[u8], at: usize) -> Option<usize> {
        let text = Text(text);
        let end = match self {
            Self::Gpt2 => text.gpt2(at),
            Self::Llama3 { digits } => text.llama3(at, digits),
        }?;
        // The next letter has ended it.
        (text.class(end) != Some(Beyond)).then_some(end)
    }
}

#[derive(Clone, Copy)]
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn class(self, at: usize) -> Option<Class> {
        self.0.get(at).map(|byte| CLASSES[usize::from(*byte)])
    }

    /// The end of a run of one kind.
    fn run(self, at: usize, is_in: impl Fn(Class) -> bool) -> usize {
        let rest = self.0.get(at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !is_in(CLASSES[usize::from(*byte)]));
        at + length.unwrap_or(rest.len())
    }

    /// The end of `'s` and its like.
    fn contraction(self, at: usize, fold: bool) -> Option<usize> {
        let letter = |at: usize| {
            let byte = *self.0.get(at)?;
            Some(if fold { byte.to_ascii_lowercase() } else { byte })
        };
        match (letter(at + 1)?, letter(at + 2)) {
            (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
            (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(at + 3),
            _ => None,
        }
    }

    /// All white space, but for the last of it where something follows, unless it is all there is.
    fn space(self, at: usize) -> Option<usize> {
        let end = self.run(at, |class| matches!(class, Blank | Line));
        match self.class(end) {
            Some(Beyond) => None,
            Some(_) if end - at > 1 => Some(end - 1),
            _ => Some(end),
        }
    }

    fn gpt2(self, at: usize) -> Option<usize> {
        if self.0[at] == b'\''
            && let Some(end) = self.contraction(at, false)
        {
            return Some(end);
        }
        let first = if self.0[at] == b' ' { at + 1 } else { at };
        match self.class(first) {
            Some(kind @ (Letter | Digit | Sign)) => Some(self.run(first, |class| class == kind)),
            Some(Beyond) => None,
            Some(Blank | Line) | None => self.space(at),
        }
    }

    fn llama3(self, at: usize, digits: usize) -> Option<usize> {
        if self.0[at] == b'\'' {
            // `ſ` is an `s` where case does not count.
            if self.class(at + 1) == Some(Beyond) {
                return None;
            }
            if let Some(end) = self.contraction(at, true) {
                return Some(end);
            }
        }
        let letters = |at: usize| self.run(at, |class| class == Letter);
        let signs = |at: usize| {
            let end = self.run(at, |class| class == Sign);
            if self.class(end) == Some(Beyond) { end } else { self.run(end, |class| class == Line) }
        };
        let next = self.class(at + 1);
        match self.class(at)? {
            Beyond => None,
            Letter => Some(letters(at)),
            Digit => Some(self.run(at, |class| class == Digit).min(at + digits)),
            Sign | Blank if next == Some(Letter) => Some(letters(at + 1)),
            Sign | Blank if next == Some(Beyond) => None,
            Sign => Some(signs(at)),
            Blank if self.0[at] == b' ' && next == Some(Sign) => Some(signs(at + 1)),
            Blank | Line => {
                let end = self.run(at, |class| matches!(class, Blank | Line));
                if self.class(end) == Some(Beyond) {
                    return None;
                }
                let lines = self.0[at..end].iter().rposition(|byte| matches!(byte, b'\n' | b'\r'));
                lines.map_or_else(|| self.space(at), |last| Some(at + last + 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokenizers::utils::SysRegex;

    use super::*;

    /// Every text of up to five of these letters, at the start and after a word.
    #[test]
    fn matches_are_those_of_the_expressions() {
        let letters = ["a", "S", "'", "7", " ", "\n", "\r", "\t", "\u{b}", ".", "\u{1c}", "é", "ſ"];
        for expression in [GPT2, LLAMA3, QWEN2] {
            let regex = SysRegex::new(expression).unwrap();
            let grammar = Grammar::of(expression).unwrap();
            for number in 0..letters.len().pow(5) {
                let part = |place: u32| letters[number / letters.len().pow(place) % letters.len()];
                let text: String = (0..5).map(part).collect();
                for (start, end) in regex.find_iter(&text) {
                    if let Some(found) = grammar.end(text.as_bytes(), start) {
                        assert_eq!(found, end, "{expression}: {text:?} at {start}");
                    } else {
                        assert!(!text.is_ascii(), "{expression}: {text:?} at {start}");
                    }
                }
            }
        }
    }

    #[test]
    fn contractions_and_numbers_are_cut_as_they_should() {
        let cut = |grammar: Grammar, text: &str| -> Vec<String> {
            let (mut at, mut parts) = (0, Vec::new());
            while at < text.len() {
                let end = grammar.end(text.as_bytes(), at).unwrap();
                parts.push(text[at..end].to_owned());
                at = end;
            }
            parts
        };
        let text = "WE'RE here, they're 12345 (x)\n\n  end ";
        let words = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            cut(Grammar::Gpt2, text),
            words("WE|'|RE| here|,| they|'re| 12345| (|x|)|\n\n | end| ")
        );
        assert_eq!(
            cut(Grammar::Llama3 { digits: 3 }, text),
            words("WE|'RE| here|,| they|'re| |123|45| (|x|)\n\n| | end| ")
        );
    }
}
