//! How backends are spoken to: protocol, TLS, host, timeouts, tries and sessions.

use serde_json::{Value, json};

use super::Settings;
use super::text::{duration, has_variable, is_host};
use crate::migrate::ingress::annotations::Annotations;
use crate::migrate::ingress::class::Controller;

/// What a backend speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http,
    /// HTTP/2 without TLS.
    Http2,
    Https,
    Grpc,
    Grpcs,
}

impl Protocol {
    /// Whether it is within TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs)
    }

    /// Whether it is gRPC.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs)
    }
}

/// Parts of a session's cookie, each with what becomes of it.
const COOKIE_PARTS: [(&str, &str); 8] = [
    ("session-cookie-path", "the cookie's path is that of the rule"),
    ("session-cookie-domain", "the cookie is for the host that was asked"),
    ("session-cookie-samesite", "the cookie has SameSite=Lax"),
    ("session-cookie-conditional-samesite-none", "the cookie has SameSite=Lax"),
    ("session-cookie-secure", "the cookie is Secure where the client speaks TLS"),
    ("session-cookie-change-on-failure", "a session changes when its endpoint is gone"),
    ("session-cookie-strategy", "the cookie is the Gateway's own"),
    ("session-cookie-shared", "the cookie's path is that of the rule"),
];
/// More of HAProxy Ingress's.
const COOKIE_WAYS: [&str; 4] =
    ["session-cookie-dynamic", "session-cookie-keywords", "session-cookie-preserve", "session-cookie-value-strategy"];

/// Reads all of them.
pub fn read(a: &mut Annotations<'_>, namespace: &str, settings: &mut Settings) {
    settings.protocol = protocol(a);
    tls(a, namespace, settings);
    if let Some(host) = a.get("upstream-vhost") {
        if is_host(&host) {
            a.became("upstream-vhost", "URLRewrite.hostname");
            settings.upstream_host = Some(host);
        } else {
            let remedy = "name the host, or leave out the annotation if the backend takes the client's";
            a.left_out("upstream-vhost", "is not a hostname without variables and port", remedy);
        }
    }
    if let Some(text) = a.get("proxy-read-timeout") {
        match duration(&text) {
            Some(time) => {
                let how = format!("timeouts.backendRequest: {time}, for a whole answer; there it is between two reads");
                a.differs("proxy-read-timeout", how, "make it as long as the longest answer takes, a stream's say");
                settings.backend_timeout = Some(time);
            }
            None => a.left_out("proxy-read-timeout", "is not a time", "write it as a number of seconds"),
        }
    }
    if a.get("proxy-body-size").is_some_and(|size| size == "0") {
        a.unneeded("proxy-body-size", "bodies may be of any size");
    } else {
        a.left_out("proxy-body-size", "bodies may be of any size", "limit them in the application");
    }
    settings.retry = retry(a);
    settings.session = session(a);
    balancing(a);
}

fn protocol(a: &mut Annotations<'_>) -> Protocol {
    if a.controller() == Controller::Alb {
        return alb_protocol(a);
    }
    let version = a.get("server-proto");
    let Some(name) = a.get("backend-protocol") else {
        if version.as_deref() == Some("h2") {
            a.differs(
                "server-proto",
                "HTTP/2 is spoken to ports that say so",
                "set appProtocol: kubernetes.io/h2c on the Service's port",
            );
            return Protocol::Http2;
        }
        a.unneeded("server-proto", "HTTP/1.1 is the default");
        return Protocol::Http;
    };
    a.unneeded("server-proto", "TLS settles the version of HTTP");
    let found = match name.to_ascii_uppercase().as_str() {
        "HTTP" | "H1" => Protocol::Http,
        "HTTPS" | "H1-SSL" => Protocol::Https,
        "GRPC" => Protocol::Grpc,
        "GRPCS" => Protocol::Grpcs,
        "H2" => Protocol::Http2,
        "H2-SSL" => Protocol::Https,
        "AUTO_HTTP" => {
            a.differs(
                "backend-protocol",
                "backends are spoken to over HTTP, also for HTTPS requests",
                "say HTTPS if they want that",
            );
            return Protocol::Http;
        }
        _ => {
            a.left_out(
                "backend-protocol",
                "is not a protocol that backends are spoken to in",
                "put a web server before the application",
            );
            return Protocol::Http;
        }
    };
    match found {
        Protocol::Http => a.unneeded("backend-protocol", "is the default"),
        Protocol::Http2 => a.differs(
            "backend-protocol",
            "HTTP/2 is spoken to ports that say so",
            "set appProtocol: kubernetes.io/h2c on the Service's port",
        ),
        Protocol::Https => a.became("backend-protocol", "a BackendTLSPolicy for each Service"),
        Protocol::Grpc => a.became("backend-protocol", "a GRPCRoute, or an HTTPRoute where a GRPCRoute can't be"),
        Protocol::Grpcs => a.became("backend-protocol", "a GRPCRoute, and a BackendTLSPolicy for each Service"),
    }
    found
}

