//! Text of an answer as its tokens come in, up to the first of the texts that end it.

use lm::tokenizer::{DecodeStream, Tokenizer, TokenizerError};

/// The text of one answer.
#[derive(Debug)]
pub(crate) struct TextStream<'a> {
    decoder: DecodeStream<'a>,
    stops: &'a [String],
    /// Came in, and could be the beginning of a text that ends the answer.
    held: String,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, stops: &'a [String]) -> Self {
        let decoder = tokenizer.decode_stream(true);
        Self { decoder, stops, held: String::new(), stopped: false }
    }

    /// Whether one of the texts that end the answer has come.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Takes a token and returns the text that is certain now.
    pub(crate) fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        let text = self.decoder.step(id)?;
        Ok(self.take(&text))
    }

    /// The rest, when no token follows.
    pub(crate) fn finish(&mut self) -> Result<String, TokenizerError> {
        let text = self.decoder.finish()?;
        let mut last = self.take(&text);
        if !self.stopped {
            last.push_str(&std::mem::take(&mut self.held));
        }
        Ok(last)
    }

    fn take(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(end) = found {
            self.stopped = true;
            self.held.truncate(end);
            return std::mem::take(&mut self.held);
        }
        let kept = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }
}

/// Bytes at the end of `text` with which `stop` begins.
fn overlap(text: &str, stop: &str) -> usize {
    let starts = stop.char_indices().map(|(index, _)| index).skip(1);
    starts.filter(|length| text.ends_with(&stop[..*length])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn pushed(stops: &[&str], text: &str) -> (String, bool) {
        let folder = tempfile::tempdir().unwrap();
        testkit::tiny_model::write(folder.path(), 1).unwrap();
        let files = lm::files::ModelFiles::open(folder.path()).unwrap();
        let tokenizer = Tokenizer::open(&files).unwrap();
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut stream = TextStream::new(&tokenizer, &stops);
        let mut all = String::new();
        for id in tokenizer.encode(text, false).unwrap() {
            all.push_str(&stream.push(id).unwrap());
            assert!(text.starts_with(&all) && !stops.iter().any(|stop| all.contains(stop)));
        }
        all.push_str(&stream.finish().unwrap());
        (all, stream.is_stopped())
    }

    #[test]
    fn an_answer_ends_before_the_first_stop() {
        assert_eq!(pushed(&["\n\n", "END"], "a\nb EN\n\nEND"), ("a\nb EN".to_owned(), true));
        assert_eq!(pushed(&["ab"], "aab"), ("a".to_owned(), true));
        assert_eq!(pushed(&["xyz"], "xyxy"), ("xyxy".to_owned(), false));
        assert_eq!(pushed(&[], "äöü €"), ("äöü €".to_owned(), false));
        assert_eq!(pushed(&["ö"], "äöü"), ("ä".to_owned(), true));
    }
}
