//! Programs that tests need and this workspace doesn't build.

use std::path::PathBuf;

/// Where `tests/tools/install.sh` puts a program, as `bin/h2spec`; it need not be there.
pub fn tool(path: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("WEFT_CACHE").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/weft"));
    Some(cache.or_else(home)?.join("tools").join(path))
}

/// The same of one that is there. `None`, which is said, means that its test has to be left out.
///
/// # Panics
/// It isn't there, and `WEFT_TOOLS` says that everything was installed.
pub fn installed(path: &str) -> Option<PathBuf> {
    let found = tool(path).filter(|program| program.exists());
    if found.is_none() {
        assert!(std::env::var_os("WEFT_TOOLS").is_none(), "no {path}, which should have been installed");
        eprintln!("LEFT OUT: no {path}; `tests/tools/install.sh test` installs it");
    }
    found
}
