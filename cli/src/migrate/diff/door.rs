//! Where a front door is.

use std::str::FromStr;

use anyhow::bail;

/// An address, for requests of one scheme or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorAddress {
    /// `http` or `https`; `None`: both.
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
}

impl FromStr for DoorAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected HOST[:PORT], http://HOST[:PORT] or https://HOST[:PORT], not {text:?}");
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme.to_owned()), rest.trim_end_matches('/')),
            Some(_) => return Err(expected()),
            None => (None, text),
        };
        if rest.is_empty() || rest.contains(['/', '@', '?', '#']) || rest.contains(char::is_whitespace) {
            return Err(expected());
        }
        let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0).ok_or_else(expected);
        // An IPv6 address stands in brackets, or alone.
        let (host, port) = match (rest.strip_prefix('['), rest.matches(':').count()) {
            (Some(rest), _) => match rest.split_once(']').ok_or_else(expected)? {
                (host, "") => (host, None),
                (host, tail) => (host, Some(port(tail.strip_prefix(':').ok_or_else(expected)?)?)),
            },
            (None, 1) => {
                let (host, number) = rest.split_once(':').ok_or_else(expected)?;
                (host, Some(port(number)?))
            }
            (None, _) => (rest, None),
        };
        if host.is_empty() {
            return Err(expected());
        }
        Ok(Self { scheme, host: host.to_owned(), port })
    }
}

/// A front door.
#[derive(Clone, Debug)]
pub struct Door {
    http: Option<(String, u16)>,
    https: Option<(String, u16)>,
}

impl Door {
    /// Out of the addresses that somebody gave.
    ///
    /// # Errors
    /// When two are for the same scheme.
    pub fn new(addresses: &[DoorAddress]) -> anyhow::Result<Self> {
        let mut door = Self { http: None, https: None };
        for address in addresses {
            for (scheme, default) in [("http", 80), ("https", 443)] {
                if address.scheme.as_deref().is_some_and(|only| only != scheme) {
                    continue;
                }
                let slot = if scheme == "http" { &mut door.http } else { &mut door.https };
                if slot.is_some() {
                    bail!("two addresses of one front door for {scheme}: give one, or http://… and https://…");
                }
                *slot = Some((address.host.clone(), address.port.unwrap_or(default)));
            }
        }
        Ok(door)
    }

    /// The address for a scheme.
    pub fn address(&self, scheme: &str) -> Option<(&str, u16)> {
        let found = if scheme == "https" { &self.https } else { &self.http };
        found.as_ref().map(|(host, port)| (host.as_str(), *port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_for_one_scheme_or_for_both() {
        let door = |texts: &[&str]| {
            let addresses: Vec<DoorAddress> = texts.iter().map(|text| text.parse().unwrap()).collect();
            Door::new(&addresses)
        };
        let both = door(&["10.0.0.1"]).unwrap();
        assert_eq!((both.address("http"), both.address("https")), (Some(("10.0.0.1", 80)), Some(("10.0.0.1", 443))));
        let one_port = door(&["[::1]:8443"]).unwrap();
        assert_eq!(one_port.address("http"), Some(("::1", 8443)));
        let apart = door(&["http://a:8080", "https://a:8443/"]).unwrap();
        assert_eq!((apart.address("http"), apart.address("https")), (Some(("a", 8080)), Some(("a", 8443))));
        assert_eq!(door(&["https://a"]).unwrap().address("http"), None);
        assert!(door(&["a", "https://b"]).is_err());
    }

    #[test]
    fn what_is_no_address_is_said() {
        for text in ["", "ftp://a", "a:b", "a:0", "http://", "http://a/b", "[::1", "[::1]x", ":80", "a b"] {
            assert!(text.parse::<DoorAddress>().is_err(), "{text}");
        }
        assert!("::1".parse::<DoorAddress>().is_ok());
    }
}
