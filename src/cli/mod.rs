//! The command line: what was typed, to what happens.
//!
//! Owns: the choice of the command, exit codes, help. Must never: run a server itself (its caller does, with what `config`
//! has read). Driven by `main`.

mod access;
mod access_reply;
mod admin;
mod args;
pub mod bundle;
mod calls;
mod client;
mod completion;
mod consent;
mod contend;
mod doctor;
mod endpoints;
mod examples;
mod fields;
mod give_up;
mod help;
mod json;
mod keep_alive;
mod lasting;
mod output;
mod password;
mod prepare_image;
mod progress;
mod quote;
mod reach;
mod recover;
mod reply;
mod requests;
mod simple;
mod snapshot;
mod spec;
mod spec_access;
mod spec_upkeep;
mod status;
mod table;
mod txn;
mod watch;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use lexopt::Parser;

use self::access::AccessError;
use self::args::{ClientSettings, Credentials, EXIT_BAD_ARGUMENTS, First, Format, Parsed, UsageError};
use self::calls::{Call, CallError};
use self::contend::ContendError;
use self::endpoints::AskError;
use self::lasting::LastingError;
use self::password::PasswordError;
use self::reply::{Reply, ValuesOnly};
use self::spec::Command;
use self::txn::TxnError;
use crate::api::verdict::judge;
use crate::app;
use crate::config::{self, ConfigError, EXIT_CONFIG, Invocation, Loaded};

/// The exit code of a command that was understood and failed.
const EXIT_FAILED: u8 = 1;
/// etcdctl's exit code of a transaction that was not understood.
const EXIT_INVALID_INPUT: u8 = 3;

/// etcd's API that this server and this client speak.
const ETCD_API: &str = "3.6";

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Txn(#[from] TxnError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Ended(LastingError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Ask(AskError),
    #[error(transparent)]
    Contend(ContendError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("{0}")]
    Unwell(String),
    #[error(transparent)]
    Snapshot(#[from] snapshot::SnapshotError),
    #[error(transparent)]
    Recover(#[from] recover::RecoverError),
    #[error(transparent)]
    Prepare(#[from] prepare_image::PrepareError),
    #[error(transparent)]
    Yield(#[from] give_up::YieldError),
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    #[error(transparent)]
    Fingerprint(#[from] app::FingerprintFailure),
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl From<LastingError> for Failure {
    fn from(error: LastingError) -> Self {
        match error {
            LastingError::Output(error) => Self::Output(error),
            error => Self::Ended(error),
        }
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Output(error) => Self::Output(error),
            error => Self::Ask(error),
        }
    }
}

impl From<ContendError> for Failure {
    fn from(error: ContendError) -> Self {
        match error {
            ContendError::Lasting(error) => error.into(),
            error => Self::Contend(error),
        }
    }
}

impl Failure {
    /// etcdctl's, where it has the command.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(error) | Self::Access(AccessError::Usage(error)) => error.exit_code(),
            Self::Access(AccessError::Permission(_) | AccessError::Password(_)) => EXIT_BAD_ARGUMENTS,
            // A disk may read again what it did not read before.
            Self::Config(ConfigError::Read { .. }) => EXIT_FAILED,
            Self::Config(_) => EXIT_CONFIG,
            Self::Txn(_) => EXIT_INVALID_INPUT,
            Self::Call(error) | Self::Ask(AskError::Call(error)) => error.exit_code(),
            Self::Contend(error) => error.exit_code().unwrap_or(EXIT_FAILED),
            _ => EXIT_FAILED,
        }
    }
}

/// Runs the command that the arguments, without the program's name, ask for. `serve` runs the server.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    serve: impl FnOnce(Loaded) -> ExitCode,
) -> ExitCode {
    match dispatch(arguments.into_iter().collect(), serve) {
        Ok(code) => code,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            output::EXIT_BROKEN_PIPE.into()
        }
        Err(failure) => {
            output::to_stderr(&format!("Error: {failure}"));
            failure.exit_code().into()
        }
    }
}

fn dispatch(arguments: Vec<OsString>, serve: impl FnOnce(Loaded) -> ExitCode) -> Result<ExitCode, Failure> {
    let mut parser = Parser::from_args(arguments);
    let mut parsed = Parsed::default();
    let name = match parsed.until_command(&mut parser)? {
        First::Command(name) => name,
        First::Help => return show(&help::overview()),
        First::Version => return version(),
    };
    match name.to_str() {
        Some("help") => return help(&mut parser),
        Some("version") => return version(),
        _ => {}
    }
    let Some(command) = known(&name, &mut parsed, &mut parser)? else {
        return show(&help::group(&name.to_string_lossy()));
    };
    if command.name == spec::SERVE.name {
        if !parsed.is_empty() {
            return Err(UsageError::Flags("flags of serve go behind its name").into());
        }
        let rest = parser.raw_args().map_err(UsageError::from)?;
        return match config::load(rest, env::vars_os())? {
            Invocation::Serve(loaded) => Ok(serve(*loaded)),
            Invocation::Help => show(&help::command(command)),
        };
    }
    if command.name == spec::CONFIG_CHECK.name {
        return config_check(parser.raw_args().map_err(UsageError::from)?.collect());
    }
    let mut to_run = Vec::new();
    if command.name == spec::WATCH.name {
        let (own, behind) = split_at_dashes(parser.raw_args().map_err(UsageError::from)?.collect());
        to_run = behind;
        parser = Parser::from_args(own);
    }
    parsed.rest(command, &mut parser)?;
    if parsed.help {
        return show(&help::command(command));
    }
    client_command(command, parsed, to_run)
}

/// The command of this name, whose second word, where it has one, is read; `None` when that is missing.
fn known(
    name: &OsStr,
    parsed: &mut Parsed,
    parser: &mut Parser,
) -> Result<Option<&'static Command>, Failure> {
    if !spec::GROUPS.iter().any(|group| name == *group) {
        return Ok(Some(args::command(name)?));
    }
    let First::Command(second) = parsed.until_command(parser)? else { return Ok(None) };
    let mut both = name.to_owned();
    both.push(" ");
    both.push(second);
    Ok(Some(args::command(&both)?))
}

