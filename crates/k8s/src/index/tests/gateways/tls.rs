//! Certificates of clients and towards backends, and TLS that overlaps.

use weft_core::gateway::{ClientValidationMode, GatewayConfig};

use super::*;
use crate::translate::gateway::trust::tests::AUTHORITY;

pub(super) fn config_map(namespace: &str, name: &str, text: &str) -> String {
    let indented = text.replace('\n', "\n    ");
    format!(
        "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         data:\n  ca.crt: |\n    {indented}\n"
    )
}

const HTTPS: &str = "
    {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}},
    {name: special, port: 8443, protocol: HTTPS, hostname: a.com, tls: {certificateRefs: [{name: c}]}},
    {name: tls, port: 9443, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: c}]}},
    {name: http, port: 80, protocol: HTTP}";

fn asking(frontend: &str) -> Index {
    let text = gateway_of("gw", &format!("listeners: [{HTTPS}], tls: {{frontend: {frontend}}}"))
        + &secret("edge", "c", "chain 1", "key 1")
        + &config_map("edge", "ca", AUTHORITY)
        + &config_map("edge", "garbage", "Hello world")
        + &config_map("vault", "ca", AUTHORITY);
    serve(&text).0
}

fn validation(references: &str, more: &str) -> String {
    format!("{{validation: {{caCertificateRefs: [{references}]{more}}}}}")
}

const CA: &str = "{group: '', kind: ConfigMap, name: ca}";

/// What each listener asks of clients, in the order of names.
fn asked(index: &Index) -> Vec<(String, Option<ClientValidationMode>)> {
    let each = served(index).into_iter();
    each.map(|it| (it.key.name.to_string(), it.client_validation.map(|it| it.mode))).collect()
}

#[test]
fn clients_are_asked_by_port_and_by_default_where_it_is_https() {
    use ClientValidationMode::{AllowInsecureFallback, AllowValidOnly};
    let insecure = validation(CA, ", mode: AllowInsecureFallback");
    let of = |name: &str, mode| (name.to_owned(), mode);
    let rest = || [of("tls", None)];
    for (frontend, https, special) in [
        (format!("{{default: {}}}", validation(CA, "")), Some(AllowValidOnly), Some(AllowValidOnly)),
        (
            format!("{{default: {}, perPort: [{{port: 8443, tls: {insecure}}}]}}", validation(CA, "")),
            Some(AllowValidOnly),
            Some(AllowInsecureFallback),
        ),
        (
            format!("{{default: {}, perPort: [{{port: 8443, tls: {{}}}}]}}", validation(CA, "")),
            Some(AllowValidOnly),
            None,
        ),
        (format!("{{default: {{}}, perPort: [{{port: 8443, tls: {insecure}}}]}}"), None, Some(AllowInsecureFallback)),
        ("{default: {}}".to_owned(), None, None),
    ] {
        let index = asking(&frontend);
        let mut want = vec![of("http", None), of("https", https), of("special", special)];
        want.extend(rest());
        assert_eq!(asked(&index), want, "{frontend}");
        let insecure = [https, special].contains(&Some(AllowInsecureFallback));
        let told = wrong(&status_of(&index, "gw").conditions);
        let want: Vec<_> =
            insecure.then_some("InsecureFrontendValidationMode/ConfigurationChanged").into_iter().collect();
        assert_eq!(told, want, "{frontend}");
    }
    let index = asking(&format!("{{default: {}}}", validation(&format!("{CA}, {CA}"), "")));
    let ca = served(&index)[1].client_validation.clone().unwrap().ca;
    assert_eq!(String::from_utf8(ca).unwrap().matches("BEGIN CERTIFICATE").count(), 2);
}

#[test]
fn authorities_that_cannot_be_had_cost_the_https_listeners_of_the_port_only() {
    for (reference, reason) in [
        ("{group: '', kind: ConfigMap, name: nobody}", "InvalidCACertificateRef"),
        ("{group: '', kind: ConfigMap, name: garbage}", "InvalidCACertificateRef"),
        ("{group: '', kind: Service, name: ca}", "InvalidCACertificateKind"),
        ("{group: example.com, kind: ConfigMap, name: ca}", "InvalidCACertificateKind"),
        ("{group: '', kind: ConfigMap, name: ca, namespace: vault}", "RefNotPermitted"),
        ("{group: '', kind: ConfigMap, name: nobody, namespace: vault}", "RefNotPermitted"),
    ] {
        let bad = validation(reference, "");
        let index = asking(&format!("{{default: {}, perPort: [{{port: 8443, tls: {bad}}}]}}", validation(CA, "")));
        let status = status_of(&index, "gw");
        let told: Vec<_> = status.listeners.iter().map(|it| wrong(&it.conditions)).collect();
        let resolved = format!("ResolvedRefs/{reason}");
        let special = ["Accepted/NoValidCACertificate", "Programmed/Invalid", &resolved].map(str::to_owned).to_vec();
        assert_eq!(told, [vec![], special, vec![], vec![]], "{reference}");
        assert_eq!(asked(&index).len(), 3, "nobody may be let in without: {reference}");
        // On a port that has no HTTPS it is nobody's business.
        let index = asking(&format!("{{default: {{}}, perPort: [{{port: 80, tls: {bad}}}]}}"));
        assert!(status_of(&index, "gw").listeners.iter().all(|it| wrong(&it.conditions).is_empty()), "{reference}");
    }
    // One of two is there: those whose certificates come from it are let in.
    let two = validation(&format!("{{group: '', kind: ConfigMap, name: nobody}}, {CA}"), "");
    let index = asking(&format!("{{default: {two}}}"));
    assert_eq!(wrong(&status_of(&index, "gw").listeners[0].conditions), ["ResolvedRefs/InvalidCACertificateRef"]);
    assert_eq!(asked(&index)[1].1, Some(ClientValidationMode::AllowValidOnly));
}

