//! Clients from outside that are asked for a certificate, and the authority of these tests, which others use too.

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as Key, KeyUsagePurpose, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_core::gateway::{BackendTls, BackendTrust, ClientValidation, ClientValidationMode};
use weft_core::ids::{Port, ServiceKey, ServicePortKey};

use crate::gateway::{GatewayTls, Inside, KeyPair};
use crate::{BackendClient, InvalidTls, check_authorities};

/// An authority of somebody's own.
pub(super) struct Authority(CertifiedIssuer<'static, Key>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, Key::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate for DNS names and URIs.
    pub(super) fn pair(&self, names: &[&str]) -> KeyPair {
        let name = |name: &&str| {
            let text = Ia5String::try_from(*name).unwrap();
            if name.contains(':') { SanType::URI(text) } else { SanType::DnsName(text) }
        };
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(name).collect();
        let key = Key::generate().unwrap();
        let certificate = params.signed_by(&key, &*self.0).unwrap();
        KeyPair::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    /// A policy that trusts this authority for a name.
    pub(super) fn policy(&self, hostname: &str) -> BackendTls {
        BackendTls {
            port: ServicePortKey { service: ServiceKey::new("ns", "s"), port: Port::new(443).unwrap() },
            hostname: hostname.into(),
            subject_alt_names: Vec::new(),
            trust: BackendTrust::Bundle(self.pem()),
        }
    }
}

/// What passes between the two; how many certificates the server was shown, if the handshake and one byte each way went well.
pub(super) async fn meet(server: &GatewayTls, client: &BackendClient) -> Result<usize, String> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let server = server.clone();
    let accepting = tokio::spawn(async move {
        let mut stream = server.accept(far).await.map_err(|error| error.to_string())?;
        let byte = stream.read_u8().await.map_err(|error| error.to_string())?;
        stream.write_u8(byte + 1).await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len))
    });
    let asking = async {
        let mut stream = client.connect(near).await.map_err(|error| error.to_string())?;
        stream.write_u8(1).await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        // In TLS 1.3 a client learns only now that its certificate was refused.
        stream.read_u8().await.map_err(|error| error.to_string())
    };
    let answer = asking.await?;
    assert_eq!(answer, 2);
    accepting.await.unwrap()
}

fn asking(ca: Vec<u8>, mode: ClientValidationMode, pair: KeyPair) -> Result<GatewayTls, InvalidTls> {
    GatewayTls::new(vec![pair], Inside::Bytes, Some(&ClientValidation { ca, mode }))
}

#[tokio::test]
async fn a_client_without_a_valid_certificate_is_refused_or_let_through_as_the_mode_has_it() {
    use ClientValidationMode::{AllowInsecureFallback, AllowValidOnly};
    let (server, trusted, other) = (Authority::new(), Authority::new(), Authority::new());
    let (good, strange) = (trusted.pair(&["client"]), other.pair(&["client"]));
    for (mode, certificate, shown) in [
        (AllowValidOnly, Some(&good), Some(1)),
        (AllowValidOnly, Some(&strange), None),
        (AllowValidOnly, None, None),
        (AllowInsecureFallback, Some(&good), Some(1)),
        (AllowInsecureFallback, Some(&strange), Some(1)),
        (AllowInsecureFallback, None, Some(0)),
    ] {
        let tls = asking(trusted.pem(), mode, server.pair(&["a.com"])).unwrap();
        let client = BackendClient::new(&server.policy("a.com"), certificate, &[]).unwrap();
        // Twice: a session that is resumed would not be judged.
        for _ in 0..2 {
            let met = meet(&tls, &client).await;
            assert_eq!(met.as_ref().ok(), shown.as_ref(), "{mode:?} {certificate:?}: {met:?}");
        }
    }
}

#[tokio::test]
async fn any_authority_of_a_bundle_counts_and_a_bundle_without_one_is_refused() {
    let (server, first, second) = (Authority::new(), Authority::new(), Authority::new());
    let both = [first.pem(), second.pem()].concat();
    let tls = asking(both, ClientValidationMode::AllowValidOnly, server.pair(&["a.com"])).unwrap();
    for authority in [&first, &second] {
        let client = BackendClient::new(&server.policy("a.com"), Some(&authority.pair(&["c"])), &[]).unwrap();
        assert_eq!(meet(&tls, &client).await, Ok(1));
    }
    let malformed = String::from_utf8(first.pem()).unwrap().replace("MII", "MIA");
    for (bundle, why) in [
        ("", "there is no certificate in PEM form in it"),
        ("Hello world", "there is no certificate in PEM form in it"),
        (malformed.as_str(), "certificate 1 is malformed"),
    ] {
        assert_eq!(check_authorities(bundle.as_bytes()), Err(why.to_owned()));
        let refused = asking(bundle.into(), ClientValidationMode::AllowValidOnly, server.pair(&["a.com"]));
        assert_eq!(refused.unwrap_err().to_string(), format!("the authorities of clients can't be used: {why}"));
    }
    assert_eq!(check_authorities(&first.pem()), Ok(()));
}
