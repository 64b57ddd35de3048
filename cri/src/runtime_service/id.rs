//! Ids of sandboxes and containers: 64 hexadecimal digits, as kubelets and tools expect.

use std::fmt::Write as _;

use super::Failure;

/// A new one.
pub(super) fn generate() -> Result<String, Failure> {
    let mut bytes = [0_u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(|errno| {
        Failure::Io {
            action: "read",
            path: "/dev/urandom".into(),
            source: errno.into(),
        }
    })?;
    let mut id = String::with_capacity(64);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    Ok(id)
}