fn alb_protocol(a: &mut Annotations<'_>) -> Protocol {
    let tls = a.get("backend-protocol").is_some_and(|name| name.eq_ignore_ascii_case("HTTPS"));
    if tls {
        a.became("backend-protocol", "a BackendTLSPolicy for each Service");
    } else {
        a.unneeded("backend-protocol", "is the default");
    }
    let version = a.get("backend-protocol-version").unwrap_or_default().to_ascii_uppercase();
    match (version.as_str(), tls) {
        ("GRPC", tls) => {
            a.became("backend-protocol-version", "a GRPCRoute");
            if tls { Protocol::Grpcs } else { Protocol::Grpc }
        }
        ("HTTP2", false) => {
            a.differs(
                "backend-protocol-version",
                "HTTP/2 is spoken to ports that say so",
                "set appProtocol: kubernetes.io/h2c on the Service's port",
            );
            Protocol::Http2
        }
        (_, tls) => {
            a.unneeded("backend-protocol-version", "is agreed on in the handshake, or the default");
            if tls { Protocol::Https } else { Protocol::Http }
        }
    }
}

/// By what backends are known. Whether they are is no choice: what isn't verified isn't protected.
fn tls(a: &mut Annotations<'_>, namespace: &str, settings: &mut Settings) {
    const NO_TLS: &str = "backends are not spoken to in TLS";
    let names = ["proxy-ssl-secret", "proxy-ssl-verify", "proxy-ssl-name", "proxy-ssl-server-name"];
    if !settings.protocol.is_tls() {
        a.ineffective(&names, NO_TLS);
        return;
    }
    if let Some(text) = a.get("proxy-ssl-secret") {
        let (of, name) = text.split_once('/').unwrap_or((namespace, &text));
        let how = format!("validation.caCertificateRefs to ConfigMap {name}-ca of the Service's namespace");
        let remedy = format!(
            "make it of the Secret's ca.crt: kubectl -n {of} get secret {name} -o jsonpath='{{.data.ca\\.crt}}' | base64 -d \
             > ca.crt && kubectl -n {namespace} create configmap {name}-ca --from-file=ca.crt; a certificate of the Gateway's \
             own goes into spec.tls.backend of the Gateway"
        );
        a.differs("proxy-ssl-secret", how, remedy);
        settings.authorities = Some((of.to_owned(), name.to_owned()));
    }
    match a.flag("proxy-ssl-verify") {
        Some(true) => a.became("proxy-ssl-verify", "a BackendTLSPolicy always verifies"),
        Some(false) => a.differs(
            "proxy-ssl-verify",
            "backends' certificates are verified all the same",
            "give the BackendTLSPolicy their authority and name",
        ),
        None => {}
    }
    if let Some(name) = a.get("proxy-ssl-name") {
        if is_host(&name) {
            a.became("proxy-ssl-name", "validation.hostname");
            settings.server_name = Some(name);
        } else {
            a.left_out("proxy-ssl-name", "is not a hostname", "set validation.hostname");
        }
    }
    a.unneeded("proxy-ssl-server-name", "backends are told the name that is verified");
}

