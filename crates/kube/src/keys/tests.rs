use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::*;

/// An API server's key of one kind.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Signer {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(crate) fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// As `/openid/v1/jwks` has it.
    pub(crate) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                json!({ "use": "sig", "kty": "RSA", "kid": "rsa", "alg": "RS256", "n": text(n), "e": text(e) })
            }
            Self::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "use": "sig", "kty": "EC", "kid": "ec", "alg": "ES256", "crv": "P-256", "x": text(x), "y": text(y) })
            }
        }
    }

    pub(crate) fn header(&self) -> Value {
        match self {
            Self::Rsa(_) => json!({ "alg": "RS256", "kid": "rsa" }),
            Self::Ec(_) => json!({ "alg": "ES256", "kid": "ec" }),
        }
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let (signed, random) = (format!("{header}.{claims}"), SystemRandom::new());
        let signature = match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What a token says that is good for `seconds` from now on, negative if it was.
pub(crate) fn claims(seconds: i64) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let kubernetes = json!({
        "namespace": "weft-system", "serviceaccount": { "name": "weft-node-proxy", "uid": "s-1" },
        "pod": { "name": "proxy-1", "uid": "u-1" }, "node": { "name": "node-a", "uid": "n-1" },
    });
    json!({ "iss": ISSUER, "aud": ["weft"], "exp": now.saturating_add_signed(seconds), "iat": now - 60, "nbf": now - 60,
        "sub": "system:serviceaccount:weft-system:weft-node-proxy", "kubernetes.io": kubernetes })
}

pub(crate) fn published(signers: &[&Signer]) -> Keys {
    let discovery = serde_json::from_value(json!({ "issuer": ISSUER, "jwks_uri": "https://elsewhere" })).unwrap();
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    Keys::new(discovery, &serde_json::from_value(json!({ "keys": keys })).unwrap()).unwrap()
}

fn verified(keys: &Keys, token: &str) -> Result<Reviewed, String> {
    keys.verify(token, "weft", SystemTime::now())
}

#[test]
fn a_token_of_either_kind_of_key_tells_its_pod() {
    let (rsa, ec) = (Signer::rsa(), Signer::ec());
    let keys = published(&[&rsa, &ec]);
    let expected = Reviewed {
        namespace: "weft-system".into(),
        service_account: "weft-node-proxy".into(),
        pod: "proxy-1".into(),
        pod_uid: "u-1".into(),
        node: Some("node-a".into()),
    };
    for signer in [&rsa, &ec] {
        let token = signer.sign(&signer.header(), &claims(60));
        assert_eq!(verified(&keys, &token), Ok(expected.clone()));
        let mut one = claims(60);
        one["aud"] = json!("weft");
        one["kubernetes.io"].as_object_mut().unwrap().remove("node");
        let old = verified(&keys, &signer.sign(&signer.header(), &one));
        assert_eq!(old, Ok(Reviewed { node: None, ..expected.clone() }), "from before a token named the node");
    }
}

#[test]
fn what_a_good_key_signed_for_others_or_other_times_is_not_taken() {
    let signer = Signer::ec();
    let keys = published(&[&signer]);
    for (change, why) in [
        ((|c| c["iss"] = json!("https://another")) as fn(&mut Value), "of issuer"),
        (|c| c["aud"] = json!(["https://kubernetes.default.svc"]), "not for audience"),
        (|c| c["aud"] = json!([]), "not for audience"),
        (|c| c["aud"] = json!("weft-"), "not for audience"),
        (|c| c["exp"] = json!(claims(0)["exp"]), "has expired"),
        (|c| c["exp"] = json!("never"), "claims"),
        (|c| drop(c.as_object_mut().unwrap().remove("exp")), "claims"),
        (|c| c["nbf"] = json!(claims(90)["exp"]), "not good yet"),
        (|c| c["exp"] = json!(u64::MAX), "more than two hours"),
        (|c| drop(c.as_object_mut().unwrap().remove("iat")), "claims"),
        (|c| c["sub"] = json!("system:serviceaccount:shop:weft-node-proxy"), "not the ServiceAccount"),
        (|c| c["sub"] = json!("system:node:a"), "not the ServiceAccount"),
        (|c| c["kubernetes.io"]["serviceaccount"]["name"] = json!("cart"), "not the ServiceAccount"),
        (|c| drop(c["kubernetes.io"].as_object_mut().unwrap().remove("pod")), "not bound to a pod"),
        (|c| drop(c["kubernetes.io"]["pod"].as_object_mut().unwrap().remove("uid")), "not bound to a pod"),
        (|c| drop(c.as_object_mut().unwrap().remove("kubernetes.io")), "claims"),
    ] {
        let mut changed = claims(60);
        change(&mut changed);
        let refused = verified(&keys, &signer.sign(&signer.header(), &changed));
        assert!(matches!(&refused, Err(said) if said.contains(why)), "{why}: {refused:?}");
    }
    let mut ahead = claims(60);
    ahead["nbf"] = json!(claims(30)["exp"]);
    assert!(verified(&keys, &signer.sign(&signer.header(), &ahead)).is_ok(), "clocks may be a minute apart");
}

