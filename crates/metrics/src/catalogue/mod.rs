//! All families of all components.

pub mod agent;
pub mod ca;
pub mod controller;
pub mod everywhere;
pub mod istio;
pub mod kube;
pub mod proxy;

use crate::family::{Component, Family};

/// Declares families of some components, and a list of them.
macro_rules! catalogue {
    ($components:expr; $($constant:ident = $kind:ident $unit:ident $name:literal [$($labels:expr),*], $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $constant: $crate::family::Family = $crate::family::Family {
                name: $name,
                kind: $crate::family::Kind::$kind,
                unit: $crate::family::Unit::$unit,
                labels: &[$($labels),*],
                help: $help,
                components: $components,
            };
        )+

        /// All of them.
        pub static ALL: &[&$crate::family::Family] = &[$(&$constant,)+];
    };
}
pub(crate) use catalogue;

/// Every metric there is, component by component.
pub fn families() -> impl Iterator<Item = &'static Family> {
    [proxy::ALL, istio::ALL, controller::ALL, ca::ALL, agent::ALL, kube::ALL, everywhere::ALL]
        .into_iter()
        .flat_map(|list| list.iter().copied())
}

/// Those that a component has; the proxy's with those that are there only where they were asked for.
pub fn of(component: Component) -> impl Iterator<Item = &'static Family> {
    families().filter(move |family| family.components.contains(&component))
}

/// The one of that name, as a page has it.
pub fn find(name: &str) -> Option<&'static Family> {
    families().find(|family| family.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::family::{Kind, Unit};

    #[test]
    fn names_are_distinct() {
        let names: HashSet<_> = families().map(|family| family.name).collect();
        assert_eq!(names.len(), families().count());
        // OpenMetrics names families of counters without it.
        let bases: HashSet<_> = names.iter().map(|name| name.strip_suffix("_total").unwrap_or(name)).collect();
        assert_eq!(bases.len(), names.len());
        assert!(find("weft_http_requests_total").is_some_and(|family| *family == proxy::HTTP_REQUESTS));
    }

    /// The rules of `promtool check metrics`, and OpenMetrics', which wants `_total` and units at the end.
    #[test]
    fn names_and_helps_follow_the_conventions() {
        for family in families() {
            let Family { name, kind, unit, help, components, .. } = *family;
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert!(!components.is_empty(), "{name}: nobody has it");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\', '"']) && help.len() > 4, "{name}: {help}");
            let base = name.strip_suffix("_total").unwrap_or(name);
            // Limits of bytes count bytes; their unit is before the word.
            let named =
                [Unit::Milliseconds, Unit::Seconds, Unit::Bytes].into_iter().find(|it| base.ends_with(it.as_str()));
            assert!(named.is_none_or(|it| it == unit), "{name}: its name says another unit");
            assert!(
                unit == Unit::None || named == Some(unit) || base.contains(unit.as_str()),
                "{name}: its name says no unit"
            );
            for word in
                ["_counter", "_gauge", "_histogram", "_bucket", "_count", "_sum", "minutes", "hours", "kilobytes"]
            {
                assert!(!base.ends_with(word), "{name}: ends with {word}");
            }
        }
    }

    #[test]
    fn labels_are_distinct_and_none_is_of_a_clients_choice() {
        const NEVER: [&str; 11] =
            ["path", "host", "authority", "url", "uri", "method", "user_agent", "header", "query", "ip", "client"];
        for family in families() {
            let labels: Vec<_> = family.label_names().collect();
            let distinct: HashSet<_> = labels.iter().collect();
            assert_eq!(distinct.len(), labels.len(), "{}", family.name);
            for label in labels {
                assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{label}");
                assert!(!NEVER.contains(&label) && label != "le" && label != "quantile", "{}: {label}", family.name);
            }
        }
    }
}
