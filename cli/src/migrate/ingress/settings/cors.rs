//! Cross-origin requests: the filter `CORS` with the defaults of the controller that had them before.

use serde_json::{Value, json};

use crate::migrate::ingress::annotations::Annotations;
use crate::migrate::ingress::class::Controller;

use super::text::duration;

const PARTS: [(&str, &str); 6] = [
    ("cors-allow-origin", "allowOrigins"),
    ("cors-allow-methods", "allowMethods"),
    ("cors-allow-headers", "allowHeaders"),
    ("cors-expose-headers", "exposeHeaders"),
    ("cors-allow-credentials", "allowCredentials"),
    ("cors-max-age", "maxAge"),
];
/// Defaults of ingress-nginx.
const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];
const HEADERS: [&str; 9] = [
    "DNT",
    "Keep-Alive",
    "User-Agent",
    "X-Requested-With",
    "If-Modified-Since",
    "Cache-Control",
    "Content-Type",
    "Range",
    "Authorization",
];

/// The filter, if one is asked for.
pub fn cors(a: &mut Annotations<'_>) -> Option<Value> {
    let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
    if a.flag("enable-cors") != Some(true) {
        a.unneeded("enable-cors", "there is no filter by default");
        a.ineffective(&names, "enable-cors isn't true");
        return None;
    }
    a.became("enable-cors", "a filter CORS");
    let tech = a.controller() == Controller::HaproxyTech;
    let list = |a: &Annotations<'_>, name: &str, default: &[&str]| {
        let items = a.list(name).unwrap_or_else(|| default.iter().map(|item| (*item).to_owned()).collect());
        if items.iter().any(|item| item == "*") { vec!["*".to_owned()] } else { items }
    };
    let origins = list(a, "cors-allow-origin", &["*"]);
    let (origins, odd): (Vec<_>, Vec<_>) = origins.into_iter().partition(|origin| is_origin(origin));
    let methods = list(a, "cors-allow-methods", if tech { &["*"] } else { &METHODS });
    let headers = list(a, "cors-allow-headers", if tech { &["*"] } else { &HEADERS });
    let expose = a.list("cors-expose-headers").unwrap_or_default();
    let credentials = a.flag("cors-allow-credentials").unwrap_or(!tech);
    let seconds = max_age(a, tech);
    for (name, field) in PARTS {
        a.became(name, format!("cors.{field}"));
    }
    if let Some(origin) = odd.first() {
        let why = format!("{origin:?} is not an origin; the others are translated");
        a.left_out("cors-allow-origin", why, "write it as scheme://host[:port], with * for the first labels");
    }
    let mut spec = json!({ "allowOrigins": origins, "allowCredentials": credentials, "allowMethods": methods, "allowHeaders": headers });
    if let Some(map) = spec.as_object_mut() {
        if !expose.is_empty() {
            map.insert("exposeHeaders".to_owned(), json!(expose));
        }
        map.insert("maxAge".to_owned(), json!(seconds));
    }
    Some(json!({ "type": "CORS", "cors": spec }))
}

fn max_age(a: &mut Annotations<'_>, tech: bool) -> u32 {
    const NGINX: u32 = 1_728_000;
    const HAPROXY: u32 = 5;
    let default = if tech { HAPROXY } else { NGINX };
    let Some(text) = a.get("cors-max-age") else { return default };
    let whole = || duration(&text)?.strip_suffix('s')?.parse().ok();
    let seconds: Option<u32> = text.parse().ok().or_else(whole).filter(|seconds| *seconds > 0);
    if seconds.is_none() {
        a.left_out("cors-max-age", format!("is not a number of seconds; it is {default}"), "correct it");
    }
    seconds.unwrap_or(default)
}

fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    let host = host.strip_prefix("*.").unwrap_or(host);
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    !scheme.is_empty() && !host.is_empty() && host.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn origins_are_a_scheme_and_a_host() {
        for good in ["*", "https://a.com", "http://a.com:8080", "https://*.a.com", "app://x"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["a.com", "https://", "https://a.*.com", "https://a.com/x", "$http_origin"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
