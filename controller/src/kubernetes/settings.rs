//! Settings of the controller in a cluster. Every mistake is told at once, with the setting's name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;
use weft_core::change::MeshConfig;
use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use weft_core::ids::{Namespace, ServiceAccount};
use weft_k8s::index::IndexConfig;
use weft_k8s::translate::gateway::{GatewaySettings, KeyPairCheck, Place};

use super::gateways::PodSettings;
use super::ranges::GivenRanges;

/// The settings as they were given. They are text, so that one mistake doesn't hide the next.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The namespace of the mesh, which this process runs in
    #[arg(long, env = "POD_NAMESPACE", default_value = "weft-system")]
    pub namespace: String,
    /// The name of this replica, different for each: its pod's
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod_name: String,
    /// Where node proxies get their configuration
    #[arg(long, env = "WEFT_LISTEN", default_value = "[::]:15010")]
    pub listen: String,
    /// Where probes and Prometheus are answered
    #[arg(long, env = "WEFT_HEALTH", default_value = "[::]:15014")]
    pub health: String,
    /// Where people look at the live mesh (weft tap), who show a token and have the right
    #[arg(long, env = "WEFT_VIEW", default_value = "[::]:15016")]
    pub view: String,
    /// The certificate authority, HOST:PORT; weft-ca in the mesh's namespace if left out
    #[arg(long, env = "WEFT_CA", default_value = "")]
    pub ca: String,
    /// Who the certificate authority must be, NAMESPACE/SERVICEACCOUNT; weft-ca of the mesh's namespace if left out
    #[arg(long, env = "WEFT_CA_ACCOUNT", default_value = "")]
    pub ca_account: String,
    /// Who may follow the configuration, NAMESPACE/SERVICEACCOUNT; weft-node-proxy of the mesh's namespace if left out
    #[arg(long, env = "WEFT_PROXY_ACCOUNT", default_value = "")]
    pub proxy_account: String,
    /// The ServiceAccount of this process
    #[arg(long, env = "WEFT_SERVICE_ACCOUNT", default_value = "weft-controller")]
    pub service_account: String,
    /// File with the token that proves who this is; read anew for every request
    #[arg(long, env = "WEFT_TOKEN_FILE", default_value = "/var/run/secrets/tokens/weft")]
    pub token_file: PathBuf,
    /// PEM file with the mesh's roots; waited for if it isn't there yet
    #[arg(long, env = "WEFT_TRUST_BUNDLE", default_value = "/var/run/secrets/weft/root.pem")]
    pub trust_bundle: PathBuf,
    /// The audience of the tokens of node proxies
    #[arg(long, env = "WEFT_TOKEN_AUDIENCE", default_value = "weft")]
    pub token_audience: String,
    /// The mesh's trust domain
    #[arg(long, env = "WEFT_TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// Another name that counts as the trust domain, while that is changed; may be repeated
    #[arg(long = "trust-domain-alias", env = "WEFT_TRUST_DOMAIN_ALIASES", value_delimiter = ',')]
    pub trust_domain_aliases: Vec<String>,
    /// The DNS suffix of Services
    #[arg(long, env = "WEFT_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The namespace whose policies may apply to the whole mesh; the mesh's own if left out
    #[arg(long, env = "WEFT_ROOT_NAMESPACE", default_value = "")]
    pub root_namespace: String,
    /// A range that pods get addresses from, may be repeated; what Nodes say (podCIDRs) if left out
    #[arg(long = "pod-range", env = "WEFT_POD_RANGES", value_delimiter = ',')]
    pub pod_ranges: Vec<String>,
    /// A range that Services get addresses from, may be repeated; what ServiceCIDRs say if left out
    #[arg(long = "service-range", env = "WEFT_SERVICE_RANGES", value_delimiter = ',')]
    pub service_ranges: Vec<String>,
    /// Traffic between pods of one node goes through the tunnel, too
    #[arg(long, env = "WEFT_FORCE_WIRE")]
    pub force_wire: bool,
    /// The image of the pods of Gateways, which is the node proxy's; left out, Gateways are not served
    #[arg(long, env = "WEFT_GATEWAY_IMAGE", default_value = "")]
    pub gateway_image: String,
    /// How that is pulled: Always, IfNotPresent or Never; what the cluster does by itself if left out
    #[arg(long, env = "WEFT_GATEWAY_PULL_POLICY", default_value = "")]
    pub gateway_pull_policy: String,
    /// A Secret for pulling it, which has to be in each Gateway's namespace, may be repeated
    #[arg(long = "gateway-pull-secret", env = "WEFT_GATEWAY_PULL_SECRETS", value_delimiter = ',')]
    pub gateway_pull_secrets: Vec<String>,
    /// Where the pods of Gateways reach this process, HOST:PORT; weft-controller in the mesh's namespace if left out
    #[arg(long, env = "WEFT_GATEWAY_CONTROL", default_value = "")]
    pub gateway_control: String,
    /// One more argument for the pods of Gateways, may be repeated
    #[arg(long = "gateway-arg", env = "WEFT_GATEWAY_ARGS", value_delimiter = ' ', allow_hyphen_values = true)]
    pub gateway_args: Vec<String>,
    /// How long a silent leader goes on to be one, in seconds
    #[arg(long, env = "WEFT_LEASE_SECONDS", default_value = "15")]
    pub lease_seconds: String,
    /// Filter of the log, such as info or weft_controller=debug,info
    #[arg(long, env = "WEFT_LOG", default_value = "info")]
    pub log: String,
}

