//! Build script: turns `proto/**/*.proto` into the Rust modules that `src/wire` includes.
//!
//! The compiler is `protox`, a Rust library, so that nobody who builds covey needs `protoc`. The
//! generated code has no transport in it: tonic's own would bring a tokio runtime along.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use protox::Compiler;

const ROOT: &str = "proto";

/// The client API, and our own service. `raft-proto`, next to these, is a crate of its own.
const TREES: [&str; 3] = ["covey", "etcd", "grpc"];

/// Field names whose snake case goes wrong (`peer_ur_ls`). They are changed for the Rust code alone;
/// the published descriptors keep what JSON clients must see.
const RUST_NAMES: [(&str, &str); 2] = [("peerURLs", "peer_urls"), ("clientURLs", "client_urls")];

fn main() -> Result<(), Box<dyn Error>> {
    let files = files()?;
    let mut compiler = Compiler::new([ROOT])?;
    compiler.include_imports(true).open_files(files)?;

    // Published without comments and positions: nobody reads them there.
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out_dir.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    // Code generation does want the comments: they become the documentation of the types.
    let mut descriptors = compiler.include_source_info(true).file_descriptor_set();
    let fields = descriptors
        .file
        .iter_mut()
        .flat_map(|file| &mut file.message_type)
        .flat_map(|message| &mut message.field);
    for field in fields {
        for (wire, rust) in RUST_NAMES {
            if field.name() == wire {
                field.name = Some(rust.to_owned());
            }
        }
    }

    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".") // keys and values are shared, not copied, between request, store and watchers
        .compile_fds(descriptors)?;
    Ok(())
}

/// All `.proto` files by their names below [`ROOT`], in an order that no directory decides.
fn files() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}/build.rs");
    let mut files = Vec::new();
    for tree in TREES {
        println!("cargo::rerun-if-changed={ROOT}/{tree}");
        for entry in Path::new(ROOT).join(tree).read_dir()? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "proto") {
                files.push(path.strip_prefix(ROOT)?.to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}