/// What a server would run with, given these arguments.
fn config_check(mut arguments: Vec<OsString>) -> Result<ExitCode, Failure> {
    if arguments.first().is_some_and(|first| !first.as_encoded_bytes().starts_with(b"-")) {
        arguments.insert(0, "--config-file".into());
    }
    let Invocation::Serve(checked) = config::load(arguments, env::vars_os())? else {
        return show(&help::command(&spec::CONFIG_CHECK));
    };
    for warning in &checked.config.warnings {
        output::to_stderr(&format!("Warning: {warning}"));
    }
    let lines: Vec<String> = checked.settings.iter().map(ToString::to_string).collect();
    show(&format!("{}\n", lines.join("\n")))
}

/// What stands before the first `--`, and what behind it.
fn split_at_dashes(mut arguments: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let Some(place) = arguments.iter().position(|argument| argument == "--") else {
        return (arguments, Vec::new());
    };
    let behind = arguments.split_off(place + 1);
    arguments.pop();
    (arguments, behind)
}

fn client_command(command: &Command, parsed: Parsed, to_run: Vec<OsString>) -> Result<ExitCode, Failure> {
    let (mut settings, parsed) = parsed.client_settings(|name| env::var_os(name))?;
    if settings.format == Format::Table {
        table::check(command)?;
    }
    if let Some(code) = local_command(command, &parsed, &settings)? {
        return Ok(code);
    }
    if let Some(Credentials { password: missing @ None, .. }) = &mut settings.credentials {
        *missing = Some(password::ask()?);
    }
    let settings = settings;
    let print = |reply: &Reply| output::to_stdout(|out| reply::write(out, settings.format, reply));
    if command.name == spec::WATCH.name {
        lasting::run(watch::watch(&settings, requests::watch(&parsed)?, to_run, print))?;
        return Ok(ExitCode::SUCCESS);
    }
    if command.name == spec::LEASE_KEEP_ALIVE.name && !parsed.switch("once")? {
        lasting::run(keep_alive::keep_alive(&settings, requests::lease_id(&parsed)?, print))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(job) = contend::job(command, &parsed)? {
        match job {
            contend::Job::Hold(contest) => contend::hold(&settings, &contest, print)?,
            contend::Job::Listen(name) => lasting::run(contend::listen(&settings, name, print))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    if command.name == spec::SNAPSHOT.name {
        return snapshot(&settings, snapshot::job(&parsed, &settings)?);
    }
    if command.name == spec::DOCTOR.name {
        let checks = doctor::perform(&doctor::job(&parsed)?, &settings);
        output::to_stdout(|out| doctor::write(out, settings.format, &checks)).map_err(Failure::Output)?;
        return Ok(if doctor::is_well(&checks) { ExitCode::SUCCESS } else { EXIT_FAILED.into() });
    }
    if command.name == spec::YIELD.name {
        give_up::perform(&settings, &give_up::job(&parsed)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if command.name == spec::STATUS.name {
        return status(&parsed, &settings);
    }
    if let Some(job) = admin::job(command, &parsed)? {
        let done = admin::perform(&settings, job)?;
        output::to_stdout(|out| admin::write(out, settings.format, &done)).map_err(Failure::Output)?;
        if let Some(hint) = admin::hint(&done) {
            output::to_stderr(&hint);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(job) = endpoints::job(command, &parsed)? {
        return ask_endpoints(&settings, job);
    }
    let call = match access::question(command, &parsed, settings.format)? {
        Some(question) => Call::Access(question),
        None => call(command, &parsed, &settings)?,
    };
    let reply = calls::perform(&settings, call)?;
    print(&reply).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// A command that talks to no server.
fn local_command(
    command: &Command,
    parsed: &Parsed,
    settings: &ClientSettings,
) -> Result<Option<ExitCode>, Failure> {
    match command.name {
        name if name == spec::SNAPSHOT.name => match snapshot::job(parsed, settings)? {
            snapshot::Job::Save(_) => return Ok(None),
            job => return snapshot(settings, job).map(Some),
        },
        name if name == spec::RECOVER.name => recover::perform(&recover::job(parsed)?)?,
        name if name == spec::PREPARE_IMAGE.name => {
            prepare_image::perform(&prepare_image::job(parsed)?)?;
        }
        name if name == spec_upkeep::COMPLETION.name => return show(&completion::script(parsed)?).map(Some),
        name if name == spec::NODE_FINGERPRINT.name => return node_fingerprint(parsed).map(Some),
        _ => return Ok(None),
    }
    Ok(Some(ExitCode::SUCCESS))
}

fn snapshot(settings: &ClientSettings, job: snapshot::Job) -> Result<ExitCode, Failure> {
    let done = snapshot::perform(settings, job)?;
    output::to_stdout(|out| snapshot::write(out, settings.format, &done)).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// What went wrong goes to standard error, what did not is printed all the same.
fn ask_endpoints(settings: &ClientSettings, job: endpoints::Job) -> Result<ExitCode, Failure> {
    let say = |line: &str| output::to_stdout(|out| writeln!(out, "{line}"));
    let asked = endpoints::perform(settings, job, say)?;
    asked.complaints.iter().for_each(|complaint| output::to_stderr(complaint));
    if let Some(reply) = &asked.reply {
        output::to_stdout(|out| reply::write(out, settings.format, reply)).map_err(Failure::Output)?;
    }
    match asked.verdict {
        Some(verdict) => Err(Failure::Unwell(verdict)),
        None if asked.complaints.is_empty() => Ok(ExitCode::SUCCESS),
        None => Ok(EXIT_FAILED.into()),
    }
}

/// The exit code is the verdict.
fn status(parsed: &Parsed, settings: &ClientSettings) -> Result<ExitCode, Failure> {
    if !parsed.arguments.is_empty() {
        return Err(UsageError::Arguments("status takes no arguments, only flags").into());
    }
    let status = admin::status(settings)?;
    let verdict = judge(&status);
    output::to_stdout(|out| status::write(out, settings.format, &status, &verdict))
        .map_err(Failure::Output)?;
    Ok(if verdict.healthy { ExitCode::SUCCESS } else { EXIT_FAILED.into() })
}

/// The fingerprint alone goes to standard output, for scripts.
fn node_fingerprint(parsed: &Parsed) -> Result<ExitCode, Failure> {
    if !parsed.arguments.is_empty() {
        return Err(UsageError::Arguments("node fingerprint takes no arguments, only flags").into());
    }
    let data_dir = parsed.data_dir(env::vars_os())?;
    let made = app::node_fingerprint(&data_dir)?;
    if made.is_new {
        output::to_stderr(&format!("made the key of a new node in {}", data_dir.display()));
    }
    show(&format!("{}\n", made.fingerprint))
}

fn call(command: &Command, parsed: &Parsed, settings: &ClientSettings) -> Result<Call, Failure> {
    let none = |message| {
        if parsed.arguments.is_empty() { Ok(()) } else { Err(UsageError::Arguments(message)) }
    };
    Ok(match command.name {
        "get" => {
            let request = requests::range(parsed)?;
            let values_only = ValuesOnly(parsed.switch("print-value-only")?);
            check_format(&request, values_only, settings.format)?;
            Call::Range(request, values_only)
        }
        "put" => {
            let mut broken = None;
            let request = requests::put(parsed, || read_stdin().map_err(|error| broken = Some(error)).ok());
            match broken {
                Some(error) => return Err(Failure::Input(error)),
                None => Call::Put(request?),
            }
        }
        "del" => Call::Delete(requests::delete(parsed)?),
        "txn" => {
            none("txn command does not accept argument")?;
            let text = read_stdin().map_err(Failure::Input)?;
            let text = String::from_utf8(text).map_err(|error| Failure::Input(io::Error::other(error)))?;
            Call::Txn(txn::parse(&text)?)
        }
        "compact" => Call::Compact(requests::compact(parsed)?),
        "lease grant" => Call::LeaseGrant(requests::lease_grant(parsed)?),
        "lease revoke" => Call::LeaseRevoke(requests::lease_id(parsed)?),
        "lease timetolive" => Call::LeaseTimeToLive(requests::lease_id(parsed)?, parsed.switch("keys")?),
        "lease keep-alive" => Call::LeaseKeepAlive(requests::lease_id(parsed)?),
        "lease list" => {
            none("lease list command does not accept argument")?;
            Call::Leases
        }
        "member list" => {
            none("member list command does not accept argument")?;
            Call::Members
        }
        "member add" => {
            let (name, request) = requests::member_add(parsed)?;
            Call::MemberAdd(name, request)
        }
        "member remove" => Call::MemberRemove(requests::member_id(parsed)?),
        "member update" => Call::MemberUpdate(requests::member_update(parsed)?),
        "member promote" => Call::MemberPromote(requests::member_id(parsed)?),
        "move-leader" => Call::MoveLeader(requests::member_id(parsed)?),
        "alarm disarm" => {
            none("alarm disarm command accepts no arguments")?;
            Call::AlarmDisarm
        }
        _ => {
            none("alarm list command accepts no arguments")?;
            Call::AlarmList
        }
    })
}

/// What etcdctl refuses, too: a count is nothing in the simple format, and values alone are nothing in the others.
fn check_format(
    request: &crate::wire::etcdserverpb::RangeRequest,
    values_only: ValuesOnly,
    format: Format,
) -> Result<(), UsageError> {
    if request.count_only && format.is_simple() {
        return Err(UsageError::Flags("--count-only is only for --write-out=fields or json"));
    }
    if values_only.0 && !format.is_simple() {
        return Err(UsageError::Flags("--print-value-only is only for --write-out=simple"));
    }
    Ok(())
}

fn read_stdin() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn help(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let Some(lexopt::Arg::Value(topic)) = parser.next().map_err(UsageError::from)? else {
        return show(&help::overview());
    };
    if topic == OsStr::new("config") {
        return show(&config::example());
    }
    let mut parsed = Parsed::default();
    Ok(match known(&topic, &mut parsed, parser)? {
        Some(command) => show(&help::command(command))?,
        None => show(&help::group(&topic.to_string_lossy()))?,
    })
}

fn version() -> Result<ExitCode, Failure> {
    show(&format!("covey Version: {}\netcd API: {ETCD_API}\n", env!("CARGO_PKG_VERSION")))
}

fn show(text: &str) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| out.write_all(text.as_bytes())).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::{OsString, split_at_dashes};

    #[test]
    fn a_command_stands_behind_the_first_dashes() {
        let words = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(split_at_dashes(words("k -- a -- b")), (words("k"), words("a -- b")));
        assert_eq!(split_at_dashes(words("k --rev 1")), (words("k --rev 1"), Vec::new()));
        assert_eq!(split_at_dashes(words("k --")), (words("k"), Vec::new()));
    }
}
