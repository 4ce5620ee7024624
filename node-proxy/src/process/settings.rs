//! Settings of the process around a node proxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use weft_core::ids::{Namespace, ServiceAccount, Zone};
use weft_core::telemetry::Share;
use weft_tls::ExpectedServer;

use crate::app::{GatewayProxySettings, InvalidSettings, Settings};
use crate::records::Keep;
use crate::telemetry::{DEFAULT_SERIES, LogFormat, LogPolicy};

/// Fewer series than this tell nothing of anybody.
const FEWEST_SERIES: usize = 100;

/// Settings of the `node-proxy` process.
#[derive(Clone, Debug, clap::Args)]
pub struct ProcessSettings {
    /// The proxy itself.
    #[command(flatten)]
    pub proxy: Settings,
    /// The ServiceAccount of this process, NAMESPACE/SERVICEACCOUNT: who it is to the controller that taps it
    #[arg(long, env = "WEFT_PROXY_ACCOUNT", default_value = "weft-system/weft-node-proxy", value_parser = account)]
    pub own_account: Account,
    /// Listens for the mesh's Gateways too, where they are this machine's: outside of Kubernetes
    #[arg(long, env = "WEFT_GATEWAYS")]
    pub gateways: bool,
    /// Where configuration and certificates come from.
    #[command(flatten)]
    pub control: ControlSettings,
    /// What it tells.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

/// Settings of the process of one Gateway in a cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct GatewaySettings {
    /// The proxy itself.
    #[command(flatten)]
    pub proxy: GatewayProxySettings,
    /// Where configuration and certificates come from.
    #[command(flatten)]
    pub control: ControlSettings,
    /// What it tells.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

/// Where configuration and certificates come from.
#[derive(Clone, Debug, clap::Args)]
pub struct ControlSettings {
    /// The controller that serves configuration, HOST:PORT
    #[arg(long, env = "WEFT_CONTROL")]
    pub control: String,
    /// Who the controller must be, NAMESPACE/SERVICEACCOUNT
    #[arg(long, env = "WEFT_CONTROL_ACCOUNT", default_value = "weft-system/weft-controller", value_parser = account)]
    pub control_account: Account,
    /// The certificate authority, HOST:PORT; the controller's address if left out
    #[arg(long, env = "WEFT_CA")]
    pub ca: Option<String>,
    /// Who the certificate authority must be, NAMESPACE/SERVICEACCOUNT
    #[arg(long, env = "WEFT_CA_ACCOUNT", default_value = "weft-system/weft-ca", value_parser = account)]
    pub ca_account: Account,
    /// File with the token that proves which node this is; read anew for every connection
    #[arg(long, env = "WEFT_TOKEN_FILE", default_value = "/var/run/secrets/tokens/weft")]
    pub token_file: PathBuf,
    /// PEM file with the mesh's roots to start with; kept up to date if it can be written
    #[arg(long, env = "WEFT_TRUST_BUNDLE", default_value = "/var/run/secrets/weft/root.pem")]
    pub trust_bundle: PathBuf,
    /// The mesh's trust domain
    #[arg(long, env = "WEFT_TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
    /// Another name that counts as the trust domain, while that is changed; may be repeated
    #[arg(long = "trust-domain-alias", env = "WEFT_TRUST_DOMAIN_ALIASES", value_delimiter = ',')]
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// The zone this node is in, for endpoints nearby; without it that of its workloads
    #[arg(long, env = "WEFT_ZONE", value_parser = zone)]
    pub zone: Option<Zone>,
}

/// What the process tells.
#[derive(Clone, Debug, clap::Args)]
pub struct TelemetrySettings {
    /// Loopback address of the admin server
    #[arg(long, env = "WEFT_ADMIN", default_value = "127.0.0.1:15000")]
    pub admin: SocketAddr,
    /// Address of /healthz, /readyz and /metrics for a kubelet and a scraper, such as [::]:15021; none: on the admin
    /// address only
    #[arg(long, env = "WEFT_STATUS_LISTEN")]
    pub status_listen: Option<SocketAddr>,
    /// Which requests and connections get a line: off, errors, all, or a share such as 0.01 (errors always included)
    #[arg(long, env = "WEFT_ACCESS_LOG", default_value = "errors", value_parser = log_policy)]
    pub access_log: LogPolicy,
    /// How lines of the access log look: json or text
    #[arg(long, env = "WEFT_ACCESS_LOG_FORMAT", default_value = "json", value_parser = log_format)]
    pub access_log_format: LogFormat,
    /// A collector of OTLP over gRPC, such as http://collector.monitoring:4317, for the spans of whatever no TelemetryPolicy
    /// sends elsewhere; none: nothing is traced but what a policy says
    #[arg(long, env = "WEFT_OTLP_ENDPOINT", value_parser = otlp_endpoint)]
    pub otlp_endpoint: Option<String>,
    /// Such a collector for the lines of the access log that no TelemetryPolicy sends elsewhere; none: they go to the standard
    /// output
    #[arg(long, env = "WEFT_OTLP_LOGS_ENDPOINT", value_parser = otlp_endpoint)]
    pub otlp_logs_endpoint: Option<String>,
    /// How many requests begin a trace where no policy says so: 0.01, or 1 for all
    #[arg(long, env = "WEFT_TRACE_SAMPLING", default_value = "0.01", value_parser = trace_share)]
    pub trace_sampling: Share,
    /// Keeps requests whose answer takes longer to begin for `weft why`, beside those that failed; 0s: none
    #[arg(long, env = "WEFT_KEEP_SLOWER_THAN", default_value = "1s", value_parser = duration)]
    pub keep_slower_than: Duration,
    /// Keeps this share of all other requests for `weft why`, too: 0.01, or 1 for all
    #[arg(long, env = "WEFT_KEEP_SHARE", default_value_t = 0.0, value_parser = share)]
    pub keep_share: f64,
    /// Series of traffic that the metrics have at most, from 100; what is new then is counted as overflow
    #[arg(long, env = "WEFT_METRICS_SERIES", default_value_t = DEFAULT_SERIES)]
    pub metrics_series: usize,
    /// Tells metrics by Istio's names too, for tools that ask for those
    #[arg(long, env = "WEFT_ISTIO_METRICS")]
    pub istio_metrics: bool,
    /// Address where the controller, and nobody else, may look at requests as they pass (weft tap), such as [::]:15022; none:
    /// it may not
    #[arg(long, env = "WEFT_TAP_LISTEN")]
    pub tap_listen: Option<SocketAddr>,
    /// Unix socket where whoever may open it, which is the user of this process, may look at requests as they pass; none: on
    /// no socket
    #[arg(long, env = "WEFT_TAP_SOCKET")]
    pub tap_socket: Option<PathBuf>,
    /// Filter of the process's own log, such as info or weft_node_proxy=debug,info
    #[arg(long, env = "WEFT_LOG", default_value = "info")]
    pub log: String,
}

/// A ServiceAccount, as its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub service_account: ServiceAccount,
}

