//! `weft version`: this program's, and those of the mesh's parts.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;

use serde::Serialize;

use super::checks::components::tags;
use super::facts::Facts;
use super::{Target, print};
use crate::{Output, table};

/// What to print.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this program's
    #[arg(long)]
    client: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Versions {
    pub client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<String>,
    /// Image tags by component.
    pub components: BTreeMap<&'static str, Vec<String>>,
    /// Why there is no more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl Versions {
    fn of(facts: &Facts) -> Self {
        let components = tags(facts).into_iter().filter(|(_, tags)| !tags.is_empty());
        Self {
            client: env!("CARGO_PKG_VERSION"),
            kubernetes: Some(facts.server.version.clone()),
            components: components.map(|(name, tags)| (name, tags.into_iter().collect())).collect(),
            unknown: facts.pods.as_ref().err().map(ToString::to_string),
        }
    }
}

/// Reads and prints. A cluster that can't be asked is said, and no error: this program has a version all the same.
pub async fn run(target: &Target, args: &Args) -> anyhow::Result<ExitCode> {
    let mut versions =
        Versions { client: env!("CARGO_PKG_VERSION"), kubernetes: None, components: BTreeMap::new(), unknown: None };
    if !args.client {
        versions = match read(target).await {
            Ok(facts) => Versions::of(&facts),
            Err(error) => Versions { unknown: Some(format!("{error:#}")), ..versions },
        };
    }
    print(args.output, &versions)?;
    Ok(ExitCode::SUCCESS)
}

async fn read(target: &Target) -> anyhow::Result<Facts> {
    let session = target.session().await?;
    let mut facts = Facts::new(&session.mesh, session.server().await?);
    facts.pods = session.own_pods().await;
    Ok(facts)
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![vec!["weft (this program)".to_owned(), self.client.to_owned()]];
        rows.extend(self.kubernetes.iter().map(|version| vec!["Kubernetes".to_owned(), version.clone()]));
        rows.extend(self.components.iter().map(|(name, tags)| vec![(*name).to_owned(), tags.join(", ")]));
        write!(f, "{}", table(&["PART", "VERSION"], rows.into_iter()))?;
        match &self.unknown {
            Some(why) => writeln!(f, "\nthe cluster's aren't known: {why}"),
            None if self.kubernetes.is_some() && self.components.is_empty() => {
                writeln!(f, "\nno mesh in this cluster's namespace")
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::healthy;

    #[test]
    fn versions_of_all_parts_are_listed() {
        let versions = Versions::of(&healthy());
        insta::assert_snapshot!(versions.to_string());
        insta::assert_json_snapshot!(versions);
    }
}
