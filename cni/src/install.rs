//! Puts the plugin into a node's CNI configuration, and takes it out again.
//!
//! A runtime uses the first configuration of `/etc/cni/net.d` in the order of names. The plugin is appended to that one's
//! chain, in place and atomically, so that the runtime sees either the old chain or the new. A configuration of a single
//! plugin (`.conf`) becomes a chain (`.conflist`); the original is kept beside it and comes back on removal.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use weft_sys::ErrorContext as _;

use crate::agent::write_atomically;

/// The name of the plugin's binary and of its `type`.
pub const PLUGIN: &str = "weft-cni";
/// Added to the name of a single-plugin configuration that was made a chain.
const SAVED: &str = "before-weft";

/// Why the configuration was not changed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is nothing to be chained after.
    #[error("no network configuration in {}: the primary CNI plugin isn't installed yet", .0.display())]
    NoNetwork(PathBuf),
    /// The file is no network configuration.
    #[error("{}: {what}", file.display())]
    Malformed {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Settings of the plugin that differ from its defaults, for its entry in the chain: `agentSocket`, `timeoutSeconds`...
pub type Settings = Map<String, Value>;

/// What [`install`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The configuration that has the plugin.
    pub file: PathBuf,
    /// Whether it had to be written.
    pub changed: bool,
}

/// Appends the plugin to the node's first network configuration; replaces an entry that is there. Idempotent.
///
/// Call it again when the directory changes: a primary plugin may rewrite its file.
///
/// # Errors
/// When there is no configuration yet, or it can't be read or written. Nothing is changed then.
pub fn install(dir: &Path, settings: &Settings) -> Result<Installed, InstallError> {
    let file = first(dir)?.ok_or_else(|| InstallError::NoNetwork(dir.to_owned()))?;
    let mut config = read(&file)?;
    let mut entry = Map::from_iter([("type".to_owned(), PLUGIN.into())]);
    entry.extend(settings.clone());
    if is_chain(&file) {
        let before = config.clone();
        let plugins = plugins(&file, &mut config)?;
        plugins.retain(|p| !is_ours(p));
        plugins.push(entry.into());
        let changed = config != before;
        if changed {
            write(&file, &config)?;
        }
        return Ok(Installed { file, changed });
    }
    let fields = config.as_object_mut().ok_or_else(|| malformed(&file, "it is not a JSON object"))?;
    let version = fields.shift_remove("cniVersion").unwrap_or_else(|| "0.3.1".into());
    let name = fields.get("name").cloned().ok_or_else(|| malformed(&file, "it has no name"))?;
    let chain = json!({ "cniVersion": version, "name": name, "plugins": [config, entry] });
    let target = file.with_extension("conflist");
    write(&target, &chain)?;
    // Only now, so that there is a network at every moment.
    std::fs::rename(&file, saved(&file)).context(|| format!("set {} aside", file.display()))?;
    Ok(Installed { file: target, changed: true })
}

/// Takes the plugin out of every configuration of the directory. Idempotent.
///
/// # Errors
/// When a file with our entry can't be written.
pub fn uninstall(dir: &Path) -> Result<(), InstallError> {
    for file in list(dir)? {
        if !is_chain(&file) {
            continue;
        }
        // A broken file of somebody else is none of ours.
        let Ok(mut config) = read(&file) else { continue };
        let Ok(plugins) = plugins(&file, &mut config) else { continue };
        if !plugins.iter().any(is_ours) {
            continue;
        }
        let original = saved(&file.with_extension("conf"));
        if original.exists() {
            std::fs::rename(&original, file.with_extension("conf"))
                .context(|| format!("restore {}", original.display()))?;
            std::fs::remove_file(&file).context(|| format!("remove {}", file.display()))?;
            continue;
        }
        plugins.retain(|p| !is_ours(p));
        write(&file, &config)?;
    }
    Ok(())
}

/// Copies the plugin's binary into the runtime's directory, atomically: a runtime may start it at any moment. Does
/// nothing when it is there; `changed` says so.
///
/// # Errors
/// What the file system says.
pub fn install_binary(binary: &Path, bin_dir: &Path) -> io::Result<Installed> {
    use std::os::unix::fs::PermissionsExt as _;
    let bytes = std::fs::read(binary).context(|| format!("read {}", binary.display()))?;
    let file = bin_dir.join(PLUGIN);
    let runs = std::fs::metadata(&file).is_ok_and(|meta| meta.permissions().mode() & 0o777 == 0o755);
    let changed = !runs || std::fs::read(&file).map_or(true, |held| held != bytes);
    if changed {
        write_atomically(&file, &bytes, 0o755)?;
    }
    Ok(Installed { file, changed })
}

/// Removes the plugin's binary; none is fine. Take the plugin out of the configuration first.
///
/// # Errors
/// What the file system says.
pub fn remove_binary(bin_dir: &Path) -> io::Result<()> {
    let file = bin_dir.join(PLUGIN);
    match std::fs::remove_file(&file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).context(|| format!("remove {}", file.display())),
        _ => Ok(()),
    }
}

/// The configuration that the runtime uses.
fn first(dir: &Path) -> io::Result<Option<PathBuf>> {
    Ok(list(dir)?.into_iter().next())
}

/// Configurations in the order in which runtimes look at them.
fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_chain(file: &Path) -> bool {
    file.extension().is_some_and(|e| e == "conflist")
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(PLUGIN)
}

fn saved(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{SAVED}"));
    name.into()
}

fn plugins<'a>(file: &Path, config: &'a mut Value) -> Result<&'a mut Vec<Value>, InstallError> {
    let plugins = config.get_mut("plugins").and_then(Value::as_array_mut);
    plugins.ok_or_else(|| malformed(file, "it has no list of plugins"))
}

fn read(file: &Path) -> Result<Value, InstallError> {
    let bytes = std::fs::read(file).context(|| format!("read {}", file.display()))?;
    serde_json::from_slice(&bytes).map_err(|e| malformed(file, &e.to_string()))
}

fn malformed(file: &Path, what: &str) -> InstallError {
    InstallError::Malformed { file: file.to_owned(), what: what.to_owned() }
}

fn write(file: &Path, config: &Value) -> Result<(), InstallError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(file).map_or(0o644, |meta| meta.permissions().mode() & 0o777);
    let mut text = serde_json::to_vec_pretty(config).map_err(io::Error::other)?;
    text.push(b'\n');
    Ok(write_atomically(file, &text, mode)?)
}

#[cfg(test)]
mod tests;
