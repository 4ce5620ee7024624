//! Why something could not be done about an object, and what of it is told. Pure.

use weft_kube::kube::Error;

/// How the API server begins where what is applied can't be an object of its kind: two entries of a list with one key, say. It
/// answers 500 then, as if the fault were its own.
const NOT_VALID: &str = "failed to create typed patch object";
/// Bytes of its words that are told. What it repeats of an object can be longer than a status may be.
const MOST_BYTES: usize = 1024;

/// Why an action wasn't done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Api(#[from] Error),
    #[error("no answer in time")]
    Late,
    #[error("{0} exists and is not this Gateway's: remove or rename it")]
    NotOurs(String),
}

impl Fault {
    /// The API server's words, if it won't have the object as it is; `None` if it may well take it another time.
    pub(super) fn refusal(&self) -> Option<String> {
        let Self::Api(Error::Api(status)) = self else { return None };
        match status.code {
            400 | 403 | 404 | 422 => Some(short(&status.message)),
            500 if status.message.starts_with(NOT_VALID) => {
                // Which object it is, is said anyway.
                let why = status.message.split_once("): ").map_or(status.message.as_str(), |(_object, why)| why);
                Some(short(why))
            }
            _ => None,
        }
    }

    /// What went wrong, for people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Api(Error::Api(status)) => {
                let code = status.code;
                short(&format!("the API server answers {code}: {}", status.message))
            }
            fault => short(&fault.to_string()),
        }
    }
}

/// In one line, and not longer than is read.
fn short(text: &str) -> String {
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.len() > MOST_BYTES {
        text.truncate(text.floor_char_boundary(MOST_BYTES));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use weft_kube::kube::core::Status;

    use super::*;

    fn answered(code: u16, message: &str) -> Fault {
        Fault::Api(Error::Api(Status { code, message: message.to_owned(), ..Status::default() }.boxed()))
    }

    #[test]
    fn what_the_api_server_refuses_is_told_from_what_it_cannot_do_now() {
        let typed = "failed to create typed patch object (edge/web-weft; apps/v1, Kind=Deployment): ";
        let twice = ".spec.template.spec.topologySpreadConstraints: duplicate entries for key [topologyKey=\"zone\"]";
        let several = "errors:\n  .spec.a: field not declared in schema\n  .spec.b: field not declared in schema\n";
        for (code, message, refusal) in [
            (403, "exceeded quota".to_owned(), Some("exceeded quota")),
            (400, "strict decoding error".to_owned(), Some("strict decoding error")),
            (404, "namespaces \"edge\" not found".to_owned(), Some("namespaces \"edge\" not found")),
            (422, "field is immutable".to_owned(), Some("field is immutable")),
            (500, format!("{typed}{twice}"), Some(twice)),
            (
                500,
                format!("{typed}{several}"),
                Some("errors: .spec.a: field not declared in schema .spec.b: field not declared in schema"),
            ),
            (500, NOT_VALID.to_owned(), Some(NOT_VALID)),
            (500, "failed to create typed live object (edge/web-weft; v1, Kind=Service): odd".to_owned(), None),
            (500, "etcdserver: request timed out".to_owned(), None),
            (503, format!("{typed}{twice}"), None),
            (429, "too many requests".to_owned(), None),
        ] {
            assert_eq!(answered(code, &message).refusal().as_deref(), refusal, "{code} {message}");
        }
        assert!(Fault::Late.refusal().is_none() && Fault::NotOurs("x".to_owned()).refusal().is_none());
    }

    #[test]
    fn what_is_told_fits_into_a_status() {
        let long = "ä".repeat(MOST_BYTES);
        for told in [answered(422, &long).refusal().unwrap(), answered(503, &long).words()] {
            assert!(told.len() <= MOST_BYTES + 3 && told.ends_with("ä..."), "{told}");
        }
        assert_eq!(answered(503, "not\nnow").words(), "the API server answers 503: not now");
        assert_eq!(Fault::Late.words(), "no answer in time");
    }
}
