//! Compiles the daemon's gRPC interfaces for the fixtures' own client: the published files, not the daemon's code.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../cri/api/proto");
    let descriptors = protox::compile(
        ["runtime/v1/api.proto", "images/v1/import.proto"],
        ["../cri/api/proto"],
    )?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
