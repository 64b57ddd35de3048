//! Compiles the two gRPC interfaces; protox parses them, so no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["runtime/v1/api.proto", "images/v1/import.proto"];
    for file in files {
        println!("cargo::rerun-if-changed=proto/{file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // Clients bring their own connection: a socket path can be longer than sun_path.
        .build_transport(false)
        // Credentials must never reach a log.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(descriptors)?;
    Ok(())
}
