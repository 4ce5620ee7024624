//! Names of what is made for a Gateway in a cluster (GEP-1762).

/// Longest name of a Service, and longest value of a label.
const LONGEST: usize = 63;
/// Digits of a hash in a name, with the dash before them.
const TAG: usize = 11;

/// The name of the Deployment, the Service and the ServiceAccount of a Gateway: `<gateway>-<class>`, as it is if it can be
/// the name of a Service (RFC 1035, at most 63 characters), else cut and with a hash of both names at its end.
pub fn object_name(gateway: &str, class: &str) -> String {
    let whole = format!("{gateway}-{class}");
    if whole.len() <= LONGEST && is_service_name(&whole) {
        return whole;
    }
    // A slash is in neither of the two names: "a" of "b-c" and "a-b" of "c" have different hashes.
    let tag = tag(&format!("{gateway}/{class}"));
    let mut name: String = whole.chars().map(|c| if c == '.' { '-' } else { c }).collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert_str(0, "gw-");
    }
    format!("{}-{tag}", cut(&name))
}

/// The name of another object of the same kind: `<name>-<suffix>`, shortened as [`object_name`] does.
pub fn further_name(name: &str, suffix: &str) -> String {
    let whole = format!("{name}-{suffix}");
    if whole.len() <= LONGEST { whole } else { format!("{}-{}", cut(name), tag(&whole)) }
}

/// The name of an object as the value of a label: as it is if that is short enough, else cut and with its hash at the end.
pub fn label_value(name: &str) -> String {
    if name.len() <= LONGEST { name.to_owned() } else { format!("{}-{}", cut(name), tag(name)) }
}

/// The beginning, so short that a tag has room behind it; it doesn't end with what may not stand there.
fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(LONGEST - TAG)).unwrap_or_default().trim_end_matches(['-', '.'])
}

/// FNV-1a. It tells the names of one namespace apart; whoever makes two that collide gets in nobody's way but their own.
fn tag(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{:010x}", hash >> 24)
}

fn is_service_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_can_be_a_service_is_kept_and_others_are_told_apart_by_a_hash() {
        assert_eq!(object_name("web", "weft"), "web-weft");
        let longest = "a".repeat(58);
        assert_eq!(object_name(&longest, "weft"), format!("{longest}-weft"));
        let names = [
            object_name(&"a".repeat(59), "weft"),
            object_name(&"a".repeat(253), "weft"),
            object_name(&format!("{}b", "a".repeat(252)), "weft"),
            object_name("my.gateway.x", "weft"),
            object_name("my-gateway.x", "weft"),
            object_name("1st", "weft"),
            object_name("web", "weft.example.com"),
            object_name(&format!("{}-{}", "a".repeat(51), "b".repeat(20)), "weft"),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(is_service_name(name) && name.len() <= LONGEST && !name.contains("--"), "{name}");
            assert!(!names[..at].contains(name), "{name}");
        }
        assert_eq!(object_name("my.gateway", "weft"), object_name("my.gateway", "weft"));
        assert_ne!(object_name("a.a", "b-c"), object_name("a.a-b", "c"));
    }

    #[test]
    fn further_names_and_labels_are_short_enough_too() {
        assert_eq!((further_name("web-weft", "2"), label_value("web.shop")), ("web-weft-2".into(), "web.shop".into()));
        let long = "a".repeat(62);
        assert_ne!(further_name(&long, "2"), further_name(&long, "3"));
        assert!(further_name(&long, "2").len() <= LONGEST);
        let (one, other) = (label_value(&format!("{}x", "a".repeat(100))), label_value(&"a".repeat(101)));
        assert!(one != other && one.len() <= LONGEST && other.len() <= LONGEST);
    }
}
