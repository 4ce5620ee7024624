//! A file of requests.
//!
//! ```text
//! # A line by itself is a URL, or a method and a URL, perhaps with the version of HTTP.
//! https://shop.example.com/ HTTP/2
//! GET https://shop.example.com/cart HTTP/2
//!   Accept: application/json
//! POST https://shop.example.com/cart
//!   Content-Type: application/json
//!   > {"item": 1}
//! # Or it is of an access log in the combined format.
//! 10.1.2.3 - - [22/Nov/2026:10:00:00 +0000] "GET /cart HTTP/1.1" 200 512 "-" "curl/8"
//! ```
//!
//! Indented lines belong to the request above: headers, and lines of the body after `>`.

use std::collections::HashSet;
use std::fmt;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::ValueEnum;
use http::{HeaderName, HeaderValue, Method, Uri};

/// Headers that say how a message is carried, which is the client's business.
const OF_THE_CLIENT: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade"];

/// A version of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum Version {
    /// HTTP/1.1
    #[default]
    #[value(name = "1.1")]
    Http1,
    /// HTTP/2, without TLS by prior knowledge
    #[value(name = "2")]
    Http2,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    pub method: Method,
    /// With `http` or `https`, and a host.
    pub uri: Uri,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// `None`: as the command line has it.
    pub version: Option<Version>,
}

impl Request {
    /// Whether it changes nothing (RFC 9110, section 9.2.1).
    pub fn is_safe(&self) -> bool {
        self.method.is_safe()
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        self.uri.scheme_str().unwrap_or("http")
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.uri)?;
        match self.version {
            Some(Version::Http2) => f.write_str(" HTTP/2"),
            _ => Ok(()),
        }
    }
}

/// Reads a file; each request once.
///
/// # Errors
/// The line that can't be read, and why.
pub fn parse(text: &str, base: Option<&Uri>) -> anyhow::Result<Vec<Request>> {
    let mut all: Vec<Request> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let at = || format!("line {}", i + 1);
        let content = line.trim();
        if content.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            let last =
                all.last_mut().ok_or_else(|| anyhow!("indented, and there is no request above")).with_context(at)?;
            more(last, content).with_context(at)?;
        } else {
            all.push(first(content, base).with_context(at)?);
        }
    }
    let mut seen = HashSet::new();
    all.retain(|request| seen.insert(request.clone()));
    Ok(all)
}

/// A header, or a line of the body.
fn more(request: &mut Request, line: &str) -> anyhow::Result<()> {
    if let Some(body) = line.strip_prefix('>') {
        let body = body.strip_prefix(' ').unwrap_or(body);
        let before = std::mem::take(&mut request.body);
        let joined =
            if before.is_empty() { body.as_bytes().to_vec() } else { [&before[..], b"\n", body.as_bytes()].concat() };
        request.body = joined.into();
        return Ok(());
    }
    let (name, value) =
        line.split_once(':').ok_or_else(|| anyhow!("expected NAME: VALUE, or > and a line of the body"))?;
    let name: HeaderName = name.trim().parse().map_err(|_| anyhow!("{:?} is not the name of a header", name.trim()))?;
    if OF_THE_CLIENT.contains(&name.as_str()) {
        bail!("header {name} follows from the URL and the body: leave it out");
    }
    let value = HeaderValue::from_str(value.trim()).map_err(|_| anyhow!("not the value of a header"))?;
    request.headers.push((name, value));
    Ok(())
}

fn first(line: &str, base: Option<&Uri>) -> anyhow::Result<Request> {
    if let Some((method, target)) = logged(line) {
        let base =
            base.ok_or_else(|| anyhow!("a line of an access log doesn't say the host: give --base https://HOST"))?;
        let host = base.authority().ok_or_else(|| anyhow!("--base {base}: no host"))?;
        let scheme = base.scheme_str().ok_or_else(|| anyhow!("--base {base}: neither http:// nor https://"))?;
        return request(method, &format!("{scheme}://{host}{target}"), None);
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [url] => request("GET", url, None),
        [url, text] if text.starts_with("HTTP/") => request("GET", url, Some(version(text)?)),
        [method, url] => request(method, url, None),
        [method, url, text] => request(method, url, Some(version(text)?)),
        _ => bail!("expected a URL, METHOD URL, or a line of an access log in the combined format"),
    }
}

fn version(text: &str) -> anyhow::Result<Version> {
    match text {
        "HTTP/1.1" => Ok(Version::Http1),
        "HTTP/2" | "HTTP/2.0" => Ok(Version::Http2),
        _ => bail!("{text:?} is neither HTTP/1.1 nor HTTP/2"),
    }
}

/// Method and target of a line of an access log: what stands in the first quotes, after the time in brackets.
fn logged(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once('[')?;
    let (_, rest) = rest.split_once("] \"")?;
    let (request, _) = rest.split_once('"')?;
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    (words.next()?.starts_with("HTTP/") && target.starts_with('/')).then_some((method, target))
}

fn request(method: &str, url: &str, version: Option<Version>) -> anyhow::Result<Request> {
    let known = method.bytes().all(|b| b.is_ascii_uppercase());
    let method: Method = method.parse().ok().filter(|_| known).ok_or_else(|| anyhow!("{method:?} is not a method"))?;
    let uri: Uri = url.parse().map_err(|why| anyhow!("{url:?} is not a URL: {why}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        bail!("{url:?} is not a URL with http:// or https:// and a host");
    }
    Ok(Request { method, uri, headers: Vec::new(), body: Bytes::new(), version })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
# two of them are the same
https://shop.example.com/
GET https://shop.example.com/
GET https://shop.example.com/cart?x=1 HTTP/2
  Accept: application/json
  X-A: b
POST http://shop.example.com/cart
  > {"item":
  >   1}
10.1.2.3 - - [22/Nov/2026:10:00:00 +0000] "HEAD /a%20b HTTP/1.1" 200 512 "-" "curl/8"
"#;

    #[test]
    fn a_file_has_urls_requests_and_lines_of_a_log() {
        let base = "https://log.example.com".parse().unwrap();
        let all = parse(FILE, Some(&base)).unwrap();
        let said: Vec<_> = all.iter().map(Request::to_string).collect();
        let expected = [
            "GET https://shop.example.com/",
            "GET https://shop.example.com/cart?x=1 HTTP/2",
            "POST http://shop.example.com/cart",
            "HEAD https://log.example.com/a%20b",
        ];
        assert_eq!(said, expected);
        assert_eq!(all[1].headers.len(), 2);
        assert_eq!(all[2].body, "{\"item\":\n  1}");
        assert_eq!(all.iter().filter(|request| request.is_safe()).count(), 3);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_line() {
        for (text, why) in [
            ("\n  X-A: b", "line 2: indented"),
            ("shop.example.com/", "line 1: \"shop.example.com/\" is not a URL"),
            ("get https://a/", "line 1: \"get\" is not a method"),
            ("GET https://a/ HTTP/3", "line 1: \"HTTP/3\" is neither"),
            ("GET https://a/ b c", "line 1: expected a URL"),
            ("https://a/\n  X-A b", "line 2: expected NAME: VALUE"),
            ("https://a/\n  Host: b", "line 2: header host follows"),
            ("1.2.3.4 - - [x] \"GET / HTTP/1.1\" 200 1", "line 1: a line of an access log doesn't say the host"),
        ] {
            let error = format!("{:#}", parse(text, None).unwrap_err());
            assert!(error.starts_with(why), "{text:?}: {error}");
        }
    }
}
