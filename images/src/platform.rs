//! Which manifest of an index fits this machine (OCI image spec, image-index.md, "platform").

/// Operating system, architecture and variant in Go's spelling, as indexes use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v8`, `v2`, ...; empty when the index does not say.
    pub variant: String,
}

impl Platform {
    /// From the words of an image, which are written in many ways: those that Go, the kernel and distributions have for one.
    pub(crate) fn normal(os: &str, architecture: &str, variant: &str) -> Self {
        let word = |text: &str| text.trim().to_ascii_lowercase();
        let (architecture, implied) = match word(architecture).as_str() {
            "x86_64" | "x86-64" => ("amd64".to_owned(), ""),
            "aarch64" => ("arm64".to_owned(), ""),
            "i386" | "i486" | "i586" | "i686" | "x86" => ("386".to_owned(), ""),
            "armhf" | "armv7l" => ("arm".to_owned(), "v7"),
            "armel" | "armv6l" => ("arm".to_owned(), "v6"),
            "powerpc64le" => ("ppc64le".to_owned(), ""),
            other => (other.to_owned(), ""),
        };
        let variant = match word(variant) {
            own if own.starts_with(|c: char| c.is_ascii_digit()) => format!("v{own}"),
            own if own.is_empty() => implied.to_owned(),
            own => own,
        };
        Self {
            os: word(os),
            architecture,
            variant,
        }
    }

    /// The platform of this machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", amd64_level()),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    /// How well an image for `image` runs here: higher is better, `None` not at all.
    pub(crate) fn rank(&self, image: &Self) -> Option<u32> {
        if image.os != self.os || image.architecture != self.architecture {
            return None;
        }
        let (own, theirs) = (level(self), level(image));
        (theirs <= own).then_some(theirs)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

/// The number in the variant; each architecture's oldest level when there is none. Unknown words rank above every machine.
fn level(platform: &Platform) -> u32 {
    match platform.variant.strip_prefix('v') {
        Some(number) => number
            .split('.')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(u32::MAX),
        None if !platform.variant.is_empty() => u32::MAX,
        None => match platform.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        },
    }
}

/// The x86-64 psABI micro-architecture level of this processor.
#[cfg(target_arch = "x86_64")]
fn amd64_level() -> &'static str {
    let v2 = is_x86_feature_detected!("sse4.2")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("cmpxchg16b");
    let v3 = v2
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe");
    let v4 = v3
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, _, _) => "v2",
        _ => "v1",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_level() -> &'static str {
    "v1"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Platform {
            os: next(),
            architecture: next(),
            variant: next(),
        }
    }

    #[test]
    fn the_best_fitting_variant_wins() {
        let v3 = platform("linux/amd64/v3");
        let rank = |image| v3.rank(&platform(image));
        assert!(rank("linux/amd64/v3") > rank("linux/amd64/v2"));
        assert!(rank("linux/amd64/v2") > rank("linux/amd64"));
        for other in [
            "linux/amd64/v4",
            "linux/arm64",
            "windows/amd64",
            "unknown/unknown",
            "linux/amd64/strange",
        ] {
            assert_eq!(rank(other), None, "{other}");
        }
        assert!(
            platform("linux/arm64/v8")
                .rank(&platform("linux/arm64"))
                .is_some()
        );
        assert_eq!(platform("linux/arm/v6").rank(&platform("linux/arm/v7")), None);
    }
}
