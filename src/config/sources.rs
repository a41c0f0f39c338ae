//! Where values come from: flag over environment over file over default.
//!
//! Owns: the reading of the command line and the environment, and the order among the sources. Must never: judge a value
//! beyond what is needed to read it. Driven by [`super::load`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Hint, Origin};
use super::etcd_flags;
use super::file;
use super::nearest::nearest;
use super::table::{Kind, SETTINGS, Setting, SettingId, setting};

/// Where systemd puts what a unit loads with `LoadCredential=` (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Which of it is the cluster's secret.
const SECRET_CREDENTIAL: &str = "covey.cluster-secret";

/// A value as it was written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The text; arrays of the file are joined by commas.
    pub text: String,
    /// Where it was written.
    pub origin: Origin,
}

/// What was written, by setting; the strongest source has won.
#[derive(Debug, Default)]
pub struct Sources {
    values: BTreeMap<SettingId, Written>,
    /// What is odd but no error, a sentence each.
    pub warnings: Vec<String>,
}

impl Sources {
    /// The value of a setting: what was written, or else its default.
    pub fn value(&self, key: SettingId) -> Written {
        self.values
            .get(&key)
            .cloned()
            .unwrap_or_else(|| Written { text: setting(key).fallback_text(), origin: Origin::Default })
    }

    /// Whether somebody has set it to something.
    pub fn is_set(&self, key: SettingId) -> bool {
        self.values.get(&key).is_some_and(|written| !written.text.is_empty())
    }

    fn set_if_absent(&mut self, key: SettingId, written: Written) {
        self.values.entry(key).or_insert(written);
    }
}

/// What the arguments of `serve` ask for.
#[derive(Debug)]
pub enum Asked {
    /// To run, with these values.
    Run(Sources),
    /// For help.
    Help,
}

/// Reads all sources. `args` come after the name of the command.
pub fn collect(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Asked, ConfigError> {
    let mut sources = Sources::default();
    if read_flags(args, &mut sources)? == Flow::Help {
        return Ok(Asked::Help);
    }
    below_flags(sources, env).map(Asked::Run)
}

/// What a server would have that was given these flags, by their names without dashes, and no others.
pub fn given(
    flags: impl IntoIterator<Item = (&'static str, String)>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Sources, ConfigError> {
    let mut sources = Sources::default();
    for (flag, text) in flags {
        let origin = Origin::Flag(flag.to_owned());
        sources.values.insert(by_flag(flag)?.key, Written { text, origin });
    }
    below_flags(sources, env)
}

/// Adds what the environment and the file say that no flag does.
fn below_flags(
    mut sources: Sources,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Sources, ConfigError> {
    let env: Vec<_> = env.into_iter().collect();
    let secret = secret_credential(&env);
    read_env(env, &mut sources)?;
    let path = sources.value(SettingId::ConfigFile).text;
    if !path.is_empty() {
        for (key, written) in file::read(Path::new(&path))? {
            sources.set_if_absent(key, written);
        }
    }
    // A file that is named as none leaves the one that the operator has put there: else the LAN would be let in.
    if let Some(path) = secret.filter(|_| !sources.is_set(SettingId::ClusterSecretFile)) {
        let written =
            Written { text: text(path.into(), CREDENTIALS)?, origin: Origin::Env(CREDENTIALS.to_owned()) };
        sources.values.insert(SettingId::ClusterSecretFile, written);
    }
    Ok(sources)
}

/// The cluster's secret as systemd hands it over. One that cannot be looked at counts as there: reading it will tell why.
fn secret_credential(env: &[(OsString, OsString)]) -> Option<PathBuf> {
    let (_, directory) = env.iter().find(|(name, directory)| name == CREDENTIALS && !directory.is_empty())?;
    let path = Path::new(directory).join(SECRET_CREDENTIAL);
    path.try_exists().unwrap_or(true).then_some(path)
}

#[derive(PartialEq, Eq)]
enum Flow {
    Run,
    Help,
}

/// Reads flags as Go's flag package does: one dash or two, `=value` or the next argument, a boolean alone is true, the
/// last one wins, and whatever is no flag ends them.
fn read_flags(args: impl IntoIterator<Item = OsString>, into: &mut Sources) -> Result<Flow, ConfigError> {
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let arg = text(arg, "an argument")?;
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            return Err(ConfigError::Stray(arg));
        };
        let (flag, inline) = match flag.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (flag, None),
        };
        if flag.is_empty() {
            // "--" ends the flags; nothing may follow, as there are no other arguments.
            match (arg.as_str(), args.next()) {
                ("--", None) => break,
                ("--", Some(next)) => return Err(ConfigError::Stray(text(next, "an argument")?)),
                _ => return Err(ConfigError::Stray(arg)),
            }
        }
        if matches!(flag, "h" | "help") {
            return Ok(Flow::Help);
        }
        let found = by_flag(flag)?;
        let value = match (inline, found.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, _) => match args.next() {
                Some(next) => text(next, &format!("the value of --{flag}"))?,
                None => return Err(ConfigError::ValueMissing(flag.to_owned())),
            },
        };
        into.values.insert(found.key, Written { text: value, origin: Origin::Flag(flag.to_owned()) });
    }
    Ok(Flow::Run)
}

