//! Whether a request is traced, and what is noted of it until its end.

use std::rc::Rc;
use std::time::SystemTime;

use http::HeaderMap;
use weft_core::telemetry::{AttributeSource, ParentSampling, Telemetry, Tracing};

use super::context::{self, Said};

/// The longest value of a header that a span takes, in bytes.
const MAX_VALUE: usize = 1024;

/// Where a request is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At a Gateway, from a client outside.
    Gateway,
    /// Where a local pod calls.
    Outbound,
    /// Where a local pod is called. `decided`: by another proxy of the mesh, which has decided whether a trace begins.
    Inbound { decided: bool },
}

/// A sampled request under way.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) told: Rc<Telemetry>,
    pub(crate) id: u128,
    pub(crate) span: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) state: String,
    pub(crate) started: SystemTime,
    pub(crate) place: Place,
    /// What the policy wants to be said.
    pub(crate) attributes: Vec<(String, String)>,
}

/// Looks whether a request is traced; if so, its headers say from now on that this span is the caller. Else those of a client
/// from outside say that it isn't sampled, unless its word counts: it has no say in what is traced further in.
pub(crate) fn begin(told: &Rc<Telemetry>, headers: &mut HeaderMap, place: Place) -> Option<Box<Trace>> {
    let picked = pick(told, headers, place);
    if picked.is_none() && place == Place::Gateway && told.parent == ParentSampling::Ignored {
        context::unsample(headers);
    }
    picked
}

fn pick(told: &Rc<Telemetry>, headers: &mut HeaderMap, place: Place) -> Option<Box<Trace>> {
    let tracing = told.tracing.as_ref()?;
    let said = context::read(headers);
    let heeds_caller = matches!(tracing.parent, ParentSampling::Respected(_));
    let parent = match said {
        Said::Never if heeds_caller => return None,
        Said::Nothing | Said::Never => None,
        Said::Part(context) => Some(context),
    };
    if parent.is_none() && heeds_caller && place == (Place::Inbound { decided: true }) {
        return None;
    }
    if !tracing.samples(parent.and_then(|parent| parent.sampled), fastrand::u64(..)) {
        return None;
    }
    let id = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace);
    let span = fastrand::u64(1..);
    let parent = parent.map(|parent| parent.span);
    let state = parent.map(|_| context::state(headers)).unwrap_or_default();
    let attributes = attributes(tracing, headers);
    context::write(headers, id, span, parent);
    let (told, started) = (Rc::clone(told), SystemTime::now());
    Some(Box::new(Trace { told, id, span, parent, state, started, place, attributes }))
}

fn attributes(tracing: &Tracing, headers: &HeaderMap) -> Vec<(String, String)> {
    let value = |source: &AttributeSource| match source {
        AttributeSource::Literal(text) => Some(text.clone()),
        AttributeSource::Header(name) => {
            let bytes = headers.get(name.as_str())?.as_bytes();
            Some(String::from_utf8_lossy(bytes.get(..MAX_VALUE).unwrap_or(bytes)).into_owned())
        }
    };
    tracing.attributes.iter().filter_map(|it| Some((it.name.clone(), value(&it.value)?))).collect()
}
