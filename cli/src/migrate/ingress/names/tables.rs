//! Annotations that are not translated, and why.

use super::Fate::{self, LeftOut, Protects, Unneeded};

const STREAMS: &str = "the Gateway streams bodies and buffers none";
const LIMIT: &str = "there are no limits of rates";
const LIMIT_REMEDY: &str = "limit in front of the Gateway, or in the application";
const OWN_AUTH: &str = "the Gateway doesn't check passwords";
const OWN_AUTH_REMEDY: &str = "put a service that does behind auth-url, or let the application do it";
const CLIENT_CERTIFICATES: &str = "certificates of clients are asked for by port, not by host";
const CLIENT_REMEDY: &str =
    "give these hosts a Gateway of their own with spec.tls.frontend, its authorities in a ConfigMap";
const OF_AUTH: &str = "an ExternalAuth filter has no such setting";
const OF_AUTH_REMEDY: &str = "let the authorization service do it";
const ASKED_REMEDY: &str = "look what the authorization service is told by it and decides by, and let it do so by itself; then use --allow-unprotected";
const CIPHERS: &str = "TLS has the cipher suites of the Gateway, all of them current";
const SNIPPET: &str = "a snippet of the proxy's own configuration";
const SNIPPET_REMEDY: &str = "look what it does, and whether a filter or the application can";
const WAF: &str = "the Gateway has no application firewall";
const WAF_REMEDY: &str = "keep one in front of the Gateway, or behind it";
const READINESS: &str = "endpoints are those that Kubernetes says are ready";
/// What stands for settings of the load balancer.
pub const BALANCER: &str = "the load balancer is that of the Gateway's Service";
pub const BALANCER_REMEDY: &str =
    "set it by spec.service.annotations of GatewayParameters, in the load balancer's words";
const GROUPS: &str = "who may reach the load balancer is said to that of the Gateway's Service";
const GROUPS_REMEDY: &str = "say it by spec.service.annotations of GatewayParameters, or in an AuthorizationPolicy";
const TELEMETRY: &str = "the Gateway's metrics and logs are for all routes";
/// What stands for pages of the proxy's own.
pub const ERROR_PAGES: &str = "answers of the application are passed on as they are";
pub const ERROR_REMEDY: &str = "let the application give its own pages";
const COOKIES: &str = "headers Set-Cookie are passed on as they are";
const COOKIES_REMEDY: &str = "let the application set what clients should see";
const LOCATIONS: &str = "headers Location are passed on as they are";
const LOCATIONS_REMEDY: &str = "let the application redirect to the address that clients use";
const TIMES: &str = "a route has a time for a request and for one try of it, and no other";
const TIMES_REMEDY: &str = "look whether timeouts.request or timeouts.backendRequest can stand in for it";

