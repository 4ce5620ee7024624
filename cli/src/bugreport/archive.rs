//! Files in one file.

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::redact::redacted;

/// A `.tar.gz` that is being made. Whatever comes into it is redacted first.
pub struct Archive {
    name: String,
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
    failed: Option<std::io::Error>,
}

impl Archive {
    /// An empty one, whose files are in a folder of this name.
    pub fn new(name: &str) -> Self {
        let tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        Self { name: name.to_owned(), tar, failed: None }
    }

    /// Adds a file. What goes wrong is said in the end.
    pub fn add(&mut self, path: &str, text: &str) {
        let text = redacted(path, text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        header.set_mtime(now);
        let path = format!("{}/{path}", self.name);
        if let Err(error) = self.tar.append_data(&mut header, path, text.as_bytes()) {
            self.failed.get_or_insert(error);
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// A file couldn't be added.
    pub fn finish(self) -> anyhow::Result<Vec<u8>> {
        match self.failed {
            Some(error) => Err(error).context("a file of the report"),
            None => Ok(self.tar.into_inner()?.finish()?),
        }
    }
}

/// A name that can be one of a file.
pub fn file_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    text.chars().map(plain).collect::<String>().trim_start_matches('.').to_owned()
}
