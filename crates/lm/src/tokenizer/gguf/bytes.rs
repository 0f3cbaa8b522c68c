//! The alphabet of byte-level BPE: GPT-2's table that gives each byte a printable character.

/// The character that stands for `byte`.
fn character(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    // The others follow from 256 on, in their order.
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(256 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// `token` as it is if it is spelled in the alphabet, else its bytes in the alphabet.
pub(super) fn respelled(token: &str) -> String {
    let spelled = token.chars().all(|found| match u32::from(found) {
        code @ 0..=0xff => character(code as u8) == found,
        code => code < 256 + 68,
    });
    if spelled { token.to_owned() } else { token.bytes().map(character).collect() }
}
