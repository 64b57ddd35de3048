//! Versions of the protocol.

use serde_json::Value;
use std::fmt;

/// A version of the protocol that Coracle speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The first: results have one address of each family and no interfaces. What says no version means this one.
    V0_1_0,
    /// The same with VERSION.
    V0_2_0,
    /// Lists of plugins, and results with interfaces.
    V0_3_0,
    /// The same, written again.
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
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// As written in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads a version; none when it is not one of ours. An empty text is the first version (specification 0.2.0).
    pub fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::V0_1_0);
        }
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// All, for messages.
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }

    /// Results have interfaces, and any number of addresses.
    pub fn has_interfaces(self) -> bool {
        self >= Self::V0_3_0
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