/// A ServiceAccount, as its namespace and name.
pub type Account = (Namespace, ServiceAccount);

/// The settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the mesh.
    pub namespace: Namespace,
    /// The name of this replica.
    pub instance: String,
    /// Where node proxies get their configuration.
    pub listen: SocketAddr,
    /// Where probes and Prometheus are answered.
    pub health: SocketAddr,
    /// Where people look at the live mesh.
    pub view: SocketAddr,
    /// The certificate authority, `host:port`.
    pub ca: String,
    /// Who it must be.
    pub ca_account: Account,
    /// Who may follow the configuration.
    pub proxy_account: Account,
    /// Who this process is.
    pub identity: SpiffeId,
    /// Where its token is.
    pub token_file: PathBuf,
    /// Where the mesh's roots are.
    pub trust_bundle: PathBuf,
    /// The audience of tokens.
    pub token_audience: String,
    /// Of the index.
    pub index: IndexConfig,
    /// Ranges that aren't to be learnt from the cluster.
    pub ranges: GivenRanges,
    /// Of the pods of Gateways; `None`: they are not served.
    pub gateways: Option<PodSettings>,
    /// How long a silent leader goes on to be one.
    pub lease: Duration,
    /// Filter of the log.
    pub log: String,
}

/// All that is wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>);