impl Account {
    pub(super) fn expected(&self) -> ExpectedServer {
        let Self { namespace, service_account } = self.clone();
        ExpectedServer::Account { namespace, service_account }
    }
}

impl ControlSettings {
    /// The mesh's trust domain with its aliases.
    pub(super) fn trust_domains(&self) -> TrustDomains {
        TrustDomains::new(self.trust_domain.clone(), self.trust_domain_aliases.iter().cloned())
    }

    /// Who the controller is.
    pub(super) fn controller(&self) -> SpiffeId {
        self.identity(&self.control_account)
    }

    /// The identity of a ServiceAccount.
    pub(super) fn identity(&self, account: &Account) -> SpiffeId {
        let Account { namespace, service_account } = account;
        SpiffeId::new(self.trust_domain.clone(), namespace.as_str(), service_account.as_str())
    }
}

impl TelemetrySettings {
    /// Which requests are kept.
    pub fn keep(&self) -> Keep {
        let slower_than = Some(self.keep_slower_than).filter(|limit| !limit.is_zero());
        Keep { slower_than, share: self.keep_share, ..Keep::default() }
    }
}

impl ProcessSettings {
    /// Looks for mistakes, all of them.
    ///
    /// # Errors
    /// The list.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        let mut mistakes = self.proxy.mistakes();
        mistakes.extend(mistakes_around(&self.control, &self.telemetry));
        InvalidSettings::from_list(mistakes)
    }
}

impl GatewaySettings {
    /// Looks for mistakes, all of them.
    ///
    /// # Errors
    /// The list.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        let mut mistakes = self.proxy.mistakes();
        mistakes.extend(mistakes_around(&self.control, &self.telemetry));
        InvalidSettings::from_list(mistakes)
    }
}

