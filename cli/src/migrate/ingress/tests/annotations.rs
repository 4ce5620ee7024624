//! Every annotation of the controllers ends up in the report, and as something that is known.

use serde_json::{Map, Value, json};

use super::{ingress, migrate, options};
use crate::migrate::ingress::report::Level;

/// All of ingress-nginx's: those of its documentation and those that only its program has.
const NGINX: &str = "affinity affinity-canary-behavior affinity-mode allowlist-source-range app-root auth-always-set-cookie \
    auth-cache-duration auth-cache-key auth-keepalive auth-keepalive-requests auth-keepalive-share-vars auth-keepalive-timeout \
    auth-method auth-proxy-set-headers auth-realm auth-request-redirect auth-response-headers auth-secret auth-secret-type \
    auth-signin auth-signin-redirect-param auth-snippet auth-tls-error-page auth-tls-match-cn \
    auth-tls-pass-certificate-to-upstream auth-tls-secret auth-tls-verify-client auth-tls-verify-depth auth-type auth-url \
    backend-protocol canary canary-by-cookie canary-by-header canary-by-header-pattern canary-by-header-value canary-weight \
    canary-weight-total client-body-buffer-size configuration-snippet connection-proxy-header cors-allow-credentials \
    cors-allow-headers cors-allow-methods cors-allow-origin cors-expose-headers cors-max-age custom-headers custom-http-errors \
    default-backend denylist-source-range disable-proxy-intercept-errors enable-access-log enable-cors enable-global-auth \
    enable-modsecurity enable-opentelemetry enable-owasp-core-rules enable-rewrite-log fastcgi-index fastcgi-params-configmap \
    force-ssl-redirect from-to-www-redirect http2-push-preload limit-allowlist limit-burst-multiplier limit-connections \
    limit-rate limit-rate-after limit-rpm limit-rps limit-whitelist load-balance mirror-host mirror-request-body mirror-target \
    modsecurity-snippet modsecurity-transaction-id opentelemetry-operation-name opentelemetry-trust-incoming-span \
    permanent-redirect permanent-redirect-code preserve-trailing-slash proxy-body-size proxy-buffer-size proxy-buffering \
    proxy-buffers-number proxy-busy-buffers-size proxy-connect-timeout proxy-cookie-domain proxy-cookie-path \
    proxy-http-version proxy-max-temp-file-size proxy-next-upstream proxy-next-upstream-timeout proxy-next-upstream-tries \
    proxy-read-timeout proxy-redirect-from proxy-redirect-to proxy-request-buffering proxy-send-timeout proxy-ssl-ciphers \
    proxy-ssl-name proxy-ssl-protocols proxy-ssl-secret proxy-ssl-server-name proxy-ssl-verify proxy-ssl-verify-depth \
    relative-redirects rewrite-target satisfy server-alias server-snippet service-upstream session-cookie-change-on-failure \
    session-cookie-conditional-samesite-none session-cookie-domain session-cookie-expires session-cookie-max-age \
    session-cookie-name session-cookie-path session-cookie-samesite session-cookie-secure ssl-ciphers ssl-passthrough \
    ssl-prefer-server-ciphers ssl-redirect stream-snippet temporal-redirect temporal-redirect-code upstream-hash-by \
    upstream-hash-by-subset upstream-hash-by-subset-size upstream-vhost use-port-in-redirects use-regex \
    whitelist-source-range x-forwarded-prefix";

const TRAEFIK: &str = "router.entrypoints router.middlewares router.observability.accesslogs router.observability.metrics \
    router.observability.tracing router.observability.traceverbosity router.pathmatcher router.priority router.rulesyntax \
    router.tls router.tls.certresolver router.tls.domains.0.main router.tls.domains.0.sans router.tls.options";