impl Args {
    /// Checks everything. `hostname` stands for the name of the replica if none was given.
    ///
    /// # Errors
    /// The list of all mistakes.
    pub fn check(self, hostname: &str) -> Result<Settings, Mistakes> {
        let mut wrong = Vec::new();
        let (given, wrong) = (&self, &mut wrong);
        let namespace = label(&given.namespace, "--namespace", wrong);
        let in_mesh = |name: &str| format!("{}/{name}", given.namespace);
        let or = |text: &str, default: String| if text.is_empty() { default } else { text.to_owned() };
        let ca = or(&given.ca, format!("weft-ca.{}.svc:15012", given.namespace));
        if !ca.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
        {
            wrong.push(format!("--ca must be HOST:PORT, such as weft-ca.weft-system.svc:15012, not {ca:?}"));
        }
        let instance = or(&given.pod_name, hostname.to_owned());
        if instance.is_empty() {
            wrong.push("--pod-name is missing: replicas are told apart by it".to_owned());
        }
        let trust_domains = given.trust_domains(wrong);
        let account = label(&given.service_account, "--service-account", wrong);
        let root = or(&given.root_namespace, given.namespace.clone());
        let lease: u64 = parse(&given.lease_seconds, "--lease-seconds", wrong).unwrap_or_default();
        if !(3..=600).contains(&lease) && given.lease_seconds.parse::<u64>().is_ok() {
            wrong.push(format!("--lease-seconds must be between 3 and 600, not {lease}"));
        }
        if let Err(error) = EnvFilter::try_new(&given.log) {
            wrong.push(format!("--log {:?}: {error}", given.log));
        }
        let mesh = MeshConfig {
            trust_domains: trust_domains.clone(),
            cluster_domain: label_path(&given.cluster_domain, "--cluster-domain", wrong),
            cluster_ranges: Vec::new(),
            force_wire: given.force_wire,
            node_addresses: Vec::new(),
        };
        let settings = Settings {
            identity: SpiffeId::new(trust_domains.own().clone(), namespace.as_str(), account.as_str()),
            listen: parse(&given.listen, "--listen", wrong).unwrap_or(UNUSED),
            health: parse(&given.health, "--health", wrong).unwrap_or(UNUSED),
            view: parse(&given.view, "--view", wrong).unwrap_or(UNUSED),
            ca_account: pair(&or(&given.ca_account, in_mesh("weft-ca")), "--ca-account", wrong),
            proxy_account: pair(&or(&given.proxy_account, in_mesh("weft-node-proxy")), "--proxy-account", wrong),
            index: IndexConfig {
                mesh,
                mesh_namespace: namespace.as_str().into(),
                root_namespace: label(&root, "--root-namespace", wrong).into(),
                gateways: (!given.gateway_image.is_empty()).then(gateway_settings),
            },
            ranges: GivenRanges {
                pods: ranges(&given.pod_ranges, "--pod-range", wrong),
                services: ranges(&given.service_ranges, "--service-range", wrong),
            },
            gateways: self.pods(&ca, wrong),
            namespace: namespace.into(),
            instance,
            ca,
            token_file: given.token_file.clone(),
            trust_bundle: given.trust_bundle.clone(),
            token_audience: given.token_audience.clone(),
            lease: Duration::from_secs(lease),
            log: given.log.clone(),
        };
        if wrong.is_empty() { Ok(settings) } else { Err(Mistakes(std::mem::take(wrong))) }
    }
}

/// How Gateways are understood.
fn gateway_settings() -> GatewaySettings {
    GatewaySettings { place: Place::Cluster, check: KeyPairCheck(weft_tls::check_key_pair) }
}

impl Args {
    fn trust_domains(&self, wrong: &mut Vec<String>) -> TrustDomains {
        let own: Option<TrustDomain> = parse(&self.trust_domain, "--trust-domain", wrong);
        let given = self.trust_domain_aliases.iter().filter(|alias| !alias.is_empty());
        let aliases: Vec<TrustDomain> = given.filter_map(|alias| parse(alias, "--trust-domain-alias", wrong)).collect();
        TrustDomains::new(own.unwrap_or_default(), aliases)
    }

    /// Settings of the pods of Gateways; `None` if they are not to be served.
    fn pods(&self, ca: &str, wrong: &mut Vec<String>) -> Option<PodSettings> {
        if self.gateway_image.is_empty() {
            return None;
        }
        let in_mesh = |name: &str| format!("{}/{name}", self.namespace);
        let or = |text: &str, default: String| if text.is_empty() { default } else { text.to_owned() };
        let policy = self.gateway_pull_policy.clone();
        if !["", "Always", "IfNotPresent", "Never"].contains(&policy.as_str()) {
            wrong.push(format!("--gateway-pull-policy must be Always, IfNotPresent or Never, not {policy:?}"));
        }
        let own = in_mesh(&self.service_account);
        Some(PodSettings {
            image: self.gateway_image.clone(),
            pull_policy: policy,
            pull_secrets: self.gateway_pull_secrets.iter().filter(|name| !name.is_empty()).cloned().collect(),
            control: or(&self.gateway_control, format!("weft-controller.{}.svc:15010", self.namespace)),
            control_account: pair(&own, "--service-account", wrong),
            ca: ca.to_owned(),
            ca_account: pair(&or(&self.ca_account, in_mesh("weft-ca")), "--ca-account", wrong),
            trust_domain: self.trust_domain.clone(),
            trust_domain_aliases: self.trust_domain_aliases.iter().filter(|alias| !alias.is_empty()).cloned().collect(),
            token_audience: self.token_audience.clone(),
            log: self.log.clone(),
            arguments: self.gateway_args.iter().filter(|argument| !argument.is_empty()).cloned().collect(),
            roots: self.trust_bundle.clone(),
        })
    }
}

