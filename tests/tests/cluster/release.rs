//! The release of Helm that a test cluster's mesh is, to be taken away and put back as it was.

use anyhow::Result;
use weft_tests::cluster::{Cluster, SYSTEM};

/// A release with its values.
#[derive(Debug)]
pub(crate) struct Release {
    cluster: Cluster,
    values: tempfile::NamedTempFile,
}

impl Release {
    /// What is installed.
    pub(crate) fn of(cluster: &Cluster) -> Result<Self> {
        let values = tempfile::NamedTempFile::new()?;
        std::fs::write(&values, cluster.helm(&["get", "values", "weft", "-n", SYSTEM, "-o", "json"])?)?;
        Ok(Self { cluster: cluster.clone(), values })
    }

    /// Un-enrols every pod, then removes what Helm installed.
    pub(crate) fn uninstall(&self) -> Result<()> {
        self.cluster.helm(&["uninstall", "weft", "-n", SYSTEM, "--timeout=4m"]).map(drop)
    }

    /// Installs it again, or brings back what others made of it.
    pub(crate) fn install(&self) -> Result<()> {
        let chart = ["upgrade", "--install", "weft", "charts/weft", "-n", SYSTEM, "--create-namespace"];
        let values = format!("--values={}", self.values.path().display());
        self.cluster.helm(&[&chart[..], &["--wait", "--timeout=4m", &values]].concat()).map(drop)
    }
}
