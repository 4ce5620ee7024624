//! External authorization.

use std::num::NonZeroU32;

use weft_api::weft::config::v1 as proto;

use crate::route::{AuthProtocol, ExternalAuth};
use crate::wire::convert::{InvalidField, Wire, list, present, required, wire_list};

impl Wire for ExternalAuth {
    type Message = proto::ExternalAuth;

    fn to_wire(&self) -> proto::ExternalAuth {
        use proto::external_auth::Protocol;
        proto::ExternalAuth {
            authorizer: Some(self.authorizer.to_wire()),
            protocol: Some(match &self.protocol {
                AuthProtocol::Grpc { headers } => Protocol::Grpc(proto::GrpcAuth { headers: wire_list(headers) }),
                AuthProtocol::Http { path, request_headers, response_headers } => Protocol::Http(proto::HttpAuth {
                    path: path.clone(),
                    request_headers: wire_list(request_headers),
                    response_headers: wire_list(response_headers),
                }),
            }),
            max_body: self.max_body.map_or(0, NonZeroU32::get),
        }
    }

    fn from_wire(it: proto::ExternalAuth) -> Result<Self, InvalidField> {
        use proto::external_auth::Protocol;
        let protocol = match present(it.protocol, "protocol")? {
            Protocol::Grpc(it) => AuthProtocol::Grpc { headers: list(it.headers, "grpc.headers")? },
            Protocol::Http(it) => AuthProtocol::Http {
                path: it.path,
                request_headers: list(it.request_headers, "http.request_headers")?,
                response_headers: list(it.response_headers, "http.response_headers")?,
            },
        };
        let authorizer = required(it.authorizer, "authorizer")?;
        Ok(Self { authorizer, protocol, max_body: NonZeroU32::new(it.max_body) })
    }
}