fn mistakes_around(control: &ControlSettings, telemetry: &TelemetrySettings) -> Vec<String> {
    let mut mistakes = Vec::new();
    if !telemetry.admin.ip().is_loopback() {
        mistakes.push(format!("--admin must be a loopback address, not {}", telemetry.admin.ip()));
    }
    if telemetry.metrics_series < FEWEST_SERIES {
        mistakes.push(format!("--metrics-series must be at least {FEWEST_SERIES}, not {}", telemetry.metrics_series));
    }
    for (name, address) in [("--control", Some(&control.control)), ("--ca", control.ca.as_ref())] {
        let port = address.map(|a| a.rsplit_once(':').is_some_and(|(host, p)| !host.is_empty() && is_port(p)));
        if port == Some(false) {
            mistakes.push(format!("{name} must be HOST:PORT, such as weft-controller.weft-system:15010"));
        }
    }
    mistakes
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn account(text: &str) -> Result<Account, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Account { namespace: namespace.into(), service_account: name.into() })
        }
        _ => Err("expected NAMESPACE/SERVICEACCOUNT".to_owned()),
    }
}

fn zone(text: &str) -> Result<Zone, String> {
    if text.is_empty() { Err("must not be empty; leave it out instead".to_owned()) } else { Ok(Zone::new(text)) }
}

fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share between 0 and 1".to_owned())
}

fn trace_share(text: &str) -> Result<Share, String> {
    share(text).and_then(|share| Share::of(share).ok_or_else(|| "expected a share between 0 and 1".to_owned()))
}

fn otlp_endpoint(text: &str) -> Result<String, String> {
    let uri = text.parse::<http::Uri>().ok().filter(|uri| uri.scheme_str() == Some("http") && uri.port().is_some());
    uri.map(|_| text.to_owned())
        .ok_or_else(|| "expected http://HOST:PORT, such as http://collector.monitoring:4317".into())
}

fn log_policy(text: &str) -> Result<LogPolicy, String> {
    match text {
        "off" => Ok(LogPolicy::Off),
        "errors" => Ok(LogPolicy::Errors),
        "all" => Ok(LogPolicy::All),
        share => match share.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(LogPolicy::Sampled(share)),
            _ => Err("expected off, errors, all, or a share between 0 and 1".to_owned()),
        },
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err("expected json or text".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        settings: ProcessSettings,
    }

    fn parse(arguments: &[&str]) -> Result<ProcessSettings, String> {
        let cli = Cli::try_parse_from([&["node-proxy", "--node", "n1"], arguments].concat());
        cli.map(|cli| cli.settings).map_err(|e| e.to_string())
    }

    #[test]
    fn mistakes_of_all_parts_are_reported_at_once() {
        let settings =
            parse(&["--control=nowhere", "--ca=:1", "--admin=0.0.0.0:1", "--connect-timeout=0s", "--metrics-series=9"]);
        let settings = settings.unwrap();
        let text = settings.validate().unwrap_err().to_string();
        for part in ["--control", "--ca", "--admin", "--connect-timeout", "--metrics-series"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        parse(&["--control=primary:15012"]).unwrap().validate().unwrap();
    }

    #[test]
    fn values_of_the_logs_are_checked() {
        let policy = |text: &str| parse(&["--control=a:1", "--access-log", text]).map(|s| s.telemetry.access_log);
        assert_eq!(policy("0.25"), Ok(LogPolicy::Sampled(0.25)));
        assert_eq!(policy("all"), Ok(LogPolicy::All));
        assert!(policy("1.5").is_err());
        assert!(policy("some").is_err());
        assert!(parse(&["--control=a:1", "--keep-share=2"]).is_err());
        assert!(parse(&["--control=a:1", "--trace-sampling=2"]).is_err());
        for odd in ["collector:4317", "https://a:4317", "http://a"] {
            assert!(parse(&["--control=a:1", "--otlp-endpoint", odd]).is_err(), "{odd}");
            assert!(parse(&["--control=a:1", "--otlp-logs-endpoint", odd]).is_err(), "{odd}");
        }
        let traced = parse(&["--control=a:1", "--otlp-endpoint=http://a.b:4317"]).unwrap().telemetry;
        assert_eq!(
            (traced.otlp_endpoint.as_deref(), traced.trace_sampling),
            (Some("http://a.b:4317"), Share::of(0.01).unwrap())
        );
        let keep = |more: &[&str]| parse(&[&["--control=a:1"], more].concat()).unwrap().telemetry.keep();
        assert_eq!(keep(&[]), Keep::default());
        assert_eq!(keep(&["--keep-slower-than=0s", "--keep-share=0.5"]).slower_than, None);
        assert!(parse(&["--control=a:1", "--access-log-format=xml"]).is_err());
        assert!(parse(&["--control=a:1", "--ca-account=weft-ca"]).is_err());
    }
}
