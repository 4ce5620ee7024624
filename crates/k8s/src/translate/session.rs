//! `sessionPersistence` of a rule or of an XBackendTrafficPolicy -> [`SessionPersistence`] (GEP-1619).
//!
//! What seals sessions is derived from the object's uid, which the API server draws at random: every replica comes to the
//! same, without anything to share or to keep, and an object that is made anew starts new sessions.

use http::HeaderName;
use sha2::{Digest, Sha256};
use weft_core::traffic::{CookieName, SessionCarrier, SessionKey, SessionPersistence};

use super::route::duration;
use super::{Problem, suggestion};
use crate::object::route::SessionPersistence as Spec;

/// Headers that are no place for a session: they frame the message, or mean something else to everybody.
const TAKEN: [&str; 14] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "host",
    "keep-alive",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "location",
];

/// Whose sessions they are: the object's uid, and the part of it.
#[derive(Clone, Debug)]
pub struct Owner {
    uid: String,
    part: String,
}

impl Owner {
    /// A part of an object.
    pub fn new(uid: Option<&String>, part: impl Into<String>) -> Self {
        Self { uid: uid.cloned().unwrap_or_default(), part: part.into() }
    }

    fn digest(&self, purpose: &str) -> impl Iterator<Item = u8> + use<> {
        // No uid has a NUL, nor has the name of an object.
        let text = format!("{purpose}\0{}\0{}", self.uid, self.part);
        let digest = Sha256::digest(text.as_bytes());
        (0..16).filter_map(move |at| digest.get(at).copied())
    }

    fn key(&self) -> SessionKey {
        key(self.digest("session key"))
    }

    /// A name that is nobody else's.
    fn default_name(&self) -> String {
        let tag: String = self.digest("session name").take(4).map(|b| format!("{b:02x}")).collect();
        format!("weft-session-{tag}")
    }
}

fn key(bytes: impl Iterator<Item = u8>) -> SessionKey {
    let mut key = [0; SessionKey::LEN];
    key.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    SessionKey::new(key)
}

/// The same sessions for one user of a backend, who shares them with no other (GEP-1619, "Route Rules Referencing to a
/// Session Persistent Enabled Service Must Not Share Sessions").
pub fn for_user(session: &SessionPersistence, user: &str) -> SessionPersistence {
    let digest = Sha256::new().chain_update(session.key.as_bytes()).chain_update(user.as_bytes()).finalize();
    let key = key((0..SessionKey::LEN).filter_map(|at| digest.get(at).copied()));
    SessionPersistence { key, ..session.clone() }
}

/// Reads the field; `None` if anything is wrong, which is among the problems then.
pub fn session(field: &str, spec: &Spec, owner: &Owner, problems: &mut Vec<Problem>) -> Option<SessionPersistence> {
    let before = problems.len();
    let mut wrong = |part: &str, message: String, remedy: &str| {
        problems.push(Problem::value(format!("{field}{part}"), message, remedy));
    };
    if spec.idle_timeout.is_some() {
        let message = "is not supported, and no longer in the Gateway API".to_owned();
        wrong(".idleTimeout", message, "use absoluteTimeout");
    }
    let absolute_timeout =
        spec.absolute_timeout.as_deref().and_then(|text| match duration(&format!("{field}.absoluteTimeout"), text) {
            Ok(time) if time.is_zero() => {
                let message = "a session of no time is none".to_owned();
                wrong(".absoluteTimeout", message, "use more than 0s, or remove it");
                None
            }
            Ok(time) => Some(time),
            Err(problem) => {
                wrong(".absoluteTimeout", problem.message, &problem.remedy);
                None
            }
        });
    let lifetime = spec.cookie_config.as_ref().map(|config| config.lifetime_type.as_deref().unwrap_or("Session"));
    let permanent = match lifetime {
        None | Some("Session") => false,
        Some("Permanent") if spec.absolute_timeout.is_none() => {
            let message = "a permanent cookie has to end sometime".to_owned();
            wrong(".absoluteTimeout", message, "say when, or use lifetimeType Session");
            true
        }
        Some("Permanent") => true,
        Some(other) => {
            let remedy = suggestion(other, &["Session", "Permanent"]);
            wrong(".cookieConfig.lifetimeType", format!("{other:?} is unknown"), &remedy);
            false
        }
    };
    let text = spec.session_name.as_deref().filter(|name| !name.is_empty());
    let text = text.map_or_else(|| owner.default_name(), str::to_owned);
    let name = |made: Result<SessionCarrier, (String, String)>| made.map_err(|why| (".sessionName", why));
    let carrier = match spec.kind.as_deref().unwrap_or("Cookie") {
        "Cookie" => name(cookie(&text, permanent)),
        "Header" if lifetime.is_some() => {
            Err((".cookieConfig", ("belongs to type Cookie".to_owned(), "remove it, or the type".to_owned())))
        }
        "Header" => name(header(&text)),
        other => Err((".type", (format!("{other:?} is unknown"), suggestion(other, &["Cookie", "Header"])))),
    };
    match carrier {
        Ok(carrier) if problems.len() == before => {
            Some(SessionPersistence { carrier, absolute_timeout, key: owner.key() })
        }
        Ok(_) => None,
        Err((part, (message, remedy))) => {
            problems.push(Problem::value(format!("{field}{part}"), message, remedy));
            None
        }
    }
}

