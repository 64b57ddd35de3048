//! What a scalar without quotes means in YAML.

/// What a YAML 1.1 or 1.2 reader takes for null, a boolean or a number. Kubernetes reads 1.1, where `yes` is true.
pub(super) fn reads_as_other_than_text(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    matches!(
        lower.as_str(),
        "" | "~" | "null" | "true" | "false" | "yes" | "no" | "on" | "off" | ".nan"
    ) || is_number(lower.strip_prefix(['+', '-']).unwrap_or(&lower))
}

/// A number without its sign, in lower case: decimal, float, `0x`, `0o`, `0b`, infinity.
fn is_number(text: &str) -> bool {
    let digits = |text: &str, radix: u32| {
        !text.is_empty() && text.chars().all(|c| c.is_digit(radix) || c == '_') && text != "_"
    };
    match text.get(..2) {
        Some("0x") => digits(&text[2..], 16),
        Some("0o") => digits(&text[2..], 8),
        Some("0b") => digits(&text[2..], 2),
        _ if text == ".inf" => true,
        // Rust also reads "inf", "nan" and "infinity" as floats; YAML does not.
        _ => text.starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.parse::<f64>().is_ok(),
    }
}
