//! Tokens of ServiceAccounts held against the API server's own keys (RFC 7515, 7517 and 7519), for when it can't be asked.
//!
//! A key fixes its algorithm, whatever a token says; what isn't understood is refused. A signature says that a token was made and
//! hasn't expired, not that its pod is still there: that is [`KnownPods`](crate::KnownPods)' part.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, EcdsaVerificationAlgorithm,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::Reviewed;
use crate::memory::MAX_TOKEN;
use crate::review::ACCOUNT;

/// Most keys kept: an API server has one, and some of before while it changes.
const MOST: usize = 64;
/// Longest life of a token: nobody could take back what lives longer.
const LONGEST: u64 = 2 * 3600;
/// How far the API server's clock may be ahead.
const AHEAD: Duration = Duration::from_secs(60);

/// What an API server signs tokens with, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    issuer: String,
    keys: Vec<Key>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    id: String,
    /// The one that it is for, if it says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The curve, and the point, uncompressed (SEC 1, 2.3.3).
    Ec(Curve, Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

/// A key as it is published.
#[derive(Debug, Deserialize)]
struct Jwk {
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    used_for: Option<String>,
    kty: String,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// What `/openid/v1/jwks` answers. A key of a kind that is new must not hide the others.
#[derive(Debug, Deserialize)]
pub(crate) struct KeySet {
    keys: Vec<serde_json::Value>,
}

/// What `/.well-known/openid-configuration` answers, as far as it matters.
#[derive(Debug, Deserialize)]
pub(crate) struct Discovery {
    issuer: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audiences,
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    pod: Option<Named>,
    node: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

/// Without what they are made of: nobody reads that.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| key.id.as_str()).collect();
        f.debug_struct("Keys").field("issuer", &self.issuer).field("keys", &ids).finish()
    }
}

impl Keys {
    /// The keys that can be used, of those that are published.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(discovery: Discovery, set: &KeySet) -> Result<Self, String> {
        let read = |key: &serde_json::Value| Jwk::deserialize(key).ok().and_then(|jwk| Key::of(&jwk));
        let keys: Vec<Key> = set.keys.iter().take(MOST).filter_map(read).collect();
        match keys.is_empty() {
            true => Err(format!("none of the {} keys that it publishes can be used", set.keys.len())),
            false => Ok(Self { issuer: discovery.issuer, keys }),
        }
    }

    /// Whether one of these keys is the one that a token names.
    pub fn names(&self, token: &str) -> bool {
        let header = token.split_once('.').and_then(|(header, _)| part::<Header>(header, "header").ok());
        let id = header.and_then(|header| header.kid);
        id.is_some_and(|id| self.keys.iter().any(|key| key.id == id))
    }

    /// The pod that a token was made for, if it was made by this API server, for this audience, and is good at this time.
    ///
    /// # Errors
    /// Why it isn't taken.
    pub fn verify(&self, token: &str, audience: &str, now: SystemTime) -> Result<Reviewed, String> {
        if token.len() > MAX_TOKEN {
            return Err(format!("it has {} bytes", token.len()));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("it is no JWT")?;
        let (header, claims) = signed.split_once('.').ok_or("it is no JWT")?;
        let header: Header = part(header, "header")?;
        if header.crit.is_some() {
            return Err("it has critical headers".to_owned());
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|e| format!("its signature: {e}"))?;
        let id = header.kid.as_deref().ok_or("it names no key")?;
        let key = self.keys.iter().find(|key| key.id == id).ok_or("its key is none of those that are known")?;
        // First what costs nothing: anybody may show what he likes.
        let reviewed = self.judge(part(claims, "claims")?, audience, now)?;
        key.verify(&header.alg, signed.as_bytes(), &signature)?;
        Ok(reviewed)
    }

    fn judge(&self, claims: Claims, audience: &str, now: SystemTime) -> Result<Reviewed, String> {
        if claims.iss != self.issuer {
            return Err(format!("it is of issuer {:?}", claims.iss));
        }
        let is_for_us = match &claims.aud {
            Audiences::One(one) => one == audience,
            Audiences::Many(many) => many.iter().any(|one| one == audience),
        };
        if !is_for_us {
            return Err(format!("it is not for audience {audience:?}"));
        }
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if Duration::from_secs(claims.exp) <= now {
            return Err("it has expired".to_owned());
        }
        if claims.nbf.is_some_and(|from| Duration::from_secs(from) > now.saturating_add(AHEAD)) {
            return Err("it is not good yet".to_owned());
        }
        if claims.exp.saturating_sub(claims.iat) > LONGEST {
            return Err("it lives for more than two hours".to_owned());
        }
        let Kubernetes { namespace, serviceaccount: account, pod, node } = claims.kubernetes;
        if claims.sub != format!("{ACCOUNT}{namespace}:{}", account.name) {
            return Err(format!("it is of {:?}, which is not the ServiceAccount that it names", claims.sub));
        }
        let bound = pod.filter(|pod| !pod.name.is_empty() && !pod.uid.is_empty());
        let pod = bound.ok_or("it is not bound to a pod")?;
        Ok(Reviewed {
            namespace: namespace.into(),
            service_account: account.name.into(),
            pod: pod.name.into(),
            pod_uid: pod.uid.into(),
            node: node.map(|node| node.name).filter(|name| !name.is_empty()).map(Into::into),
        })
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        if jwk.used_for.as_deref().is_some_and(|used| used != "sig") {
            return None;
        }
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Material::Rsa { n: bytes(&jwk.n)?, e: bytes(&jwk.e)? },
            ("EC", Some(curve)) => {
                let curve = Curve::of(curve)?;
                let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
                // RFC 7518, 6.2.1.2: as long as the curve's field, zeros in front included.
                (x.len() == curve.bytes() && y.len() == curve.bytes())
                    .then(|| Material::Ec(curve, [&[4][..], &x, &y].concat()))?
            }
            _ => return None,
        };
        Some(Self { id: jwk.kid.clone()?, algorithm: jwk.alg.clone(), material })
    }

    fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> Result<(), String> {
        if self.algorithm.as_deref().is_some_and(|own| own != algorithm) {
            return Err(format!("its key is not for {algorithm}"));
        }
        let good = match &self.material {
            Material::Rsa { n, e } => {
                let parameters = rsa(algorithm).ok_or_else(|| format!("its key is not for {algorithm}"))?;
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature)
            }
            Material::Ec(curve, point) if curve.algorithm() == algorithm => {
                UnparsedPublicKey::new(curve.parameters(), point).verify(signed, signature)
            }
            Material::Ec(..) => return Err(format!("its key is not for {algorithm}")),
        };
        good.map_err(|_| "its signature is not its key's".to_owned())
    }
}

impl Curve {
    fn of(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    const fn algorithm(self) -> &'static str {
        match self {
            Self::P256 => "ES256",
            Self::P384 => "ES384",
            Self::P521 => "ES512",
        }
    }

    fn parameters(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    match algorithm {
        "RS256" => Some(&RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Some(&RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Some(&RSA_PKCS1_2048_8192_SHA512),
        _ => None,
    }
}

fn part<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| format!("its {what}: {e}"))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("its {what}: {e}"))
}

#[cfg(test)]
pub(crate) mod tests;