const TRAEFIK_SERVICE: &str = "service.middlewares service.nativelb service.nodeportlb service.passhostheader service.serversscheme \
    service.serverstransport service.sticky.cookie service.sticky.cookie.domain service.sticky.cookie.httponly \
    service.sticky.cookie.maxage service.sticky.cookie.name service.sticky.cookie.path service.sticky.cookie.samesite \
    service.sticky.cookie.secure";

const HAPROXY_TECH: &str = "allow-list auth-realm auth-secret auth-type backend-config-snippet blacklist check check-http \
    check-interval cookie-persistence cookie-persistence-no-dynamic cors-allow-credentials cors-allow-headers cors-allow-methods \
    cors-allow-origin cors-enable cors-max-age deny-list forwarded-for load-balance path-rewrite pod-maxconn rate-limit-period \
    rate-limit-requests rate-limit-size rate-limit-status-code rate-limit-whitelist request-capture request-capture-len \
    request-redirect request-redirect-code request-set-header response-set-header scale-server-slots send-proxy-protocol \
    server-ca server-crt server-proto server-ssl set-host src-ip-header ssl-passthrough ssl-redirect ssl-redirect-code \
    ssl-redirect-port standalone-backend timeout-check timeout-connect timeout-http-request timeout-keep-alive timeout-queue \
    timeout-server timeout-server-fin timeout-tunnel whitelist";

const HAPROXY_INGRESS: &str = "affinity agent-check-addr agent-check-interval agent-check-port agent-check-send \
    allowlist-source-header allowlist-source-range app-root auth-external-placement auth-headers-fail auth-headers-request \
    auth-headers-succeed auth-method auth-realm auth-secret auth-signin auth-tls-cert-header auth-tls-error-page auth-tls-secret \
    auth-tls-strict auth-tls-verify-client auth-url backend-check-interval backend-protocol backend-server-slots-increment \
    balance-algorithm blue-green-balance blue-green-cookie blue-green-deploy blue-green-header blue-green-mode config-backend \
    config-backend-early config-backend-late cors-allow-credentials cors-allow-headers cors-allow-methods cors-allow-origin \
    cors-allow-origin-regex cors-enable cors-expose-headers cors-max-age denylist-source-range dynamic-scaling headers \
    health-check-addr health-check-fall-count health-check-interval health-check-port health-check-rise-count health-check-uri \
    hsts hsts-include-subdomains hsts-max-age hsts-preload http-header-match http-header-match-regex http-response-404 \
    initial-weight limit-connections limit-rps limit-whitelist maxconn-server maxqueue-server oauth oauth-headers \
    oauth-uri-prefix path-type proxy-body-size proxy-protocol redirect-from redirect-from-regex redirect-to \
    request-add-headers request-del-headers request-set-headers response-add-headers response-del-headers response-set-headers \
    rewrite-target secure-backends secure-crt-secret secure-sni secure-verify-ca-secret secure-verify-hostname server-alias \
    server-alias-regex service-upstream session-cookie-domain session-cookie-dynamic session-cookie-keywords session-cookie-name \
    session-cookie-preserve session-cookie-same-site session-cookie-shared session-cookie-strategy session-cookie-value-strategy \
    slots-min-free ssl-ciphers ssl-passthrough ssl-redirect timeout-connect timeout-http-request timeout-keep-alive \
    timeout-queue timeout-server timeout-server-fin timeout-tunnel waf waf-mode whitelist-source-range";

const ALB: &str = "acm-pca-arn actions.web auth-idp-cognito auth-idp-oidc auth-on-unauthenticated-request auth-scope \
    auth-session-cookie auth-session-timeout auth-type backend-protocol backend-protocol-version certificate-arn conditions.web \
    create-acm-cert customer-owned-ipv4-pool enable-frontend-nlb frontend-nlb-attributes frontend-nlb-eip-allocations \
    frontend-nlb-scheme group.name group.order healthcheck-interval-seconds healthcheck-path healthcheck-port \
    healthcheck-protocol healthcheck-timeout-seconds healthy-threshold-count inbound-cidrs ip-address-type ipam-ipv4-pool-id \
    jwt-validation listen-ports listener-attributes.HTTP-80 load-balancer-attributes load-balancer-name \
    manage-backend-security-group-rules minimum-load-balancer-capacity multi-cluster-target-group mutual-authentication scheme \
    security-group-prefix-lists security-groups shield-advanced-protection ssl-policy ssl-redirect subnets success-codes tags \
    target-control-port.web.80 target-group-attributes target-node-labels target-type transforms.web unhealthy-threshold-count \
    use-regex-path-match waf-acl-id wafv2-acl-arn wafv2-acl-name";

