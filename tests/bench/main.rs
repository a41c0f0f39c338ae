//! covey beside etcd, in one run: `cargo bench --bench etcd -- --etcd PATH [--only NAME]... [--seconds N] [--out FILE] [--table FILE] [--plots FILE]
//! [--scratch DIR]`.
//!
//! Owns: the order of the measures. Must never: be part of a test, since a loaded machine makes every figure worthless. Each server has a core of its
//! own and the generator has the other one. CPU per call is what counts: how many calls come through depends on the generator too.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench reads clocks, computes with figures and prints them"
)]

mod cases;
mod device;
mod failover;
mod grow;
mod http2;
mod links;
mod load;
mod plot;
mod report;
mod server;
#[path = "../cluster/silence.rs"]
mod silence;
mod three;
mod turns;
mod upkeep;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cases::{MEASURES, Pace};
use lexopt::prelude::{Long, ValueExt as _};
use serde_json::json;
use server::Programs;

/// The core that the generator runs on.
const GENERATOR_CORE: &str = "1";

fn main() -> Result<(), Box<dyn Error>> {
    let mut programs = Programs {
        covey: PathBuf::from(env!("CARGO_BIN_EXE_covey")),
        etcd: PathBuf::from("etcd"),
        scratch: std::env::temp_dir(),
    };
    let (mut only, mut seconds) = (Vec::new(), 5);
    let (mut out, mut table, mut plots) = (None, None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("etcd") => programs.etcd = parser.value()?.into(),
            Long("covey") => programs.covey = parser.value()?.into(),
            Long("scratch") => programs.scratch = parser.value()?.into(),
            Long("only") => only.push(parser.value()?.string()?),
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("out") => out = Some(PathBuf::from(parser.value()?)),
            Long("table") => table = Some(PathBuf::from(parser.value()?)),
            Long("plots") => plots = Some(PathBuf::from(parser.value()?)),
            // cargo says it to every bench.
            Long("bench") => {}
            other => return Err(other.unexpected().into()),
        }
    }
    let pid = std::process::id().to_string();
    Command::new("taskset").args(["-p", "-c", GENERATOR_CORE, &pid]).output()?;
    let pace = Pace { load: Duration::from_secs(seconds) };
    let mut rows = Vec::new();
    for (name, measure) in MEASURES {
        if only.is_empty() || only.iter().any(|wanted| wanted == name) {
            eprintln!("measuring {name}");
            rows.extend(measure(&programs, pace).map_err(|error| format!("{name}: {error}"))?);
        }
    }
    println!("{}", report::table(rows.iter()));
    if let Some(path) = table {
        std::fs::write(path, report::table(rows.iter().filter(|row| row.is_met().is_some())))?;
    }
    if let Some(path) = out {
        let file = json!({
            "covey": env!("CARGO_PKG_VERSION"), "etcd": version(&programs.etcd)?, "seconds": seconds,
            "kernel": said_of_the_machine("/proc/sys/kernel/osrelease", ""),
            "cpu": said_of_the_machine("/proc/cpuinfo", "model name"),
            "rows": report::to_json(&rows),
        });
        std::fs::write(path, serde_json::to_string_pretty(&file)?)?;
    }
    if let Some(path) = plots {
        std::fs::write(path, plot::svg(&rows))?;
    }
    Ok(())
}

fn version(etcd: &Path) -> io::Result<String> {
    let said = Command::new(etcd).arg("--version").output()?.stdout;
    Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned())
}

/// The first line of a file that begins so, without that.
fn said_of_the_machine(path: &str, begin: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(begin)).unwrap_or_default();
    line.trim_start_matches([' ', '\t', ':']).to_owned()
}
