//! How much an image may ask for before it is refused.

/// Bounds on what comes from outside; all sizes in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// One manifest or index. The distribution spec asks registries to take 4 MiB.
    pub manifest_bytes: u64,
    /// One image configuration.
    pub config_bytes: u64,
    /// One compressed layer.
    pub blob_bytes: u64,
    /// File content of one unpacked layer.
    pub layer_bytes: u64,
    /// Size of one file, holes included.
    pub file_bytes: u64,
    /// Entries of one layer's archive.
    pub layer_entries: u64,
    /// Device nodes of one layer.
    pub layer_devices: u64,
    /// What may follow the end of a layer's archive (tar pads with zeros to 10 KiB or more).
    pub trailing_bytes: u64,
    /// An imported archive, uncompressed.
    pub archive_bytes: u64,
    /// Entries of an imported archive.
    pub archive_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        Self {
            manifest_bytes: 4 * MIB,
            config_bytes: 8 * MIB,
            blob_bytes: 32 * GIB,
            layer_bytes: 64 * GIB,
            file_bytes: 1024 * GIB,
            layer_entries: 2_000_000,
            layer_devices: 256,
            trailing_bytes: 64 * MIB,
            archive_bytes: 128 * GIB,
            archive_entries: 100_000,
        }
    }
}
