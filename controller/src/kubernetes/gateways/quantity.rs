//! Quantities as Kubernetes writes them: `1000m` is `1`, `1024Mi` is `1Gi`.

use serde_json::Value;

/// Decimal places that count; the API server rounds up what is less.
const PLACES: u32 = 9;

/// Billionths of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(i128);

impl Quantity {
    /// Reads one, also a number; `None` if it isn't one, or larger than what the API server takes.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (base, exponent) = scale(suffix)?;
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("0{whole}{fraction}").parse::<i128>().ok()?;
        let scaled = if base == 2 { digits.checked_mul(2_i128.checked_pow(exponent.unsigned_abs())?)? } else { digits };
        let tens = if base == 2 { 0 } else { exponent };
        let places = i32::try_from(PLACES).ok()?.checked_add(tens)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let by = 10_i128.checked_pow(places.unsigned_abs())?;
        let billionths = if places < 0 {
            (scaled / by).checked_add(i128::from(scaled % by != 0))?
        } else {
            scaled.checked_mul(by)?
        };
        Some(Self(if negative { -billionths } else { billionths }))
    }
}

/// What a suffix stands for: a power of two or of ten.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    let found = match suffix {
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "" => (10, 0),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        _ => (10, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_amount_is_the_same_however_it_is_written() {
        for (one, other) in [
            (json!("1000m"), json!("1")),
            (json!("1000m"), json!(1)),
            (json!("0.5"), json!("500m")),
            (json!(0.5), json!(".5")),
            (json!("1."), json!("+1")),
            (json!("1024Mi"), json!("1Gi")),
            (json!("1.5Gi"), json!("1536Mi")),
            (json!("1Ki"), json!("1024")),
            (json!("1k"), json!("1000")),
            (json!("1E"), json!("1e18")),
            (json!("1E3"), json!("1e3")),
            (json!("1500e-3"), json!("1.5")),
            (json!("1u"), json!("1000n")),
            (json!("1.50000000000000000000000000000000000000000"), json!("1500m")),
            // Rounded up, as the API server does.
            (json!("0.1n"), json!("1n")),
            (json!("-1000m"), json!("-1")),
            (json!("0"), json!("0Gi")),
            (json!("8Ei"), json!("8192Pi")),
        ] {
            let (of_one, of_other) = (Quantity::of(&one), Quantity::of(&other));
            assert!(of_one.is_some() && of_one == of_other, "{one} {other}: {of_one:?} {of_other:?}");
        }
    }

    #[test]
    fn other_amounts_are_others() {
        for (one, other) in [("1", "2"), ("1Gi", "1G"), ("1m", "1M"), ("1", "-1"), ("100m", "100")] {
            assert_ne!(Quantity::parse(one), Quantity::parse(other), "{one} {other}");
        }
    }

    #[test]
    fn what_isnt_a_quantity_is_none() {
        let long = "9".repeat(60);
        let more = [
            "",
            "-",
            ".",
            "1.2.3",
            "1x",
            "1 Gi",
            "Gi",
            "1e",
            "1e1.5",
            "1mi",
            "1e400",
            "1e-2147483648",
            "--1",
            "1-",
            "ä",
        ];
        for text in more.into_iter().chain([long.as_str()]) {
            assert_eq!(Quantity::parse(text), None, "{text:?}");
        }
        for value in [json!(null), json!(true), json!([1]), json!({})] {
            assert_eq!(Quantity::of(&value), None, "{value}");
        }
    }
}
