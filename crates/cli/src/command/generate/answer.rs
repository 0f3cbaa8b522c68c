//! An answer as it grows, which ends before the first stop text. What might be the beginning of one
//! is held back until it is clear.

/// The text so far.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    stops: &'a [String],
    text: String,
    /// Bytes of the text that were handed out.
    shown: usize,
    complete: bool,
}

impl<'a> Answer<'a> {
    pub(super) fn new(stops: &'a [String]) -> Self {
        Self { stops, text: String::new(), shown: 0, complete: false }
    }

    /// Takes new text and returns what can be shown now.
    pub(super) fn push(&mut self, new: &str) -> &str {
        if !self.complete {
            self.text.push_str(new);
            let ends = self.stops.iter().filter(|stop| !stop.is_empty());
            if let Some(end) = ends.filter_map(|stop| self.text.find(stop.as_str())).min() {
                self.text.truncate(end);
                self.complete = true;
            }
        }
        let to = if self.complete { self.text.len() } else { self.text.len() - self.held_back() };
        let from = std::mem::replace(&mut self.shown, to);
        &self.text[from..to]
    }

    /// Takes the last text and returns all that was not shown.
    pub(super) fn finish(&mut self, rest: &str) -> &str {
        let from = self.shown;
        self.push(rest);
        self.shown = self.text.len();
        &self.text[from..]
    }

    /// Whether a stop text came.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// `stop` for a stop text or an end token, `length` where the answer was cut.
    pub(super) fn finish_reason(&self, tokens: usize, most: usize) -> &'static str {
        if !self.complete && tokens >= most { "length" } else { "stop" }
    }

    /// Bytes at the end that may be the beginning of a stop text; never more than are not shown yet.
    fn held_back(&self) -> usize {
        let most = self.text.len() - self.shown;
        let longest = |stop: &String| {
            let ends = stop.char_indices().map(|(index, _)| index).filter(|index| *index > 0);
            ends.rev().find(|end| self.text.ends_with(&stop[..*end])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_before_a_stop_text_that_comes_in_pieces() {
        let stops = ["\n\n".to_owned(), "END".to_owned()];
        let mut answer = Answer::new(&stops);
        assert_eq!(answer.push("one E"), "one ");
        assert_eq!(answer.push("ight E"), "Eight ");
        assert_eq!(answer.push("ND more"), "");
        assert!(answer.is_complete());
        assert_eq!(answer.finish("x"), "");
        assert_eq!(answer.text(), "one Eight ");
        assert_eq!(answer.finish_reason(4, 4), "stop");
    }

    #[test]
    fn what_was_held_back_comes_at_the_end() {
        let stops = ["\n\n".to_owned()];
        let mut answer = Answer::new(&stops);
        assert_eq!(answer.push("é\n"), "é");
        assert_eq!(answer.finish(""), "\n");
        assert_eq!(answer.finish_reason(2, 2), "length");
    }
}
