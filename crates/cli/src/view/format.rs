//! Numbers as people read them.

/// `134,515,008`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.2 GB`, in decimal units.
pub(crate) fn bytes(value: u64) -> String {
    let value = value as f64;
    match value {
        value if value >= 1e9 => format!("{:.1} GB", value / 1e9),
        value if value >= 1e6 => format!("{:.0} MB", value / 1e6),
        value if value >= 1e3 => format!("{:.0} kB", value / 1e3),
        value => format!("{value} bytes"),
    }
}

/// `42 s`, `3 min 20 s` or `2 h 05 min`.
pub(crate) fn seconds(value: f64) -> String {
    let whole = value.max(0.0).round() as u64;
    match whole {
        0..=9 => format!("{value:.1} s"),
        10..=119 => format!("{whole} s"),
        120..=7199 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A bar of at most `width` characters for `share` between 0 and 1.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut text = "█".repeat(eighths / 8);
    if let Some(part) = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8) {
        text.push_str(part);
    }
    text
}

/// The first line of a text, cut to a number of characters.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    let kept: String = line.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_scaled() {
        assert_eq!(count(7), "7");
        assert_eq!(count(134_515_008), "134,515,008");
        assert_eq!(bytes(1_234_000_000), "1.2 GB");
        assert_eq!(bytes(98_400_000), "98 MB");
        assert_eq!(seconds(4.25), "4.2 s");
        assert_eq!(seconds(200.0), "3 min 20 s");
        assert_eq!(seconds(7_500.0), "2 h 05 min");
    }

    #[test]
    fn bars_and_short_texts_keep_to_their_width() {
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(1.0, 3), "███");
        assert_eq!(bar(0.0, 3), "");
        assert_eq!(shorten("one\ntwo  three", 20), "one two three");
        assert_eq!(shorten("abcdef", 4), "abc…");
    }
}
