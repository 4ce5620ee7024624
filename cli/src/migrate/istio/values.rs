//! Values of Istio's AuthorizationPolicies as those of Weft: exactly, or not at all.

use ipnet::IpNet;
use weft_core::normalize;

use super::context::Options;

/// A value here, or why it can't be said.
pub type Converted = Result<String, String>;

fn no<T>(why: &str) -> Result<T, String> {
    Err(why.to_owned())
}

/// Checks for one `*` at an end at most; the text without it.
fn literal(text: &str) -> Result<&str, String> {
    let inner = text.strip_prefix('*').or(text.strip_suffix('*')).unwrap_or(text);
    match inner.contains('*') || text.is_empty() {
        true => no("is empty, or has a * that is not at an end"),
        false => Ok(inner),
    }
}

/// A text that both compare alike.
pub fn glob(text: &str) -> Converted {
    literal(text).map(|_| text.to_owned())
}

/// A principal: the trust domain becomes Weft's where it is Istio's own.
pub fn identity(text: &str, options: &Options) -> Converted {
    literal(text)?;
    if text.starts_with('*') {
        return Ok(text.to_owned());
    }
    if text.contains("://") {
        return no("Istio's principals have no spiffe://: Istio never matched it");
    }
    let Some((domain, rest)) = text.split_once('/') else {
        return no("doesn't say which trust domain it is of");
    };
    let own = domain == "cluster.local" || options.istio_trust_domains.iter().any(|it| it == domain);
    match own {
        true => Ok(format!("{}/{rest}", options.trust_domain)),
        false => Err(format!("is of trust domain {domain}, of which --istio-trust-domain says nothing")),
    }
}

/// `namespace/name` or `name` of a ServiceAccount, of whatever trust domain.
pub fn service_account(text: &str, own: &str) -> Converted {
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    let legal = |part: &str| !part.is_empty() && !part.contains(['*', '/']);
    match legal(namespace) && legal(name) {
        true => Ok(format!("*/ns/{namespace}/sa/{name}")),
        false => no("is not a ServiceAccount"),
    }
}

/// An address or a range.
pub fn address(text: &str) -> Converted {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    net.map_or_else(|| no("is neither an address nor a range"), |_| Ok(text.to_owned()))
}

/// A host; that of any port is the host here, where ports aren't looked at.
pub fn host(text: &str) -> Converted {
    let text = text.strip_suffix(":*").unwrap_or(text);
    literal(text)?;
    match text.contains([':', '/']) {
        true => no("has a port: hosts are compared without"),
        false => Ok(text.to_ascii_lowercase()),
    }
}

/// A port.
pub fn port(text: &str) -> Converted {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(text.to_owned()),
        _ => no("is not a port"),
    }
}

/// A method; only capitals are one.
pub fn method(text: &str) -> Converted {
    literal(text)?;
    match text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => no("is not upper case: no request has such a method"),
        false => Ok(text.to_owned()),
    }
}

/// A path in the form that requests have here when they are judged.
pub fn path(text: &str) -> Converted {
    if text.contains(['{', '}']) {
        return no("is a template of paths");
    }
    let inner = literal(text)?;
    if !text.starts_with(['/', '*']) || text.contains(['?', '#']) {
        return no("is not the path of a request");
    }
    // What comes before an end of a path can begin anywhere.
    let whole = if inner.starts_with('/') { inner.to_owned() } else { format!("/x{inner}") };
    match normalize::path(&whole) {
        Ok(normal) if normal.text == whole && !normal.ambiguous => Ok(text.to_owned()),
        _ => no("is not normalised: no request has such a path when it is judged here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            root: "istio-system".into(),
            mesh: "weft-system".into(),
            trust_domain: "weft.example".into(),
            istio_trust_domains: vec!["td.example".into()],
            cluster_domain: "cluster.local".into(),
        }
    }

    #[test]
    fn the_trust_domain_of_istio_becomes_that_of_weft_and_no_other_does() {
        for (text, want) in [
            ("cluster.local/ns/shop/sa/web", Some("weft.example/ns/shop/sa/web")),
            ("td.example/ns/shop/*", Some("weft.example/ns/shop/*")),
            ("*/ns/shop/sa/web", Some("*/ns/shop/sa/web")),
            ("*", Some("*")),
            ("other.example/ns/shop/sa/web", None),
            ("spiffe://cluster.local/ns/shop/sa/web", None),
            ("cluster*", None),
            ("cluster.local/ns/*/sa/web", None),
            ("", None),
        ] {
            assert_eq!(identity(text, &options()).ok().as_deref(), want, "{text}");
        }
    }

    #[test]
    fn paths_that_are_never_judged_are_no_conditions() {
        for (text, want) in [
            ("/api/*", true),
            ("/", true),
            ("*", true),
            ("*.js", true),
            ("*/info", true),
            ("/a%20b", true),
            ("/a//b", false),
            ("/a/../b", false),
            ("/%61", false),
            ("/a%2fb", false),
            ("/{*}/x", false),
            ("api", false),
            ("/a*b*", false),
            ("/a?b", false),
        ] {
            assert_eq!(path(text).is_ok(), want, "{text}");
        }
    }

    #[test]
    fn hosts_ports_methods_and_accounts() {
        assert_eq!(host("A.com:*").as_deref(), Ok("a.com"));
        assert!(host("a.com:8080").is_err());
        assert!(port("0").is_err() && port("http").is_err() && port("80").is_ok());
        assert!(method("get").is_err() && method("GE*").is_ok());
        assert_eq!(service_account("web", "shop").as_deref(), Ok("*/ns/shop/sa/web"));
        assert!(service_account("a/b/c", "shop").is_err());
        assert!(address("10.0.0.0/8").is_ok() && address("10.0.0").is_err());
    }
}
