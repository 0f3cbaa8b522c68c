//! Quantities as the API server writes them: what is written otherwise would never be found as it was asked
//! for.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Bytes in the shortest form without a fraction.
pub(super) fn bytes(bytes: u64) -> Quantity {
    let binary = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let decimal = [("T", 10_u64.pow(12)), ("G", 10_u64.pow(9)), ("M", 10_u64.pow(6)), ("k", 1000)];
    let all = binary.into_iter().chain(decimal);
    let mut exact = all.filter(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    Quantity(match exact.next() {
        Some((suffix, factor)) => format!("{}{suffix}", bytes / factor),
        None => bytes.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn as_the_api_server_writes_them() {
        for (number, text) in [
            (4 << 30, "4Gi"),
            (1536 << 20, "1536Mi"),
            (1_500_000_000, "1500M"),
            (1_500_000_001, "1500000001"),
            (1 << 10, "1Ki"),
            (1023, "1023"),
        ] {
            assert_eq!(bytes(number).0, text);
        }
    }
}