const ALL: [(&str, &str, &str); 5] = [
    ("nginx", "nginx.ingress.kubernetes.io/", NGINX),
    ("traefik", "traefik.ingress.kubernetes.io/", TRAEFIK),
    ("haproxy", "haproxy.org/", HAPROXY_TECH),
    ("community", "haproxy-ingress.github.io/", HAPROXY_INGRESS),
    ("alb", "alb.ingress.kubernetes.io/", ALB),
];

/// What an annotation is reported as.
fn reported(text: &str, key: &str) -> Vec<(Level, String)> {
    let made = migrate(text, &options());
    let own = made.report.entries.iter().filter(|entry| entry.setting == key);
    own.map(|entry| (entry.level, entry.message.clone())).collect()
}

#[test]
fn every_annotation_alone_is_reported_and_known() {
    for (class, prefix, names) in ALL {
        for name in names.split_whitespace() {
            for value in ["true", "/x", "10", "nonsense $x"] {
                let key = format!("{prefix}{name}");
                let said = reported(&ingress(class, &json!({ key.as_str(): value })), &key);
                assert!(!said.is_empty(), "{key}: {value} got lost");
                assert!(!said.iter().any(|(_, why)| why.contains("is known here")), "{key}: {value}: {said:?}");
            }
        }
    }
}

#[test]
fn all_annotations_together_are_reported() {
    for (class, prefix, names) in ALL {
        for value in ["true", "https://x.com", "10"] {
            let annotations: Map<String, Value> =
                names.split_whitespace().map(|name| (format!("{prefix}{name}"), json!(value))).collect();
            let made = migrate(&ingress(class, &json!(annotations)), &options());
            for key in annotations.keys() {
                assert!(made.report.entries.iter().any(|entry| entry.setting == *key), "{key}: {value} got lost");
            }
        }
    }
}

#[test]
fn annotations_of_services_are_reported() {
    for name in TRAEFIK_SERVICE.split_whitespace() {
        let key = format!("traefik.ingress.kubernetes.io/{name}");
        let service = json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "web", "namespace": "shop", "annotations": { key.as_str(): "true" } } });
        let text = format!("{}\n---\n{service}", ingress("traefik", &json!({})));
        let said = reported(&text, &key);
        assert!(!said.is_empty() && !said.iter().any(|(_, why)| why.contains("is known here")), "{key}: {said:?}");
    }
}

#[test]
fn what_nobody_knows_is_left_out_and_what_is_for_others_is_said() {
    for (key, level) in [
        ("nginx.ingress.kubernetes.io/rewrite-traget", Level::LeftOut),
        ("traefik.ingress.kubernetes.io/router.tls", Level::LeftOut),
        ("meta.helm.sh/release-name", Level::Unneeded),
        ("nginx.org/rewrites", Level::LeftOut),
        ("appgw.ingress.kubernetes.io/waf-policy-for-path", Level::LeftOut),
        ("example.com/anything", Level::LeftOut),
        ("kubernetes.io/ingress.class", Level::Unneeded),
        ("external-dns.alpha.kubernetes.io/ttl", Level::Kept),
    ] {
        let own = "nginx.ingress.kubernetes.io/use-regex";
        let both = "nginx.ingress.kubernetes.io/enable-cors";
        let text = ingress("nginx", &json!({ own: "false", both: "false", key: "x" }));
        let said = reported(&text, key);
        assert_eq!(said.iter().map(|(level, _)| *level).collect::<Vec<_>>(), [level], "{key}");
    }
}

