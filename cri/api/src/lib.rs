//! The two gRPC interfaces on the daemon's socket, as generated code: what coracled answers and coraclectl asks.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// The Container Runtime Interface: `runtime_service_client`, `runtime_service_server`, `image_service_*` and messages.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction
)]
pub mod runtime_v1 {
    tonic::include_proto!("runtime.v1");

    /// Says that there are credentials, never what they are.
    impl std::fmt::Debug for AuthConfig {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("AuthConfig")
                .field("server_address", &self.server_address)
                .finish_non_exhaustive()
        }
    }
}

/// Images from an archive: `image_import_client`, `image_import_server` and messages.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction
)]
pub mod import_v1 {
    tonic::include_proto!("coracle.images.v1");
}