fn by_flag(flag: &str) -> Result<&'static Setting, ConfigError> {
    SETTINGS.iter().find(|row| row.flag == flag).or_else(|| of_etcd(flag)).ok_or_else(|| {
        if let Some(instead) = etcd_flags::instead(flag) {
            return ConfigError::EtcdFlag { flag: flag.to_owned(), instead };
        }
        let known = SETTINGS.iter().flat_map(|row| [Some(row.flag), row.etcd]).flatten();
        let hint = Hint(nearest(flag, known).map(|name| format!("--{name}")));
        ConfigError::UnknownFlag { flag: flag.to_owned(), hint }
    })
}

/// The setting that a flag of etcd's is, under any of the names that it has there.
fn of_etcd(flag: &str) -> Option<&'static Setting> {
    let name = etcd_flags::taken_as(flag)?;
    SETTINGS.iter().find(|row| row.etcd == Some(name))
}

/// Reads the variables that begin with `COVEY_` or `ETCD_`; the former win, an empty one counts as absent. An
/// unknown one is only worth a warning: container platforms make such names for services.
fn read_env(
    env: impl IntoIterator<Item = (OsString, OsString)>,
    into: &mut Sources,
) -> Result<(), ConfigError> {
    let mut found = BTreeMap::new();
    for (name, value) in env {
        let Some(name) = name.to_str() else { continue };
        if (name.starts_with("COVEY_") || name.starts_with("ETCD_")) && !value.is_empty() {
            found.insert(name.to_owned(), value);
        }
    }
    for row in &SETTINGS {
        for name in [Some(row.env()), row.etcd_env()].into_iter().flatten() {
            if let Some(value) = found.remove(&name) {
                let written = Written { text: text(value, &name)?, origin: Origin::Env(name) };
                into.set_if_absent(row.key, written);
            }
        }
    }
    let known: Vec<String> =
        SETTINGS.iter().flat_map(|row| [Some(row.env()), row.etcd_env()]).flatten().collect();
    for (name, value) in found {
        let etcds = name.strip_prefix("ETCD_").map(|rest| rest.to_ascii_lowercase().replace('_', "-"));
        let etcds = etcds.as_deref().unwrap_or_default();
        if let Some(row) = of_etcd(etcds) {
            let written = Written { text: text(value, &name)?, origin: Origin::Env(name) };
            into.set_if_absent(row.key, written);
        } else if let Some(instead) = etcd_flags::instead(etcds) {
            into.warnings.push(format!("environment variable {name} is passed over: {instead}"));
        } else {
            let hint = Hint(nearest(&name, known.iter().map(String::as_str)).map(str::to_owned));
            into.warnings.push(format!("unrecognized environment variable {name}{hint}"));
        }
    }
    Ok(())
}

fn text(arg: OsString, what: &str) -> Result<String, ConfigError> {
    arg.into_string().map_err(|_| ConfigError::Encoding(what.to_owned()))
}
