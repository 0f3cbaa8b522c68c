//! Numbers as people write them.

/// Rounds to two significant digits.
pub(super) fn two_digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    // Through text, so that 0.0012 is the double nearest to 0.0012.
    format!("{value:.1e}").parse().unwrap_or(value)
}

/// The largest power of two that is not above `value`, and at least 1.
pub(super) fn power_of_two(value: u64) -> u64 {
    1 << value.max(1).ilog2()
}

/// `1,234,567`.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in GB or MB.
pub(crate) fn bytes(value: u64) -> String {
    match value {
        0..1_000_000_000 => format!("{:.0} MB", value as f64 / 1e6),
        _ => format!("{:.1} GB", value as f64 / 1e9),
    }
}