#[test]
fn what_protects_an_ingress_and_cannot_be_translated_keeps_it_back() {
    for (class, key, value) in [
        ("nginx", "nginx.ingress.kubernetes.io/auth-type", "basic"),
        ("nginx", "nginx.ingress.kubernetes.io/auth-tls-secret", "shop/ca"),
        ("nginx", "nginx.ingress.kubernetes.io/auth-url", "https://auth.example.com/check"),
        ("nginx", "nginx.ingress.kubernetes.io/auth-url", "http://auth.iam.svc/check?allowed_groups=admins"),
        ("nginx", "nginx.ingress.kubernetes.io/server-snippet", "deny all;"),
        ("nginx", "nginx.ingress.kubernetes.io/enable-global-auth", "true"),
        ("nginx", "nginx.ingress.kubernetes.io/enable-modsecurity", "true"),
        ("traefik", "traefik.ingress.kubernetes.io/router.tls.options", "mtls@file"),
        ("haproxy", "haproxy.org/backend-config-snippet", "http-request deny"),
        ("community", "haproxy-ingress.github.io/config-backend", "http-request deny"),
        ("community", "haproxy-ingress.github.io/http-header-match", "X-Key: 1"),
        ("community", "haproxy-ingress.github.io/waf", "modsecurity"),
        ("alb", "alb.ingress.kubernetes.io/security-groups", "sg-1"),
        ("alb", "alb.ingress.kubernetes.io/security-group-prefix-lists", "pl-1"),
        ("alb", "alb.ingress.kubernetes.io/wafv2-acl-arn", "arn:aws:x"),
        ("nginx", "nginx.ingress.kubernetes.io/whitelist-source-range", "10.0.0.0/8, office"),
        ("nginx", "nginx.ingress.kubernetes.io/configuration-snippet", "deny all;"),
        ("traefik", "traefik.ingress.kubernetes.io/router.middlewares", "shop-auth@kubernetescrd"),
        ("haproxy", "haproxy.org/auth-type", "basic-auth"),
        ("haproxy", "haproxy.org/allow-list", "!10.0.0.0/8"),
        ("alb", "alb.ingress.kubernetes.io/auth-type", "oidc"),
        ("alb", "alb.ingress.kubernetes.io/scheme", "internal"),
    ] {
        let text = ingress(class, &json!({ key: value }));
        let made = migrate(&text, &options());
        assert!(made.documents.is_empty() && made.report.is_incomplete(), "{key}: {}", made.report);
        let open = migrate(&text, &super::Options { allow_unprotected: true, ..options() });
        assert!(!open.documents.is_empty() && open.report.is_incomplete(), "{key}");
    }
}

#[test]
fn of_a_class_that_is_described_other_controllers_annotations_mean_nothing() {
    let key = "traefik.ingress.kubernetes.io/router.middlewares";
    let class = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": { "name": "nginx" },
        "spec": { "controller": "k8s.io/ingress-nginx" } });
    let text = format!("{}\n---\n{class}", ingress("nginx", &json!({ key: "x" })));
    assert_eq!(reported(&text, key).first().map(|(level, _)| *level), Some(Level::Unneeded));
    // One that nobody described is taken for the controller whose annotations it has.
    let guessed = reported(&ingress("nginx", &json!({ key: "x" })), key);
    assert_eq!(guessed.first().map(|(level, _)| *level), Some(Level::LeftOut));
}

#[test]
fn two_names_of_one_setting_do_not_hide_each_other() {
    let first = "nginx.ingress.kubernetes.io/allowlist-source-range";
    let second = "nginx.ingress.kubernetes.io/whitelist-source-range";
    let text = ingress("nginx", &json!({ first: "10.0.0.0/8", second: "10.1.0.0/16" }));
    assert_eq!(reported(&text, second).first().map(|(level, _)| *level), Some(Level::LeftOut));
}