#[test]
fn what_no_key_signed_is_not_taken() {
    let (rsa, ec, thief) = (Signer::rsa(), Signer::ec(), Signer::ec());
    let keys = published(&[&rsa, &ec]);
    let (header, claims) = (ec.header(), claims(60));
    let good = ec.sign(&header, &claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none", "kid": "ec" }).to_string());
    let (_, body) = signed.split_once('.').unwrap();
    let header_of_another = URL_SAFE_NO_PAD.encode(json!({ "kid": "ec", "alg": "ES256", "typ": "JWT" }).to_string());
    for (token, why) in [
        (thief.sign(&header, &claims), "signature is not its key's"),
        (format!("{signed}x.{signature}"), "claims"),
        (format!("{header_of_another}.{body}.{signature}"), "signature is not its key's"),
        (format!("{signed}."), "signature is not its key's"),
        (format!("{none}.{body}."), "not for none"),
        (ec.sign(&json!({ "alg": "RS256", "kid": "ec" }), &claims), "not for RS256"),
        (ec.sign(&json!({ "alg": "ES384", "kid": "ec" }), &claims), "not for ES384"),
        (ec.sign(&json!({ "alg": "HS256", "kid": "rsa" }), &claims), "not for HS256"),
        (ec.sign(&json!({ "alg": "RS256", "kid": "rsa" }), &claims), "signature is not its key's"),
        (ec.sign(&json!({ "alg": "ES256", "kid": "other" }), &claims), "none of those that are known"),
        (ec.sign(&json!({ "alg": "ES256" }), &claims), "names no key"),
        (ec.sign(&json!({ "alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": false }), &claims), "critical"),
        (format!("{signed}.{signature}="), "signature"),
        (signed.to_owned(), "no JWT"),
        ("x".to_owned(), "no JWT"),
        (String::new(), "no JWT"),
        ("x".repeat(MAX_TOKEN + 1), "bytes"),
    ] {
        let refused = verified(&keys, &token);
        assert!(matches!(&refused, Err(said) if said.contains(why)), "{why}: {refused:?} of {token:.80}");
    }
}

#[test]
fn keys_that_can_not_be_used_hide_no_others() {
    let signer = Signer::ec();
    let discovery = || Discovery { issuer: ISSUER.to_owned() };
    let short = json!({ "kty": "EC", "kid": "short", "crv": "P-256", "x": "AA", "y": "AA" });
    let mut encrypts = signer.jwk();
    encrypts["use"] = json!("enc");
    let strange = [json!({ "kty": "AKP", "kid": "pq", "alg": "ML-DSA-65", "pub": "AA" }), json!(7), short, encrypts];
    let set = |keys: &[Value]| serde_json::from_value::<KeySet>(json!({ "keys": keys })).unwrap();
    let none = Keys::new(discovery(), &set(&strange));
    assert!(matches!(&none, Err(why) if why.contains("none of the 4 keys")), "{none:?}");
    let keys = Keys::new(discovery(), &set(&[&strange[..], &[signer.jwk()]].concat())).unwrap();
    assert!(verified(&keys, &signer.sign(&signer.header(), &claims(60))).is_ok());
}
