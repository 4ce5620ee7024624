//! `weft install` and `weft uninstall`: Helm, with the chart that is in this program.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use include_dir::{Dir, include_dir};

use super::Target;
use super::checks::platform::{self, Version};

static CHART: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../charts/weft");

/// What to install.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    /// A value of the chart; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A file of values; may be repeated, the last wins
    #[arg(short = 'f', long = "values", value_name = "FILE")]
    values: Vec<PathBuf>,
    /// The release's name
    #[arg(long, default_value = "weft")]
    release: String,
    /// How long to wait until every part runs
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5m")]
    timeout: Duration,
    /// Don't wait
    #[arg(long)]
    no_wait: bool,
    /// Only say what would be made
    #[arg(long)]
    dry_run: bool,
    /// Don't install: write the chart into this directory, for Helm elsewhere or another tool
    #[arg(long, value_name = "DIR")]
    write_chart: Option<PathBuf>,
}

/// What to remove.
#[derive(Debug, clap::Args)]
pub struct UninstallArgs {
    /// Take the CNI plugin out of the network configurations in this directory of this node, rather than the mesh out of a cluster
    #[arg(long, value_name = "DIR")]
    pub cni_dir: Option<PathBuf>,
    /// The release's name
    #[arg(long, default_value = "weft", conflicts_with = "cni_dir")]
    release: String,
    /// How long to wait until every node has let its pods go
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10m", conflicts_with = "cni_dir")]
    timeout: Duration,
}

/// The oldest Kubernetes that the chart takes.
///
/// # Errors
/// When the chart doesn't say so.
pub fn oldest_kubernetes() -> anyhow::Result<Version> {
    let text = CHART.get_file("Chart.yaml").and_then(|f| f.contents_utf8()).context("no Chart.yaml")?;
    let chart: serde_norway::Value = serde_norway::from_str(text)?;
    let wanted = chart.get("kubeVersion").and_then(serde_norway::Value::as_str).context("no kubeVersion")?;
    platform::version(wanted.trim_start_matches(['>', '=', ' '])).context("kubeVersion is no version")
}

/// Installs or upgrades.
pub fn install(target: &Target, args: &InstallArgs) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.write_chart {
        write(folder).with_context(|| format!("--write-chart {}", folder.display()))?;
        println!("the chart is in {}", folder.display());
        return Ok(ExitCode::SUCCESS);
    }
    let folder = Scratch::new().context("cannot make a directory for the chart")?;
    write(&folder.0).with_context(|| folder.0.display().to_string())?;
    run(&install_arguments(target, args, &folder.0))
}

/// Removes: the chart's hook takes every pod out of the mesh first.
pub fn uninstall(target: &Target, args: &UninstallArgs) -> anyhow::Result<ExitCode> {
    run(&uninstall_arguments(target, args))
}

fn install_arguments(target: &Target, args: &InstallArgs, chart: &Path) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["upgrade".into(), "--install".into(), (&args.release).into(), chart.into()];
    all.push("--create-namespace".into());
    // An upgrade keeps the values of the release, and takes the new chart's for those that nobody gave.
    all.push("--reset-then-reuse-values".into());
    all.extend(place(target));
    for value in &args.set {
        all.extend(["--set".into(), value.into()]);
    }
    for file in &args.values {
        all.extend(["--values".into(), file.into()]);
    }
    match args.no_wait || args.dry_run {
        true => {}
        false => all.extend(["--wait".into(), "--timeout".into(), seconds(args.timeout)]),
    }
    if args.dry_run {
        all.push("--dry-run".into());
    }
    all
}

fn uninstall_arguments(target: &Target, args: &UninstallArgs) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["uninstall".into(), (&args.release).into()];
    all.extend(place(target));
    all.extend(["--wait".into(), "--timeout".into(), seconds(args.timeout)]);
    all
}

fn place(target: &Target) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["--namespace".into(), target.mesh().into()];
    if let Some(context) = &target.context {
        all.extend(["--kube-context".into(), context.into()]);
    }
    if let Some(file) = &target.kubeconfig {
        all.extend(["--kubeconfig".into(), file.into()]);
    }
    all
}

fn seconds(time: Duration) -> OsString {
    format!("{}s", time.as_secs()).into()
}

fn run(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let status = match Command::new("helm").args(arguments).status() {
        Ok(status) => status,
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "there is no `helm` in PATH, which does the work: install Helm 3.14 or newer, \
             or take the chart somewhere else with `weft install --write-chart DIR`"
        ),
        Err(error) => return Err(error).context("cannot run helm"),
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// Writes the chart; files that are there are replaced, others are left.
fn write(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    CHART.extract(folder)
}

/// A directory that goes with its value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("weft-chart-{}-{}", std::process::id(), since.as_nanos());
        let path = std::env::temp_dir().join(name);
        // Not `create_dir_all`: one that somebody else has made isn't ours to use.
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is a chart in a directory for what may go.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line<T: clap::Args> {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        args: T,
    }

    fn joined(arguments: &[OsString]) -> String {
        arguments.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn helm_is_told_what_was_asked_for() {
        let line = |words: &str| Line::<InstallArgs>::parse_from(words.split(' '));
        let of = |line: Line<InstallArgs>| joined(&install_arguments(&line.target, &line.args, Path::new("/chart")));
        assert_eq!(
            of(line("x")),
            "upgrade --install weft /chart --create-namespace --reset-then-reuse-values --namespace weft-system --wait --timeout 300s"
        );
        assert_eq!(
            of(line(
                "x --context c --kubeconfig k --mesh-namespace m --set a=1 --set b=2 -f f.yaml --no-wait --release r"
            )),
            "upgrade --install r /chart --create-namespace --reset-then-reuse-values --namespace m --kube-context c --kubeconfig k --set a=1 --set b=2 --values f.yaml"
        );
        assert!(of(line("x --dry-run")).ends_with("--namespace weft-system --dry-run"));
        let line = Line::<UninstallArgs>::parse_from(["x"]);
        assert_eq!(
            joined(&uninstall_arguments(&line.target, &line.args)),
            "uninstall weft --namespace weft-system --wait --timeout 600s"
        );
    }

    #[test]
    fn the_chart_inside_is_the_chart_of_the_source() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weft");
        for file in
            ["Chart.yaml", "values.yaml", "values.schema.json", "templates/_helpers.tpl", "templates/agent.yaml"]
        {
            assert_eq!(
                std::fs::read(folder.path().join(file)).unwrap(),
                std::fs::read(source.join(file)).unwrap(),
                "{file}"
            );
        }
        assert!(oldest_kubernetes().unwrap() >= (1, 29));
    }

    #[test]
    fn a_scratch_directory_goes() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.0.clone();
        assert!(path.is_dir());
        drop(scratch);
        assert!(!path.exists());
    }
}
