//! Kubernetes quantities: `500m`, `1.5`, `64Mi`, `1G`, `1e3`.

use super::field::{Field, FieldError};

/// Whole units, a fraction rounded up as Kubernetes does: bytes of memory or storage.
pub(crate) fn whole(field: &Field<'_>) -> Result<i64, FieldError> {
    read(field, 1)
}

/// Thousandths: CPU.
pub(crate) fn milli(field: &Field<'_>) -> Result<i64, FieldError> {
    read(field, 1000)
}

const RULE: &str =
    "is not a quantity (a number >= 0 with an optional suffix: m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei)";

fn read(field: &Field<'_>, scale: i128) -> Result<i64, FieldError> {
    let text = field.scalar()?;
    parse(&text, scale).ok_or_else(|| field.invalid(&text, RULE))
}

/// `text` times `scale`, rounded up; none if it is not a quantity or does not fit.
fn parse(text: &str, scale: i128) -> Option<i64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    // 21 digits and the largest factor still fit 128 bits.
    if digits.is_empty() || digits.len() > 21 || fraction.contains('.') {
        return None;
    }
    let (times, over) = factor(suffix)?;
    let dividend = digits
        .parse::<i128>()
        .ok()?
        .checked_mul(times)?
        .checked_mul(scale)?;
    let divisor = 10_i128
        .checked_pow(u32::try_from(fraction.len()).ok()?)?
        .checked_mul(over)?;
    let rounded_up = dividend.checked_add(divisor - 1)? / divisor;
    i64::try_from(rounded_up).ok()
}

/// The suffix as a fraction.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| (1_i128 << (10 * power), 1);
    let decimal = |power: u32| (10_i128.pow(power), 1);
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => return exponent(suffix),
    })
}

/// `e3`, `E-2`.
fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let factor = 10_i128.checked_pow(power.unsigned_abs())?;
    match power {
        -18..0 => Some((1, factor)),
        0..=18 => Some((factor, 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn quantities_are_what_kubernetes_reads() {
        let cases = [
            ("1", 1000),
            ("500m", 500),
            ("0.5", 500),
            (".5", 500),
            ("1.", 1000),
            ("1.0005", 1001),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("5E-1", 500),
            ("0", 0),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse(text, 1000), Some(wanted), "{text}");
        }
        assert_eq!(parse("1Gi", 1), Some(1 << 30));
        assert_eq!(parse("1.5Gi", 1), Some(3 << 29));
        assert_eq!(parse("100m", 1), Some(1));
        assert_eq!(parse("7Ei", 1), Some(7 << 60));
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "", "-1", "+1", "1gi", "Gi", ".", "1.2.3", "8Ei", "1e99", "1e-99", "1 Gi", "0x10", "e3", "1ee3",
        ] {
            assert_eq!(parse(text, 1), None, "{text}");
        }
        assert_eq!(parse(&"9".repeat(40), 1), None);
    }
}
