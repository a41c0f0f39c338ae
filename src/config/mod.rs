//! Settings: from flags, environment and file to one typed value.
//!
//! Owns: the table of settings and everything that derives from it: parsing, precedence, help, the example file. Must
//! never: act on a setting. Driven by the command line; the result goes to `app`.
//!
//! ```text
//! arguments ─┐
//! environment┼→ sources (text + where it was written) → serve (typed, checked) → app
//! file ──────┘        ↑ table ↑
//! ```

mod auth_token;
mod check;
mod error;
mod etcd_flags;
mod file;
mod help;
mod nearest;
mod peer;
mod serve;
mod sources;
mod table;
mod url;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

pub use auth_token::{AuthConfig, TokenConfig};
pub use check::Effective;
pub use error::{ConfigError, EXIT_CONFIG, Hint, Origin};
pub use help::{example, flags, options};
pub use nearest::nearest;
pub use peer::{InitialCluster, PeerConfig, PeerHint, TrustMode};
pub use serve::{BackupConfig, ClientConfig, MetricsConfig, ServeConfig, StoreConfig, TlsFiles};
pub use url::{ListenUrl, Scheme, Url, UrlError, split_host_port};
pub use values::{AutoCompaction, ValueError, boolean, duration};

/// What the arguments of `covey serve` ask for.
#[derive(Debug)]
pub enum Invocation {
    /// To serve.
    Serve(Box<Loaded>),
    /// For help.
    Help,
}

/// Reads the arguments after `serve`, the environment and the file that they name.
///
/// # Errors
///
/// The first thing that is wrong, in words for the person who wrote it.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, ConfigError> {
    Places { args: args.into_iter().collect(), env: env.into_iter().collect() }.read()
}

/// The data directory of a server that is given these flags, by their names without dashes: for commands that work on that of one which does not run. The
/// environment and the file count as for the server.
///
/// # Errors
///
/// The first thing that is wrong, in words for the person who wrote it.
pub fn data_dir(
    flags: impl IntoIterator<Item = (&'static str, String)>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<PathBuf, ConfigError> {
    serve::data_dir(&sources::given(flags, env)?)
}

/// What a server runs with, and how that came about.
#[derive(Debug)]
pub struct Loaded {
    /// What it runs with.
    pub config: ServeConfig,
    /// Each setting as it was written, in the order of the table.
    pub settings: Vec<Effective>,
    /// Where all of it was read.
    pub places: Places,
}

/// Where settings are read from, so that it can be done again.
#[derive(Clone, Debug)]
pub struct Places {
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

impl Places {
    /// Reads what is there now: the file may be another one than before.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in words for the person who wrote it.
    pub fn read(&self) -> Result<Invocation, ConfigError> {
        match sources::collect(self.args.clone(), self.env.clone())? {
            sources::Asked::Help => Ok(Invocation::Help),
            sources::Asked::Run(sources) => {
                let settings = check::effective(&sources);
                let loaded = Loaded { config: serve::build(sources)?, settings, places: self.clone() };
                Ok(Invocation::Serve(Box::new(loaded)))
            }
        }
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