fn cookie(name: &str, permanent: bool) -> Result<SessionCarrier, (String, String)> {
    // Names that start so promise attributes to the client (RFC 6265bis, section 4.1.3).
    let usable = CookieName::new(name).filter(|_| !name.starts_with("__"));
    let Some(name) = usable else {
        let remedy = "use up to 128 letters, digits, dashes and dots, not __ in front";
        return Err((format!("{name:?} can't be the name of a cookie"), remedy.to_owned()));
    };
    Ok(SessionCarrier::Cookie { name, permanent })
}

fn header(name: &str) -> Result<SessionCarrier, (String, String)> {
    let read = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| name.len() <= 128);
    let Some(header) = read else {
        let remedy = "use up to 128 letters, digits and dashes";
        return Err((format!("{name:?} can't be the name of a header"), remedy.to_owned()));
    };
    if TAKEN.contains(&header.as_str()) {
        return Err((format!("the header {name:?} has another meaning"), "use a name of its own".to_owned()));
    }
    Ok(SessionCarrier::Header(header))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(yaml: &str) -> (Option<SessionPersistence>, String) {
        let spec: Spec = serde_norway::from_str(yaml).unwrap();
        let owner = Owner::new(Some(&"u-1".to_owned()), "HTTPRoute shop/web 0");
        let mut problems = Vec::new();
        let session = session("f", &spec, &owner, &mut problems);
        assert_eq!(session.is_none(), !problems.is_empty(), "{problems:?}");
        (session, super::super::summary(&problems))
    }

    #[test]
    fn what_the_api_has_is_read() {
        let cookie = |name: &str, permanent| SessionCarrier::Cookie { name: CookieName::new(name).unwrap(), permanent };
        let hour = Some(Duration::from_secs(3600));
        for (yaml, carrier, timeout) in [
            ("{sessionName: s}", cookie("s", false), None),
            ("{sessionName: s, type: Cookie, cookieConfig: {}}", cookie("s", false), None),
            ("{sessionName: s, absoluteTimeout: 1h}", cookie("s", false), hour),
            ("{sessionName: s, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}", cookie("s", true), hour),
            ("{sessionName: X-S, type: Header}", SessionCarrier::Header(HeaderName::from_static("x-s")), None),
        ] {
            let read = read(yaml).0.unwrap();
            assert_eq!((read.carrier, read.absolute_timeout), (carrier, timeout), "{yaml}");
        }
    }

    #[test]
    fn without_a_name_there_is_one_of_its_own() {
        let (one, other) = (Owner::new(None, "HTTPRoute a/b 0"), Owner::new(None, "HTTPRoute a/b 1"));
        let name = one.default_name();
        assert!(CookieName::new(&name).is_some() && name.starts_with("weft-session-"), "{name}");
        assert_ne!(name, other.default_name());
        assert_eq!(name, one.clone().default_name());
        let read = read("{type: Header}").0.unwrap();
        assert!(matches!(read.carrier, SessionCarrier::Header(name) if name.as_str().starts_with("weft-session-")));
    }

    #[test]
    fn keys_differ_by_object_part_and_user() {
        let uid = |text: &str| text.to_owned();
        let keys = [
            Owner::new(Some(&uid("u-1")), "0").key(),
            Owner::new(Some(&uid("u-2")), "0").key(),
            Owner::new(Some(&uid("u-1")), "1").key(),
        ];
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
        let session = read("{sessionName: s}").0.unwrap();
        let (one, other) = (for_user(&session, "one"), for_user(&session, "other"));
        assert!(one.key != other.key && one.key != session.key && one.carrier == session.carrier);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (yaml, part) in [
            ("{idleTimeout: 1h}", "f.idleTimeout: is not supported"),
            ("{absoluteTimeout: 1d}", "f.absoluteTimeout: \"1d\" is not a duration"),
            ("{absoluteTimeout: 0s}", "f.absoluteTimeout: a session of no time"),
            ("{cookieConfig: {lifetimeType: Permanent}}", "f.absoluteTimeout: a permanent cookie"),
            ("{cookieConfig: {lifetimeType: permanent}}", "f.cookieConfig.lifetimeType: \"permanent\" is unknown"),
            ("{type: cookie}", "f.type: \"cookie\" is unknown; did you mean \"Cookie\"?"),
            ("{type: Header, cookieConfig: {}}", "f.cookieConfig: belongs to type Cookie"),
            ("{sessionName: 'a b'}", "f.sessionName: \"a b\" can't be the name of a cookie"),
            ("{sessionName: __Host-a}", "f.sessionName: \"__Host-a\" can't be"),
            ("{sessionName: 'a:b', type: Header}", "f.sessionName: \"a:b\" can't be the name of a header"),
            ("{sessionName: Cookie, type: Header}", "f.sessionName: the header \"Cookie\" has another meaning"),
        ] {
            let said = read(yaml).1;
            assert!(said.starts_with(part), "{yaml}: {said}");
        }
    }
}
