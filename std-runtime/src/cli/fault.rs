//! How a command fails: one line and an exit code.

use std::fmt;

use crate::api::{ApiError, ErrorKind};

/// Why a command failed. The codes are those that `replcore --help` lists.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) code: u8,
    /// One line; empty when all has been said.
    pub(crate) message: String,
}

impl Fault {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// It failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(1, message)
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(2, message)
    }

    /// A configuration or rules file is wrong.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(3, message)
    }

    /// No node, or no answer.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(4, message)
    }

    /// Nothing was found.
    pub(crate) fn nothing(message: impl Into<String>) -> Self {
        Self::new(6, message)
    }

    /// This machine does not let the node start.
    pub(crate) fn start(message: impl Into<String>) -> Self {
        Self::new(7, message)
    }

    /// Standard output is closed or broken: nobody reads, so nothing more is said.
    pub(crate) fn output(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::new(0, ""),
            _ => Self::failed(format!("cannot write: {error}")),
        }
    }
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        let code = match error.kind {
            ErrorKind::Unavailable => 4,
            ErrorKind::NotFound => 6,
            _ => 5,
        };
        Self::new(code, error.message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
