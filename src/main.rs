//! The program: hands its arguments to the command line, and `serve` to the node.

use std::env;
use std::process::ExitCode;

use covey::config::ServeConfig;
use covey::{app, cli, telemetry};

fn main() -> ExitCode {
    cli::run(env::args_os().skip(1), serve)
}

fn serve(config: ServeConfig) -> ExitCode {
    if telemetry::init(config.log).is_err() {
        return ExitCode::FAILURE;
    }
    telemetry::install_panic_hook();
    app::serve(config)
}
