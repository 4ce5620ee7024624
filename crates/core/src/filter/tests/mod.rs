mod cors;
mod external_auth;
mod plan;
mod rewrite;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Headers from `name: value` lines.
fn headers(lines: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

/// All values of a header, in order; one text with `|` between the lines.
fn values(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<_> = headers.get_all(name).iter().map(|it| it.to_str().unwrap()).collect();
    values.join("|")
}
