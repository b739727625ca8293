//! What can be wrong with a file of keys. Keys themselves are read in `token.rs` and `api_key.rs`.

use std::path::Path;

/// Why a key file was refused. Names the file, the line, and what would be right; never a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the key file {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line, or the whole file (line 0), is not right.
    #[error("{file}{}: {problem}", at(*line))]
    Content {
        /// The file.
        file: String,
        /// The line, counted from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
}

// === impl KeyFileError ===

impl KeyFileError {
    pub(crate) fn content(file: &str, line: usize, problem: impl Into<String>) -> Self {
        Self::Content { file: file.to_owned(), line, problem: problem.into() }
    }
}

/// `, line 3`, or nothing for the file as a whole.
fn at(line: usize) -> String {
    if line == 0 { String::new() } else { format!(", line {line}") }
}

/// The file's bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    std::fs::read(path)
        .map_err(|source| KeyFileError::Read { file: path.display().to_string(), source })
}

/// The file's text.
pub(crate) fn read_text(path: &Path) -> Result<String, KeyFileError> {
    let problem = "is not text; an API key file has one key per line";
    String::from_utf8(read(path)?)
        .map_err(|_| KeyFileError::content(&path.display().to_string(), 0, problem))
}
