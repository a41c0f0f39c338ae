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

mod error;
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

pub use error::{ConfigError, Hint, Origin};
pub use help::{example, flags, options};
pub use nearest::nearest;
pub use peer::{InitialCluster, PeerConfig, PeerHint, TrustMode};
pub use serve::{ClientConfig, MetricsConfig, ServeConfig, StoreConfig, TlsFiles};
pub use url::{ListenUrl, Scheme, Url, UrlError, split_host_port};
pub use values::{AutoCompaction, ValueError, boolean, duration};

/// What the arguments of `covey serve` ask for.
#[derive(Debug)]
pub enum Invocation {
    /// To serve with this configuration.
    Serve(Box<ServeConfig>),
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
    match sources::collect(args, env)? {
        sources::Asked::Help => Ok(Invocation::Help),
        sources::Asked::Run(sources) => Ok(Invocation::Serve(Box::new(serve::build(sources)?))),
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