/// Stands for an address that could not be read; settings with a mistake are never used.
const UNUSED: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0));

fn parse<T: FromStr<Err: std::fmt::Display>>(text: &str, name: &str, wrong: &mut Vec<String>) -> Option<T> {
    text.parse().inspect_err(|error: &T::Err| wrong.push(format!("{name} {text:?}: {error}"))).ok()
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn label(text: &str, name: &str, wrong: &mut Vec<String>) -> String {
    if !is_label(text) {
        wrong.push(format!("{name} {text:?}: a name has lower-case letters, digits and dashes, at most 63"));
    }
    text.to_owned()
}

fn label_path(text: &str, name: &str, wrong: &mut Vec<String>) -> String {
    if !text.split('.').all(is_label) {
        wrong.push(format!("{name} {text:?}: expected a domain such as cluster.local"));
    }
    text.to_owned()
}

fn pair(text: &str, name: &str, wrong: &mut Vec<String>) -> Account {
    match text.split_once('/') {
        Some((namespace, account)) if is_label(namespace) && account.split('.').all(is_label) => {
            (namespace.into(), account.into())
        }
        _ => {
            wrong.push(format!("{name} {text:?}: expected NAMESPACE/SERVICEACCOUNT"));
            ("".into(), "".into())
        }
    }
}

fn ranges(texts: &[String], name: &str, wrong: &mut Vec<String>) -> Vec<IpNet> {
    texts.iter().filter(|t| !t.is_empty()).filter_map(|text| parse(text, name, wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn check(arguments: &[&str]) -> Result<Settings, Mistakes> {
        Cli::try_parse_from([&["weft-controller"], arguments].concat()).unwrap().args.check("host")
    }

    #[test]
    fn what_the_chart_gives_is_enough() {
        let settings = check(&["--namespace=mesh", "--pod-name=weft-controller-0"]).unwrap();
        assert_eq!(settings.ca, "weft-ca.mesh.svc:15012");
        assert_eq!(settings.ca_account, ("mesh".into(), "weft-ca".into()));
        assert_eq!(settings.proxy_account, ("mesh".into(), "weft-node-proxy".into()));
        assert_eq!(settings.identity.to_string(), "spiffe://cluster.local/ns/mesh/sa/weft-controller");
        assert_eq!(settings.index.root_namespace, "mesh".into());
        let elsewhere = check(&["--namespace=mesh", "--root-namespace=policies"]).unwrap().index;
        assert_eq!((elsewhere.mesh_namespace, elsewhere.root_namespace), ("mesh".into(), "policies".into()));
        assert_eq!(check(&[]).unwrap().instance, "host");
        let renamed = ["--trust-domain=new.example", "--trust-domain-alias=old.example,", "--gateway-image=a"];
        let renamed = check(&renamed).unwrap();
        let names: Vec<_> = renamed.index.mesh.trust_domains.names().map(TrustDomain::as_str).collect();
        assert_eq!(
            (names, renamed.identity.trust_domain.as_str()),
            (vec!["new.example", "old.example"], "new.example")
        );
        assert_eq!(renamed.gateways.unwrap().trust_domain_aliases, ["old.example"]);
        let ranges = check(&["--pod-range=10.0.0.0/8,fd00::/48", "--pod-range=11.0.0.0/8"]).unwrap().ranges;
        assert_eq!((ranges.pods.len(), ranges.services.len()), (3, 0));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let mistakes = [
            "--namespace=Weft_System",
            "--listen=15010",
            "--health=nowhere",
            "--ca=weft-ca",
            "--ca-account=weft-ca",
            "--proxy-account=a/b/c",
            "--trust-domain=UPPER/CASE",
            "--trust-domain-alias=*.example",
            "--cluster-domain=.local",
            "--root-namespace=-",
            "--pod-range=10.0.0.0/33",
            "--service-range=all",
            "--lease-seconds=1",
            "--log=a=b=c",
        ];
        let text = check(&mistakes).unwrap_err().to_string();
        for mistake in mistakes {
            let name = mistake.split('=').next().unwrap();
            assert!(text.contains(name), "{name} in {text}");
        }
        assert!(check(&["--lease-seconds=soon"]).unwrap_err().0.len() == 1);
    }
}