fn retry(a: &mut Annotations<'_>) -> Option<Value> {
    let limits = ["proxy-next-upstream-tries", "proxy-next-upstream-timeout"];
    let conditions = a.get("proxy-next-upstream");
    let tries = a.number("proxy-next-upstream-tries");
    if conditions.as_deref() == Some("off") {
        a.became("proxy-next-upstream", "no retry");
        a.ineffective(&limits, "proxy-next-upstream is off");
        return None;
    }
    if conditions.is_none() && tries.is_none() {
        a.ineffective(&limits, "says how long, and not on what");
        return None;
    }
    let mut codes = Vec::new();
    let mut unknown = Vec::new();
    for word in conditions.iter().flat_map(|text| text.split_whitespace()) {
        match (word, word.strip_prefix("http_").and_then(|code| code.parse::<u16>().ok())) {
            (_, Some(code @ 400..=599)) => codes.push(code),
            ("error" | "timeout" | "non_idempotent" | "invalid_header", _) => {}
            _ => unknown.push(word.to_owned()),
        }
    }
    // 0 is as often as there are backends; the first is no retry.
    let attempts = match tries {
        None => 2,
        Some(0) => 3,
        Some(tries) => tries.saturating_sub(1),
    };
    if attempts == 0 {
        a.became("proxy-next-upstream-tries", "no retry");
        a.ineffective(&["proxy-next-upstream", "proxy-next-upstream-timeout"], "one try is no retry");
        return None;
    }
    if unknown.is_empty() {
        let how = "retry: connections that fail, and these statuses; what can't be sent twice isn't";
        a.became("proxy-next-upstream", how);
    } else {
        a.left_out(
            "proxy-next-upstream",
            format!("{}: not a reason for another try; the others are translated", unknown.join(", ")),
            "correct it",
        );
    }
    a.became("proxy-next-upstream-tries", "retry.attempts, which doesn't count the first");
    a.left_out("proxy-next-upstream-timeout", "tries end with the whole request", "set timeouts.request");
    let mut retry = json!({ "attempts": attempts });
    if let (Some(map), false) = (retry.as_object_mut(), codes.is_empty()) {
        map.insert("codes".to_owned(), json!(codes));
    }
    Some(retry)
}

/// `sessionPersistence`; also of canaries.
pub fn session(a: &mut Annotations<'_>) -> Option<Value> {
    const NO_SESSION: &str = "there is no affinity that it belongs to";
    let parts = || {
        COOKIE_PARTS
            .iter()
            .map(|(name, _)| *name)
            .chain(COOKIE_WAYS)
            .chain(["session-cookie-expires", "session-cookie-max-age"])
    };
    let by_name = a.controller() == Controller::HaproxyTech && a.get("session-cookie-name").is_some();
    let affinity = a.get("affinity");
    if affinity.as_deref() != Some("cookie") && !by_name {
        a.left_out(
            "affinity",
            "is not an affinity by cookie",
            "choose sessionPersistence, or sessionAffinity of the Service",
        );
        a.ineffective(&parts().chain(["session-cookie-name"]).collect::<Vec<_>>(), NO_SESSION);
        return None;
    }
    a.became("affinity", "sessionPersistence by a cookie");
    let name = a.get("session-cookie-name").unwrap_or_else(|| "INGRESSCOOKIE".to_owned());
    a.became("session-cookie-name", "sessionPersistence.sessionName; cookies of the other controller start anew");
    for (part, how) in COOKIE_PARTS {
        let same = a.get(part).is_some_and(|value| value == "Lax" || value == "/");
        if same { a.unneeded(part, how) } else { a.differs(part, how, "") }
    }
    a.ineffective(&COOKIE_WAYS, "the cookie is the Gateway's own");
    let seconds = a.number("session-cookie-max-age").or_else(|| a.number("session-cookie-expires")).filter(|n| *n > 0);
    let life = seconds.and_then(|seconds| duration(&seconds.to_string()));
    for part in ["session-cookie-max-age", "session-cookie-expires"] {
        match &life {
            Some(life) => a.became(part, format!("a permanent cookie, absoluteTimeout: {life}")),
            None => a.unneeded(part, "the cookie lives as long as the browser's session"),
        }
    }
    Some(session_of(&name, life.as_deref()))
}

/// A session by a cookie, permanent if it has a time.
pub fn session_of(name: &str, life: Option<&str>) -> Value {
    match life {
        Some(life) => json!({
            "sessionName": name, "type": "Cookie", "absoluteTimeout": life, "cookieConfig": { "lifetimeType": "Permanent" }
        }),
        None => json!({ "sessionName": name, "type": "Cookie" }),
    }
}

fn balancing(a: &mut Annotations<'_>) {
    if let Some(way) = a.get("load-balance") {
        if ["round_robin", "ewma", "least_conn", "roundrobin", "leastconn", "random", "first"].contains(&way.as_str()) {
            a.unneeded("load-balance", "the Gateway balances by what is under way");
        } else {
            a.left_out(
                "load-balance",
                "balancing is the Gateway's own",
                "choose sessionPersistence, or sessionAffinity of the Service",
            );
        }
    }
    if let Some(key) = a.get("upstream-hash-by") {
        let by_address = ["$remote_addr", "$binary_remote_addr"].contains(&key.as_str());
        let remedy = if by_address {
            "set sessionAffinity: ClientIP on the Service"
        } else if has_variable(&key) {
            "choose sessionPersistence by a cookie or a header"
        } else {
            "nothing: all requests had the same key"
        };
        a.left_out("upstream-hash-by", "endpoints are not chosen by a hash of the request", remedy);
    }
}
