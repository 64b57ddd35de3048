//! Versions of the protocol.

use serde_json::Value;
use std::fmt;

/// A version of the protocol that Coracle speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Lists of plugins and results with interfaces.
    V0_3_1,
    /// CHECK, and the result of ADD given to DEL.
    V0_4_0,
    /// No `version` in addresses.
    V1_0_0,
    /// GC and STATUS.
    V1_1_0,
}

impl Version {
    /// All, oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// As written in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads a version; none when it is not one of ours.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// `CHECK` exists.
    pub fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// `GC` and `STATUS` exist.
    pub fn has_gc(self) -> bool {
        self >= Self::V1_1_0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Version> for Value {
    fn from(version: Version) -> Self {
        Self::from(version.as_str())
    }
}