#[test]
fn a_grant_lets_a_gateway_have_authorities_of_another_namespace_and_config_maps_change_live() {
    let reference = "{group: '', kind: ConfigMap, name: ca, namespace: vault}";
    let mut index = asking(&format!("{{default: {}}}", validation(reference, "")));
    let mut with = |text: &str| {
        objects(text).into_iter().for_each(|o| index.apply(o));
        index.commit();
        names(&index).contains(&"edge/gw/https:443".to_owned())
    };
    let from = "group: gateway.networking.k8s.io, kind: Gateway, namespace: edge";
    assert!(!with(&grant("vault", from, "group: '', kind: Secret")));
    assert!(with(&grant("vault", from, "group: '', kind: ConfigMap")));
    assert!(!with(&config_map("vault", "ca", "")));
    assert!(with(&config_map("vault", "ca", AUTHORITY)));
}

#[test]
fn a_gateway_has_a_certificate_for_its_backends() {
    let of = |reference: &str| {
        let tls = format!("tls: {{backend: {{clientCertificateRef: {{{reference}}}}}}}");
        let text = gateway_of("gw", &format!("listeners: [{HTTP}], {tls}"))
            + &secret("edge", "c", "chain 1", "key 1")
            + &secret("edge", "garbage", "Hello", "world")
            + &secret("vault", "c", "chain 1", "key 1");
        serve(&text).0
    };
    let configs = |index: &Index| -> Vec<GatewayConfig> {
        let all = index.resources().filter_map(|it| match it {
            Resource::GatewayConfig(config) => Some((**config).clone()),
            _ => None,
        });
        all.collect()
    };
    for (reference, reason) in [
        ("name: nobody", "InvalidClientCertificateRef"),
        ("name: c, kind: Nonsense", "InvalidClientCertificateRef"),
        ("name: c, group: example.com", "InvalidClientCertificateRef"),
        ("name: garbage", "InvalidClientCertificateRef"),
        ("name: c, namespace: vault", "RefNotPermitted"),
    ] {
        let index = of(reference);
        let status = status_of(&index, "gw");
        assert_eq!(wrong(&status.conditions), [format!("ResolvedRefs/{reason}")], "{reference}");
        assert_eq!((configs(&index).len(), names(&index)), (0, vec!["edge/gw/http:80".to_owned()]), "{reference}");
    }
    let index = of("name: c");
    assert!(wrong(&status_of(&index, "gw").conditions).is_empty());
    let [config] = &configs(&index)[..] else { panic!("{:?}", configs(&index)) };
    let key = config.client_certificate.clone().unwrap();
    assert_eq!((key.to_string(), config.key.to_string()), ("edge/gw/edge/c".to_owned(), "edge/gw".to_owned()));
    assert!(index.resource(&ResourceKey::Certificate(key)).is_some());
}

#[test]
fn a_gateway_whose_listener_misses_a_certificate_says_so() {
    let (index, _) =
        serve(&gateway("{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: nobody}]}}"));
    let told = wrong(&status_of(&index, "gw").conditions);
    assert!(told.contains(&"ResolvedRefs/ListenersNotResolved".to_owned()), "{told:?}");
}

#[test]
fn tls_that_overlaps_is_noted_and_served() {
    let https = |name: &str, port: u16, host: &str| {
        let host = if host.is_empty() { String::new() } else { format!(", hostname: '{host}'") };
        format!("{{name: {name}, port: {port}, protocol: HTTPS, tls: {{certificateRefs: [{{name: c}}]}}{host}}}")
    };
    for (list, overlapping) in [
        (vec![https("a", 443, "foo.example.com"), https("b", 443, "foo.example.org")], [false, false]),
        (vec![https("a", 443, "foo.example.com"), https("b", 443, "*.example.com")], [true, true]),
        (vec![https("a", 443, "foo.example.com"), https("b", 443, "")], [true, true]),
        (vec![https("a", 443, "foo.example.com"), https("b", 8443, "*.example.com")], [false, false]),
        (vec![https("a", 443, "example.com"), https("b", 443, "*.example.com")], [false, false]),
    ] {
        let text = gateway(&list.join(", ")) + &secret("edge", "c", "chain 1", "key 1");
        let told: Vec<_> =
            listeners(&text).iter().map(|it| *it == ["OverlappingTLSConfig/OverlappingHostnames"]).collect();
        assert_eq!(told, overlapping, "{list:?}");
        assert_eq!(serve(&text).0.resources().filter(|it| matches!(it, Resource::Listener(_))).count(), 2);
    }
    // What isn't served, because it is in another's way, overlaps with nobody.
    let text =
        gateway(&[https("a", 443, ""), https("b", 443, "")].join(", ")) + &secret("edge", "c", "chain 1", "key 1");
    let told = listeners(&text).concat();
    assert!(told.contains(&"Conflicted/HostnameConflict".to_owned()), "{told:?}");
    assert!(!told.iter().any(|it| it.starts_with("OverlappingTLSConfig")), "{told:?}");
}
