//! Errors that say which file, what was tried and where.
//!
//! `std::io::Error` stays the currency, so that callers can look at its kind; the inner error is a
//! [`FileError`] whose text names file, action and offset, and whose source is the system's own error.

use std::io;

/// The inner error of every `std::io::Error` that this crate returns.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {file:?}{}: {source}", at(*offset))]
pub struct FileError {
    action: &'static str,
    file: String,
    offset: Option<u64>,
    source: io::Error,
}

impl FileError {
    /// What was tried: `"read"`, `"write"`, `"sync"`, …
    #[must_use]
    pub fn action(&self) -> &'static str {
        self.action
    }

    /// The file's location: a path, or a name in a directory without one.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Where in the file, in bytes, if the action has a place.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }
}

fn at(offset: Option<u64>) -> String {
    offset
        .map(|offset| format!(" at byte {offset}"))
        .unwrap_or_default()
}

/// Wraps `source`, keeping its kind.
pub(crate) fn annotate(
    source: io::Error,
    action: &'static str,
    file: &str,
    offset: Option<u64>,
) -> io::Error {
    let kind = source.kind();
    io::Error::new(
        kind,
        FileError {
            action,
            file: file.to_owned(),
            offset,
            source,
        },
    )
}

/// The operating system's number (`errno`) behind an error of this crate, if there is one.
#[must_use]
pub fn os_error_code(error: &io::Error) -> Option<i32> {
    if let Some(code) = error.raw_os_error() {
        return Some(code);
    }
    let inner = error.get_ref()?.downcast_ref::<FileError>()?;
    os_error_code(&inner.source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_file_action_and_offset_and_the_code_survives() {
        let error = annotate(
            io::Error::from_raw_os_error(libc::EIO),
            "read",
            "/db/data",
            Some(8192),
        );
        let text = error.to_string();
        assert!(
            text.starts_with("cannot read \"/db/data\" at byte 8192: "),
            "{text}"
        );
        assert_eq!(os_error_code(&error), Some(libc::EIO));
        let error = annotate(io::ErrorKind::StorageFull.into(), "grow", "data", None);
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(os_error_code(&error), None);
        assert!(error.to_string().starts_with("cannot grow \"data\": "), "{error}");
    }
}
