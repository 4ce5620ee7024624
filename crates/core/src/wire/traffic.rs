//! Sessions and retry budgets.

use http::HeaderName;
use weft_api::weft::config::v1 as proto;

use super::convert::{InvalidField, Wire, field, optional, present, required, wire_optional};
use crate::traffic::{
    BackendTraffic, CookieName, RetryConstraint, SessionCarrier, SessionKey, SessionPersistence, Sessions,
};

impl Wire for BackendTraffic {
    type Message = proto::BackendTraffic;

    fn to_wire(&self) -> proto::BackendTraffic {
        proto::BackendTraffic {
            retry: wire_optional(self.retry.as_ref()),
            session: wire_optional(self.session.as_ref()),
        }
    }

    fn from_wire(it: proto::BackendTraffic) -> Result<Self, InvalidField> {
        Ok(Self { retry: optional(it.retry, "retry")?, session: optional(it.session, "session")? })
    }
}

impl Wire for RetryConstraint {
    type Message = proto::RetryConstraint;

    fn to_wire(&self) -> proto::RetryConstraint {
        proto::RetryConstraint {
            percent: self.percent.into(),
            interval: Some(self.interval.to_wire()),
            min_retries: self.min_retries,
            min_interval: Some(self.min_interval.to_wire()),
        }
    }

    fn from_wire(it: proto::RetryConstraint) -> Result<Self, InvalidField> {
        let percent = u8::try_from(it.percent).ok().filter(|percent| *percent <= 100);
        let percent = percent.ok_or_else(|| InvalidField::expected("a share up to 100").within("percent"))?;
        let interval = required(it.interval, "interval")?;
        let min_interval = required(it.min_interval, "min_interval")?;
        Ok(Self { percent, interval, min_retries: it.min_retries, min_interval })
    }
}

impl Wire for SessionPersistence {
    type Message = proto::SessionPersistence;

    fn to_wire(&self) -> proto::SessionPersistence {
        use proto::session_persistence::Carrier;
        let carrier = match &self.carrier {
            SessionCarrier::Cookie { name, permanent } => {
                Carrier::Cookie(proto::SessionCookie { name: name.as_str().to_owned(), permanent: *permanent })
            }
            SessionCarrier::Header(name) => Carrier::Header(name.as_str().to_owned()),
        };
        proto::SessionPersistence {
            carrier: Some(carrier),
            absolute_timeout: wire_optional(self.absolute_timeout.as_ref()),
            key: self.key.as_bytes().to_vec(),
        }
    }

    fn from_wire(it: proto::SessionPersistence) -> Result<Self, InvalidField> {
        use proto::session_persistence::Carrier;
        let carrier = match present(it.carrier, "carrier")? {
            Carrier::Cookie(cookie) => {
                let name = CookieName::new(&cookie.name);
                let name = name.ok_or_else(|| InvalidField::expected("the name of a cookie").within("cookie.name"))?;
                SessionCarrier::Cookie { name, permanent: cookie.permanent }
            }
            Carrier::Header(name) => SessionCarrier::Header(field::<HeaderName>(name, "header")?),
        };
        let key = <[u8; SessionKey::LEN]>::try_from(it.key.as_slice());
        let key = key.map_err(|_| InvalidField::expected("16 bytes").within("key"))?;
        let absolute_timeout = optional(it.absolute_timeout, "absolute_timeout")?;
        Ok(Self { carrier, absolute_timeout, key: SessionKey::new(key) })
    }
}

/// The sessions of a rule, as they stand in its message.
pub(super) fn sessions_to_wire(sessions: &Sessions) -> (Option<proto::SessionPersistence>, Vec<proto::BackendSession>) {
    match sessions {
        Sessions::None => (None, Vec::new()),
        Sessions::OfRule(session) => (Some(session.to_wire()), Vec::new()),
        Sessions::OfBackends(each) => {
            let each = each.iter().map(|it| proto::BackendSession { session: wire_optional(it.as_ref()) });
            (None, each.collect())
        }
    }
}

/// The reverse of [`sessions_to_wire`].
pub(super) fn sessions_from_wire(
    of_rule: Option<proto::SessionPersistence>,
    of_backends: Vec<proto::BackendSession>,
) -> Result<Sessions, InvalidField> {
    if let Some(session) = of_rule {
        return Ok(Sessions::OfRule(Box::new(field(session, "session")?)));
    }
    if of_backends.is_empty() {
        return Ok(Sessions::None);
    }
    let each = of_backends.into_iter().enumerate();
    let each = each.map(|(i, it)| optional(it.session, &format!("backend_sessions[{i}]")));
    Ok(Sessions::OfBackends(each.collect::<Result<_, _>>()?))
}
