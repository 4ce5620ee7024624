//! ConfigMaps with certificates of authorities, which Gateways and BackendTLSPolicies refer to.

use k8s_openapi::api::core::v1::ConfigMap;
use x509_parser::pem::Pem;

/// Where such a ConfigMap has them.
const AUTHORITIES: &str = "ca.crt";

/// What marks a certificate in PEM (RFC 7468, section 5).
const CERTIFICATE: &str = "CERTIFICATE";

/// The certificates of authorities that a ConfigMap holds, one or more as PEM.
///
/// # Errors
/// Says what is wrong with it: the key `ca.crt` is missing, there is no certificate in it, or one can't be read. A bundle
/// isn't taken in part: what is missing would be missed only by those whose certificates come from there.
pub(crate) fn authorities(config_map: &ConfigMap) -> Result<Vec<u8>, String> {
    let text = config_map.data.as_ref().and_then(|data| data.get(AUTHORITIES)).map(|text| text.clone().into_bytes());
    let bytes = || config_map.binary_data.as_ref().and_then(|data| data.get(AUTHORITIES)).map(|it| it.0.clone());
    let Some(bundle) = text.or_else(bytes) else { return Err(format!("it has no key {AUTHORITIES}")) };
    let mut count = 0;
    for block in Pem::iter_from_buffer(&bundle) {
        let block = block.map_err(|why| format!("{AUTHORITIES} can't be read as PEM: {why}"))?;
        if block.label != CERTIFICATE {
            continue;
        }
        count += 1;
        block.parse_x509().map_err(|why| format!("certificate {count} of {AUTHORITIES} can't be read: {why}"))?;
    }
    if count == 0 { Err(format!("there is no certificate in its {AUTHORITIES}")) } else { Ok(bundle) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    /// The certificate of an authority that is nobody's.
    pub(crate) const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBgDCCASWgAwIBAgIUUXLqvEcAQ9c0DVHMltqvBsJMqBcwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJYXV0aG9yaXR5MCAXDTI2MTEyMTIzMDU1NFoYDzIxMjYxMDI4
MjMwNTU0WjAUMRIwEAYDVQQDDAlhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQQjpJPXBRuBLsHvyip4BqHs0zGVjIqZMvvhq5TNfEVCdtgerdFf3Aa
1bj7ru46ZWTs6KccgKgwA3+dgl1xSB5Ao1MwUTAdBgNVHQ4EFgQU+6Eh3KW/bIc2
k3Do1wEVS2m/QrkwHwYDVR0jBBgwFoAU+6Eh3KW/bIc2k3Do1wEVS2m/QrkwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEAltGXdZQ62GFyD+LW3H3W
xjziuocqsN64jJBaE6LCxY0CIQDlEJhv4c+EmQlDgkRs8zn+XsIJ1OS/OI35EJBS
cSApmQ==
-----END CERTIFICATE-----
";

    fn holding(key: &str, text: &str) -> ConfigMap {
        ConfigMap { data: Some(BTreeMap::from([(key.to_owned(), text.to_owned())])), ..ConfigMap::default() }
    }

    #[test]
    fn a_bundle_is_certificates_and_all_of_them_can_be_read() {
        let two = format!("# the first\n{AUTHORITY}\n{AUTHORITY}");
        for good in [AUTHORITY, &two] {
            assert_eq!(authorities(&holding("ca.crt", good)), Ok(good.as_bytes().to_vec()));
        }
        let bytes = BTreeMap::from([("ca.crt".to_owned(), ByteString(AUTHORITY.as_bytes().to_vec()))]);
        let binary = ConfigMap { binary_data: Some(bytes), ..ConfigMap::default() };
        assert_eq!(authorities(&binary), Ok(AUTHORITY.as_bytes().to_vec()));

        let garbage = AUTHORITY.replace("MIIBgDCC", "AAAAgDCC");
        let one_is_garbage = format!("{AUTHORITY}\n{garbage}");
        let cut = AUTHORITY.split_at(AUTHORITY.len() / 2).0;
        let key = AUTHORITY.replace("CERTIFICATE", "PRIVATE KEY");
        for (bad, why) in [
            ("", "no certificate"),
            ("Hello world", "no certificate"),
            (garbage.as_str(), "certificate 1"),
            (&one_is_garbage, "certificate 2"),
            (cut, "as PEM"),
            (&key, "no certificate"),
        ] {
            let told = authorities(&holding("ca.crt", bad)).unwrap_err();
            assert!(told.contains(why), "{bad}: {told}");
        }
        assert!(authorities(&holding("ca.pem", AUTHORITY)).unwrap_err().contains("no key ca.crt"));
        assert!(authorities(&ConfigMap::default()).unwrap_err().contains("no key ca.crt"));
    }
}
