//! The program: hands its arguments to the command line, and `serve` to the node.

#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;

#[cfg(debug_assertions)]
use covey::command;
use covey::config::Loaded;
use covey::{app, cli, telemetry};

/// By which a test has a process play a later build.
#[cfg(debug_assertions)]
const PLAYED_COMMANDS: &str = "PLAYED_COMMANDS";

/// musl's own allocator keeps allocations apart from each other, which takes half as much memory again.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    #[cfg(debug_assertions)]
    if let Some(version) = env::var(PLAYED_COMMANDS).ok().and_then(|version| version.parse().ok()) {
        command::play(command::CommandVersion(version));
    }
    cli::run(env::args_os().skip(1), serve)
}

fn serve(loaded: Loaded) -> ExitCode {
    if telemetry::init(loaded.config.log).is_err() {
        return ExitCode::FAILURE;
    }
    telemetry::install_panic_hook();
    app::serve(loaded)
}
