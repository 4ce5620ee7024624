//! Texts of annotations, read.

use ipnet::IpNet;

/// A time as controllers write it, a number of seconds or with units, as the Gateway API does (GEP-2257). `None` if it is none.
pub fn duration(text: &str) -> Option<String> {
    let milliseconds = match text.parse::<u64>() {
        Ok(seconds) => seconds.checked_mul(1000)?,
        Err(_) => u64::try_from(humantime::parse_duration(text).ok()?.as_millis()).ok()?,
    };
    if milliseconds == 0 {
        return Some("0s".to_owned());
    }
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let hours = seconds / 3600;
    if hours > 99_999 {
        return None;
    }
    // Seconds stay seconds as long as they may: that is what people know their timeouts by.
    let parts = if seconds <= 99_999 {
        [(0, "h"), (0, "m"), (seconds, "s"), (rest, "ms")]
    } else {
        [(hours, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (rest, "ms")]
    };
    Some(parts.into_iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}")).collect())
}

/// An address or a range of them, as a range.
pub fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

/// Whether a text has a variable of the proxy in it.
pub fn has_variable(text: &str) -> bool {
    text.contains('$')
}

/// Whether a text is a name that a host can have: lower case, no port, no address.
pub fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label) && text.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_gateway_api() {
        for (text, made) in [
            ("60", Some("60s")),
            ("3600", Some("3600s")),
            ("50s", Some("50s")),
            ("1h", Some("3600s")),
            ("1500ms", Some("1s500ms")),
            ("123456", Some("34h17m36s")),
            ("0", Some("0s")),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(duration(text).as_deref(), made, "{text}");
        }
    }
}