/// Of ingress-nginx, and of others that have the same under a name of theirs.
pub const COMMON: &[(&str, Fate)] = &[
    ("auth-type", Protects(OWN_AUTH, OWN_AUTH_REMEDY)),
    ("auth-secret", Protects(OWN_AUTH, OWN_AUTH_REMEDY)),
    ("auth-secret-type", Protects(OWN_AUTH, OWN_AUTH_REMEDY)),
    ("auth-realm", Protects(OWN_AUTH, OWN_AUTH_REMEDY)),
    ("auth-tls-secret", Protects(CLIENT_CERTIFICATES, CLIENT_REMEDY)),
    ("auth-tls-verify-client", Protects(CLIENT_CERTIFICATES, CLIENT_REMEDY)),
    ("auth-tls-verify-depth", Protects(CLIENT_CERTIFICATES, CLIENT_REMEDY)),
    ("auth-tls-match-cn", Protects(CLIENT_CERTIFICATES, CLIENT_REMEDY)),
    ("auth-tls-strict", Protects(CLIENT_CERTIFICATES, CLIENT_REMEDY)),
    ("auth-tls-error-page", LeftOut(ERROR_PAGES, ERROR_REMEDY)),
    ("auth-tls-cert-header", LeftOut("certificates of clients are not passed on", "look who reads the header")),
    (
        "auth-tls-pass-certificate-to-upstream",
        LeftOut("certificates of clients are not passed on", "look who reads header ssl-client-cert"),
    ),
    ("satisfy", Protects("all conditions have to hold, or the policies say which", "write an AuthorizationPolicy")),
    ("auth-cache-key", Unneeded("every request is asked about: answers are not kept")),
    ("auth-cache-duration", Unneeded("every request is asked about: answers are not kept")),
    ("auth-keepalive", Unneeded("connections to the authorization service are pooled")),
    ("auth-keepalive-share-vars", Unneeded("connections to the authorization service are pooled")),
    ("auth-keepalive-requests", Unneeded("connections to the authorization service are pooled")),
    ("auth-keepalive-timeout", Unneeded("connections to the authorization service are pooled")),
    (
        "auth-signin",
        LeftOut("the authorization service's own answer is passed on", "let it redirect to the sign-in page"),
    ),
    ("auth-signin-redirect-param", LeftOut(OF_AUTH, OF_AUTH_REMEDY)),
    ("auth-request-redirect", LeftOut(OF_AUTH, OF_AUTH_REMEDY)),
    ("auth-proxy-set-headers", Protects(OF_AUTH, ASKED_REMEDY)),
    ("auth-always-set-cookie", LeftOut(OF_AUTH, OF_AUTH_REMEDY)),
    ("auth-snippet", Protects(SNIPPET, ASKED_REMEDY)),
    (
        "enable-global-auth",
        Protects(
            "what the controller's ConfigMap asks of all Ingresses isn't read",
            "add ExternalAuth filters to the routes",
        ),
    ),
    ("client-body-buffer-size", Unneeded(STREAMS)),
    ("proxy-buffering", Unneeded(STREAMS)),
    ("proxy-buffers-number", Unneeded(STREAMS)),
    ("proxy-buffer-size", Unneeded(STREAMS)),
    ("proxy-busy-buffers-size", Unneeded(STREAMS)),
    ("proxy-max-temp-file-size", Unneeded(STREAMS)),
    ("proxy-request-buffering", Unneeded(STREAMS)),
    ("custom-http-errors", LeftOut(ERROR_PAGES, ERROR_REMEDY)),
    ("disable-proxy-intercept-errors", Unneeded(ERROR_PAGES)),
    ("default-backend", LeftOut("a rule without endpoints answers 503", "give the default backend a rule of its own")),
    ("http2-push-preload", Unneeded("browsers have given HTTP/2 push up")),
    ("limit-connections", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("limit-rps", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("limit-rpm", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("limit-burst-multiplier", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("limit-rate", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("limit-rate-after", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("limit-whitelist", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("limit-allowlist", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("proxy-cookie-domain", LeftOut(COOKIES, COOKIES_REMEDY)),
    ("proxy-cookie-path", LeftOut(COOKIES, COOKIES_REMEDY)),
    ("proxy-redirect-from", LeftOut(LOCATIONS, LOCATIONS_REMEDY)),
    ("proxy-redirect-to", LeftOut(LOCATIONS, LOCATIONS_REMEDY)),
    ("proxy-connect-timeout", LeftOut(TIMES, TIMES_REMEDY)),
    ("proxy-send-timeout", LeftOut(TIMES, TIMES_REMEDY)),
    (
        "proxy-http-version",
        LeftOut("backends are spoken to over HTTP/1.1, or what appProtocol of their port says", "set appProtocol"),
    ),
    ("proxy-ssl-ciphers", Unneeded(CIPHERS)),
    ("proxy-ssl-protocols", Unneeded("TLS is 1.2 or 1.3")),
    ("proxy-ssl-verify-depth", Unneeded("a chain may be as long as the authority allows")),
    ("enable-rewrite-log", Unneeded(TELEMETRY)),
    ("enable-access-log", LeftOut("the access log is the whole Gateway's", "filter where the log is read")),
    ("enable-opentelemetry", LeftOut(TELEMETRY, "see what the Gateway can trace")),
    ("opentelemetry-trust-incoming-span", LeftOut(TELEMETRY, "see what the Gateway can trace")),
    ("opentelemetry-operation-name", LeftOut(TELEMETRY, "see what the Gateway can trace")),
    ("server-snippet", Protects(SNIPPET, SNIPPET_REMEDY)),
    ("stream-snippet", LeftOut(SNIPPET, SNIPPET_REMEDY)),
    ("service-upstream", Unneeded("endpoints are followed without a restart, which is what it was for")),
    ("affinity-mode", Unneeded("a session stays where it is as long as that endpoint serves")),
    ("affinity-canary-behavior", Unneeded("a session stays with its backend")),
    ("ssl-ciphers", Unneeded(CIPHERS)),
    ("ssl-prefer-server-ciphers", Unneeded(CIPHERS)),
    ("connection-proxy-header", Unneeded("connections to backends are kept open where both sides can")),
    ("enable-modsecurity", Protects(WAF, WAF_REMEDY)),
    ("enable-owasp-core-rules", Protects(WAF, WAF_REMEDY)),
    ("modsecurity-transaction-id", Protects(WAF, WAF_REMEDY)),
    ("modsecurity-snippet", Protects(WAF, WAF_REMEDY)),
    (
        "fastcgi-index",
        LeftOut("backends that speak FastCGI are not reached", "put a web server before the application"),
    ),
    (
        "fastcgi-params-configmap",
        LeftOut("backends that speak FastCGI are not reached", "put a web server before the application"),
    ),
    ("upstream-hash-by-subset", LeftOut("there are no subsets of endpoints", "choose sessionPersistence")),
    ("upstream-hash-by-subset-size", LeftOut("there are no subsets of endpoints", "choose sessionPersistence")),
    (
        "use-port-in-redirects",
        LeftOut("a redirect keeps or leaves out ports as the Gateway API has it", "set requestRedirect.port"),
    ),
    (
        "relative-redirects",
        LeftOut("redirects are absolute", "nothing, as long as clients use the Gateway's own address"),
    ),
    ("preserve-trailing-slash", Unneeded("a redirect to HTTPS keeps the path as it is")),
];

/// Of Traefik.
pub const TRAEFIK: &[(&str, Fate)] = &[
    (
        "router.middlewares",
        Protects(
            "middlewares are objects of Traefik's own",
            "look what each does: most are a filter of a rule; then use --allow-unprotected",
        ),
    ),
    (
        "router.priority",
        LeftOut("the most specific match wins, as the Gateway API has it", "look whether two rules overlap"),
    ),
    ("router.rulesyntax", Unneeded("rules are written anew")),
    (
        "router.tls.certresolver",
        LeftOut(
            "the Gateway gets no certificates by itself",
            "give the Ingress spec.tls with a Secret, of cert-manager say",
        ),
    ),
    (
        "router.tls.options",
        Protects(
            "options of TLS are an object of Traefik's own",
            "see spec.tls of the Gateway for certificates of clients",
        ),
    ),
    ("router.observability.accesslogs", Unneeded(TELEMETRY)),
    ("router.observability.metrics", Unneeded(TELEMETRY)),
    ("router.observability.tracing", Unneeded(TELEMETRY)),
    ("router.observability.traceverbosity", Unneeded(TELEMETRY)),
    (
        "service.middlewares",
        Protects(
            "middlewares are objects of Traefik's own",
            "look what each does: most are a filter of a rule; then use --allow-unprotected",
        ),
    ),
    (
        "service.serverstransport",
        LeftOut("a ServersTransport is an object of Traefik's own", "write a BackendTLSPolicy for the Service"),
    ),
    ("service.nativelb", Unneeded("endpoints are followed without a restart")),
    (
        "service.nodeportlb",
        LeftOut("endpoints are pods, not ports of nodes", "nothing, if the Gateway reaches the pods"),
    ),
];

/// Of both controllers for HAProxy.
pub const HAPROXY: &[(&str, Fate)] = &[
    ("check", Unneeded(READINESS)),
    ("check-http", Unneeded(READINESS)),
    ("check-interval", Unneeded(READINESS)),
    ("timeout-check", Unneeded(READINESS)),
    ("agent-check-addr", Unneeded(READINESS)),
    ("agent-check-interval", Unneeded(READINESS)),
    ("agent-check-port", Unneeded(READINESS)),
    ("agent-check-send", Unneeded(READINESS)),
    ("health-check-addr", Unneeded(READINESS)),
    ("health-check-fall-count", Unneeded(READINESS)),
    ("health-check-interval", Unneeded(READINESS)),
    ("health-check-port", Unneeded(READINESS)),
    ("health-check-rise-count", Unneeded(READINESS)),
    ("health-check-uri", Unneeded(READINESS)),
    ("backend-check-interval", Unneeded(READINESS)),
    ("scale-server-slots", Unneeded("endpoints are followed without a restart")),
    ("slots-min-free", Unneeded("endpoints are followed without a restart")),
    ("backend-server-slots-increment", Unneeded("endpoints are followed without a restart")),
    ("dynamic-scaling", Unneeded("endpoints are followed without a restart")),
    ("initial-weight", Unneeded("endpoints are followed without a restart")),
    ("backend-config-snippet", Protects(SNIPPET, SNIPPET_REMEDY)),
    ("config-backend", Protects(SNIPPET, SNIPPET_REMEDY)),
    ("config-backend-early", Protects(SNIPPET, SNIPPET_REMEDY)),
    ("config-backend-late", Protects(SNIPPET, SNIPPET_REMEDY)),
    (
        "src-ip-header",
        LeftOut(
            "whom to believe about clients' addresses is said for the whole Gateway",
            "set spec.clientAddress of GatewayParameters",
        ),
    ),
    ("forwarded-for", Unneeded("X-Forwarded-For is always set")),
    ("pod-maxconn", LeftOut("connections to one endpoint are not limited", LIMIT_REMEDY)),
    ("maxconn-server", LeftOut("connections to one endpoint are not limited", LIMIT_REMEDY)),
    ("maxqueue-server", LeftOut("connections to one endpoint are not limited", LIMIT_REMEDY)),
    ("rate-limit-period", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("rate-limit-status-code", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("rate-limit-requests", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("rate-limit-size", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("rate-limit-whitelist", LeftOut(LIMIT, LIMIT_REMEDY)),
    ("request-capture", LeftOut("the access log has its own fields", "read them there")),
    ("request-capture-len", LeftOut("the access log has its own fields", "read them there")),
    (
        "send-proxy-protocol",
        LeftOut("PROXY protocol towards a backend is the Service's setting", "see docs/gateways.md"),
    ),
    ("proxy-protocol", LeftOut("PROXY protocol towards a backend is the Service's setting", "see docs/gateways.md")),
    ("server-ca", LeftOut("authorities of backends are in a ConfigMap", "write a BackendTLSPolicy for the Service")),
    ("server-crt", LeftOut("the Gateway has one certificate for all backends", "set spec.tls.backend of the Gateway")),
    (
        "secure-crt-secret",
        LeftOut("the Gateway has one certificate for all backends", "set spec.tls.backend of the Gateway"),
    ),
    ("secure-sni", LeftOut("a backend is told the hostname of its BackendTLSPolicy", "write one for the Service")),
    ("ssl-redirect-port", LeftOut("a redirect to HTTPS is to port 443", "set requestRedirect.port")),
    ("standalone-backend", Unneeded("it only changes how the proxy groups servers")),
    ("cookie-persistence-no-dynamic", LeftOut("cookies of other programs are not read", "choose sessionPersistence")),
    ("oauth", Protects("single sign-on is a service's", "put it behind an ExternalAuth filter")),
    ("oauth-headers", Protects("single sign-on is a service's", "put it behind an ExternalAuth filter")),
    ("oauth-uri-prefix", Protects("single sign-on is a service's", "put it behind an ExternalAuth filter")),
    ("auth-headers-fail", LeftOut(OF_AUTH, OF_AUTH_REMEDY)),
    ("auth-headers-request", LeftOut(OF_AUTH, OF_AUTH_REMEDY)),
    ("auth-external-placement", Unneeded("the service is asked before a backend is chosen")),
    ("waf", Protects(WAF, WAF_REMEDY)),
    ("waf-mode", Protects(WAF, WAF_REMEDY)),
    (
        "allowlist-source-header",
        Protects(
            "whom to believe about clients' addresses is said for the whole Gateway",
            "set spec.clientAddress of GatewayParameters, and use --allow-unprotected",
        ),
    ),
    ("timeout-http-request", LeftOut(TIMES, TIMES_REMEDY)),
    ("timeout-keep-alive", LeftOut(TIMES, TIMES_REMEDY)),
    ("timeout-queue", LeftOut(TIMES, TIMES_REMEDY)),
    ("timeout-server-fin", LeftOut(TIMES, TIMES_REMEDY)),
    ("timeout-tunnel", LeftOut(TIMES, TIMES_REMEDY)),
    ("path-type", LeftOut("types of paths are those of the Ingress itself", "set pathType")),
    ("http-header-match", Protects("a condition on headers is a rule's", "add matches[].headers to the rule")),
    ("http-header-match-regex", Protects("a condition on headers is a rule's", "add matches[].headers to the rule")),
    ("cors-allow-origin-regex", LeftOut("origins are whole, or have * for the first labels", "list them")),
    ("server-alias-regex", LeftOut("hostnames are whole, or have * for the first labels", "list them")),
    ("redirect-from-regex", LeftOut("hostnames are whole, or have * for the first labels", "list them")),
    (
        "redirect-from",
        LeftOut("a host that redirects needs a route", "write an HTTPRoute with requestRedirect.hostname"),
    ),
    (
        "blue-green-deploy",
        LeftOut("weights are of Services", "give each version a Service, and weights in backendRefs"),
    ),
    (
        "blue-green-balance",
        LeftOut("weights are of Services", "give each version a Service, and weights in backendRefs"),
    ),
    ("blue-green-mode", LeftOut("weights are of Services", "give each version a Service, and weights in backendRefs")),
    (
        "blue-green-cookie",
        LeftOut("weights are of Services", "give each version a Service, and weights in backendRefs"),
    ),
    (
        "blue-green-header",
        LeftOut("weights are of Services", "give each version a Service, and weights in backendRefs"),
    ),
];

/// Of the AWS Load Balancer Controller.
pub const ALB: &[(&str, Fate)] = &[
    (
        "certificate-arn",
        LeftOut("certificates are in Secrets", "give the Ingress spec.tls with a Secret, of cert-manager say"),
    ),
    (
        "create-acm-cert",
        LeftOut("certificates are in Secrets", "give the Ingress spec.tls with a Secret, of cert-manager say"),
    ),
    (
        "acm-pca-arn",
        LeftOut("certificates are in Secrets", "give the Ingress spec.tls with a Secret, of cert-manager say"),
    ),
    ("auth-idp-cognito", Protects("single sign-on is a service's", "put it behind an ExternalAuth filter")),
    ("auth-idp-oidc", Protects("single sign-on is a service's", "put it behind an ExternalAuth filter")),
    (
        "auth-on-unauthenticated-request",
        Protects("single sign-on is a service's", "put it behind an ExternalAuth filter"),
    ),
    ("auth-scope", Protects("single sign-on is a service's", "put it behind an ExternalAuth filter")),
    ("auth-session-cookie", Protects("single sign-on is a service's", "put it behind an ExternalAuth filter")),
    ("auth-session-timeout", Protects("single sign-on is a service's", "put it behind an ExternalAuth filter")),
    ("jwt-validation", Protects("tokens are a service's to check", "put it behind an ExternalAuth filter")),
    ("mutual-authentication", Protects(CLIENT_CERTIFICATES, CLIENT_REMEDY)),
    ("group.name", Unneeded("the Gateway is of all Ingresses of its class and namespace")),
    (
        "group.order",
        LeftOut("the most specific match wins, as the Gateway API has it", "look whether two rules overlap"),
    ),
    ("healthcheck-interval-seconds", Unneeded(READINESS)),
    ("healthcheck-path", Unneeded(READINESS)),
    ("healthcheck-port", Unneeded(READINESS)),
    ("healthcheck-protocol", Unneeded(READINESS)),
    ("healthcheck-timeout-seconds", Unneeded(READINESS)),
    ("healthy-threshold-count", Unneeded(READINESS)),
    ("unhealthy-threshold-count", Unneeded(READINESS)),
    ("success-codes", Unneeded(READINESS)),
    ("target-type", Unneeded("endpoints are pods")),
    ("target-node-labels", Unneeded("endpoints are pods")),
    (
        "multi-cluster-target-group",
        LeftOut("a Gateway serves its own cluster", "choose between clusters in front of it"),
    ),
    ("target-group-attributes", LeftOut("balancing is the Gateway's own", "see sessionPersistence for stickiness")),
    ("manage-backend-security-group-rules", Unneeded("the Gateway's pods are in the cluster")),
    ("security-groups", Protects(GROUPS, GROUPS_REMEDY)),
    ("security-group-prefix-lists", Protects(GROUPS, GROUPS_REMEDY)),
    ("shield-advanced-protection", LeftOut(BALANCER, BALANCER_REMEDY)),
    ("ssl-policy", Unneeded("TLS is 1.2 or 1.3, with current cipher suites")),
    ("wafv2-acl-arn", Protects(WAF, WAF_REMEDY)),
    ("wafv2-acl-name", Protects(WAF, WAF_REMEDY)),
    ("waf-acl-id", Protects(WAF, WAF_REMEDY)),
    ("web-acl-id", Protects(WAF, WAF_REMEDY)),
    (
        "use-regex-path-match",
        LeftOut("paths are read as Ingress and the controller's patterns have them", "write the rule by hand"),
    ),
];

/// Of the AWS Load Balancer Controller: what is said of the load balancer itself.
pub const ALB_BALANCER: &[&str] = &[
    "subnets",
    "tags",
    "load-balancer-name",
    "load-balancer-attributes",
    "ip-address-type",
    "customer-owned-ipv4-pool",
    "ipam-ipv4-pool-id",
    "minimum-load-balancer-capacity",
    "enable-frontend-nlb",
];

/// Prefixes of names of the AWS Load Balancer Controller, with what becomes of those.
pub const ALB_FAMILIES: &[(&str, Fate)] = &[
    ("frontend-nlb-", LeftOut(BALANCER, BALANCER_REMEDY)),
    ("listener-attributes.", LeftOut(BALANCER, BALANCER_REMEDY)),
    (
        "conditions.",
        Protects("conditions are a rule's", "add them to matches[] of the rule, and use --allow-unprotected"),
    ),
    ("transforms.", LeftOut("what is rewritten is a rule's", "add a filter URLRewrite to the rule")),
    ("target-control-port.", Unneeded(READINESS)),
];
