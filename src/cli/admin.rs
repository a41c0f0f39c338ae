//! The operator's commands: tokens, nodes that wait, the window, clients.
//!
//! Owns: what they ask the Admin service, and how they print its answers. Must never: show a secret on standard error, or ask for one that there is no place
//! for. Driven by `run`.

use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use smol::LocalExecutor;
use tonic::{Request, Response, Status};

use super::args::{ClientSettings, Format, Parsed, UsageError};
use super::bundle::{Bundle, BundleError, Renewal};
use super::calls::{CallError, origin, timed, within_timeout};
use super::client::Channel;
use super::reach::first_reachable;
use super::spec::Command;
use crate::api::pending_json;
use crate::api::verdict::span;
use crate::config::duration;
use crate::telemetry::LogLevel;
use crate::wire::covey::v1 as pb;
use crate::wire::covey::v1::admin_client::AdminClient;

/// For how long a token is good unless it is said.
const TOKEN_TTL: Duration = Duration::from_secs(60 * 60);
/// How many hexadecimal digits stand together.
const GROUP_DIGITS: usize = 4;

/// Why a command of the operator's did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The server did not.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There is no place for the bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The client exists, and its key is lost.
    #[error(
        "{error}; the key is lost, and its certificate is accepted all the same until: covey client revoke {name}"
    )]
    Unwritten {
        /// The client.
        name: String,
        /// Why not.
        error: BundleError,
    },
}

/// What to ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Job {
    TokenCreate { seconds: u64 },
    TokenList,
    TokenRevoke { id: String },
    NodePending,
    NodeApprove { fingerprint: String },
    WindowOpen { seconds: u64 },
    WindowClose,
    LogLevel { level: String },
    ClientIssue { name: String, out: PathBuf },
    ClientList,
    ClientRevoke { name: String },
    ClientRenew { name: String, out: PathBuf },
}

/// What came of it.
#[derive(Debug)]
pub enum Done {
    TokenCreated(pb::TokenCreateResponse),
    Tokens(Vec<pb::Token>),
    TokenRevoked(String),
    Pending(pb::NodePendingResponse),
    Approved(String),
    LogLevel(String),
    WindowOpened(u64),
    WindowClosed,
    ClientIssued { name: String, out: PathBuf },
    Clients(Vec<pb::Client>),
    ClientRevoked { name: String, revoked: u64 },
    ClientRenewed { name: String, out: PathBuf },
}

/// The job of a command that is one of these.
pub fn job(command: &Command, parsed: &Parsed) -> Result<Option<Job>, UsageError> {
    let none = |job| {
        if parsed.arguments.is_empty() {
            Ok(job)
        } else {
            Err(UsageError::Arguments("this command takes no arguments, only flags"))
        }
    };
    Ok(Some(match command.name {
        "token create" => {
            let ttl = parsed.parse("ttl", duration)?.unwrap_or(TOKEN_TTL);
            none(Job::TokenCreate { seconds: ttl.as_secs() })?
        }
        "token list" => none(Job::TokenList)?,
        "token revoke" => Job::TokenRevoke { id: one(parsed, "token revoke takes one token's id")? },
        "node pending" => none(Job::NodePending)?,
        "node approve" => Job::NodeApprove { fingerprint: fingerprint(parsed)? },
        "window open" => Job::WindowOpen { seconds: window(parsed)?.as_secs() },
        "window close" => none(Job::WindowClose)?,
        "log-level" => Job::LogLevel { level: level(parsed)? },
        "client issue" => {
            let name = one(parsed, "client issue takes one name")?;
            Job::ClientIssue { out: out_dir(parsed, &name)?, name }
        }
        "client renew" => {
            let name = one(parsed, "client renew takes one name")?;
            Job::ClientRenew { out: out_dir(parsed, &name)?, name }
        }
        "client list" => none(Job::ClientList)?,
        "client revoke" => Job::ClientRevoke { name: one(parsed, "client revoke takes one name")? },
        _ => return Ok(None),
    }))
}

fn one(parsed: &Parsed, usage: &'static str) -> Result<String, UsageError> {
    match &parsed.arguments[..] {
        [argument] => text(argument, usage),
        _ => Err(UsageError::Arguments(usage)),
    }
}

/// Where a client's bundle is.
fn out_dir(parsed: &Parsed, name: &str) -> Result<PathBuf, UsageError> {
    match parsed.text("out") {
        Some(out) => Ok(PathBuf::from(out)),
        None if is_file_name(name) => Ok(PathBuf::from(name)),
        None => Err(UsageError::Flags("no directory can be called like this client: use --out")),
    }
}

/// It may have been copied with its blanks, which make several arguments of it.
fn fingerprint(parsed: &Parsed) -> Result<String, UsageError> {
    const USAGE: &str =
        "node approve takes one fingerprint, as covey node pending prints it, or its first 32 digits";
    if parsed.arguments.is_empty() {
        return Err(UsageError::Arguments(USAGE));
    }
    text(&parsed.arguments.concat(), USAGE)
}

fn text(argument: &[u8], usage: &'static str) -> Result<String, UsageError> {
    String::from_utf8(argument.to_vec()).map_err(|_| UsageError::Arguments(usage))
}

/// Empty where it is only asked for.
fn level(parsed: &Parsed) -> Result<String, UsageError> {
    const USAGE: &str =
        "log-level takes one of debug, info, warn and error, or nothing to print the present one";
    if parsed.arguments.is_empty() {
        return Ok(String::new());
    }
    let level = one(parsed, USAGE)?;
    if LogLevel::named(&level).is_some() { Ok(level) } else { Err(UsageError::Arguments(USAGE)) }
}

fn window(parsed: &Parsed) -> Result<Duration, UsageError> {
    let usage = "window open takes one time, such as 10m";
    duration(&one(parsed, usage)?).map_err(|_| UsageError::Arguments(usage))
}

/// Whether a directory here may be called so.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !name.starts_with(['.', '-'])
}

/// How the node and its cluster stand.
pub fn status(settings: &ClientSettings) -> Result<pb::StatusResponse, AdminError> {
    ask(settings, async |mut client| {
        client.status(timed(settings, pb::StatusRequest {})).await.map(Response::into_inner)
    })
}

/// Has the cluster give itself up for another one.
pub fn give_up_for(settings: &ClientSettings, cluster: u64) -> Result<(), AdminError> {
    ask(settings, async |mut client| {
        client.give_up(timed(settings, pb::GiveUpRequest { cluster })).await.map(drop)
    })
}

/// Has it done.
pub fn perform(settings: &ClientSettings, job: Job) -> Result<Done, AdminError> {
    match job {
        Job::ClientIssue { name, out } => return issue(settings, name, out),
        Job::ClientRenew { name, out } => return renew(settings, name, out),
        _ => {}
    }
    ask(settings, async |client| perform_one(client, settings, job).await)
}

async fn perform_one(
    mut client: AdminClient<Channel>,
    settings: &ClientSettings,
    job: Job,
) -> Result<Done, Status> {
    fn request<T>(settings: &ClientSettings, message: T) -> Request<T> {
        timed(settings, message)
    }
    Ok(match job {
        Job::TokenCreate { seconds } => {
            let answer = client.token_create(request(settings, pb::TokenCreateRequest { seconds })).await?;
            Done::TokenCreated(answer.into_inner())
        }
        Job::TokenList => {
            let answer = client.token_list(request(settings, pb::TokenListRequest {})).await?;
            Done::Tokens(answer.into_inner().tokens)
        }
        Job::TokenRevoke { id } => {
            client.token_revoke(request(settings, pb::TokenRevokeRequest { id: id.clone() })).await?;
            Done::TokenRevoked(id)
        }
        Job::NodePending => {
            let answer = client.node_pending(request(settings, pb::NodePendingRequest {})).await?;
            Done::Pending(answer.into_inner())
        }
        Job::NodeApprove { fingerprint } => {
            let answer =
                client.node_approve(request(settings, pb::NodeApproveRequest { fingerprint })).await?;
            Done::Approved(answer.into_inner().fingerprint)
        }
        Job::WindowOpen { seconds } => {
            client.window_open(request(settings, pb::WindowOpenRequest { seconds })).await?;
            Done::WindowOpened(seconds)
        }
        Job::WindowClose => {
            client.window_close(request(settings, pb::WindowCloseRequest {})).await?;
            Done::WindowClosed
        }
        Job::LogLevel { level } => {
            let answer = client.log_level(request(settings, pb::LogLevelRequest { level })).await?;
            Done::LogLevel(answer.into_inner().level)
        }
        Job::ClientList => {
            let answer = client.client_list(request(settings, pb::ClientListRequest {})).await?;
            Done::Clients(answer.into_inner().clients)
        }
        Job::ClientRevoke { name } => {
            let revoke = pb::ClientRevokeRequest { name: name.clone() };
            let answer = client.client_revoke(request(settings, revoke)).await?;
            Done::ClientRevoked { name, revoked: answer.into_inner().revoked }
        }
        Job::ClientIssue { .. } | Job::ClientRenew { .. } => unreachable!("what it needs is seen to before"),
    })
}

fn issue(settings: &ClientSettings, name: String, out: PathBuf) -> Result<Done, AdminError> {
    // Before there is a key that would be lost.
    Bundle::check_free(&out)?;
    let request = pb::ClientIssueRequest { name: name.clone() };
    let issued = ask(settings, async |mut client| {
        client.client_issue(timed(settings, request)).await.map(Response::into_inner)
    })?;
    let pb::ClientIssueResponse { authority: ca, certificate, key, endpoints } = issued;
    match (Bundle { ca, certificate, key, endpoints }).write(&out) {
        Ok(()) => Ok(Done::ClientIssued { name, out }),
        Err(error) => Err(AdminError::Unwritten { name, error }),
    }
}

fn renew(settings: &ClientSettings, name: String, out: PathBuf) -> Result<Done, AdminError> {
    // Before the cluster takes the client for renewed.
    Renewal::check_place(&out)?;
    let request = pb::ClientRenewRequest { name: name.clone() };
    let renewed = ask(settings, async |mut client| {
        client.client_renew(timed(settings, request)).await.map(Response::into_inner)
    })?;
    let pb::ClientRenewResponse { authority: ca, endpoints } = renewed;
    Renewal { ca, endpoints }.write(&out)?;
    Ok(Done::ClientRenewed { name, out })
}

fn ask<T, F>(settings: &ClientSettings, call: impl FnOnce(AdminClient<Channel>) -> F) -> Result<T, AdminError>
where
    F: Future<Output = Result<T, Status>>,
{
    let executor = Rc::new(LocalExecutor::new());
    let answer = smol::block_on(executor.run(async {
        let (channel, endpoint) = first_reachable(&executor, settings).await.map_err(CallError::from)?;
        let client = AdminClient::with_origin(channel, origin(&endpoint));
        within_timeout(settings, async { call(client).await.map_err(CallError::from) }).await
    }))?;
    Ok(answer)
}

/// Prints what came of it.
pub fn write(out: &mut impl Write, format: Format, done: &Done) -> io::Result<()> {
    match format {
        Format::Json => {
            serde_json::to_writer(&mut *out, &as_json(done))?;
            writeln!(out)
        }
        Format::Simple | Format::Hex | Format::Fields | Format::Table => write_simple(out, done),
    }
}

fn write_simple(out: &mut impl Write, done: &Done) -> io::Result<()> {
    match done {
        Done::TokenCreated(made) => writeln!(out, "{}", made.token),
        Done::Tokens(tokens) => tokens.iter().try_for_each(|token| {
            let state = if token.used_by.is_empty() {
                format!("good for {}", span(token.seconds))
            } else {
                format!("used by {}", grouped(&token.used_by))
            };
            writeln!(out, "{}, {state}", token.id)
        }),
        Done::TokenRevoked(id) => writeln!(out, "token {id} revoked"),
        Done::Pending(told) => told.nodes.iter().try_for_each(|node| {
            let urls = node.peer_urls.join(",");
            let asked = span(node.asked_seconds);
            writeln!(out, "{}, {}, {urls}, asked {asked} ago", grouped(&node.fingerprint), node.name)
        }),
        Done::Approved(fingerprint) => {
            writeln!(out, "{} is approved: it joins when it asks next", grouped(fingerprint))
        }
        Done::WindowOpened(seconds) => {
            writeln!(out, "whoever is on the LAN is let in for {}", span(*seconds))
        }
        Done::WindowClosed => writeln!(out, "nobody is let in any more without a token or an approval"),
        Done::LogLevel(level) => writeln!(out, "{level}"),
        Done::ClientIssued { name, out: dir } => {
            writeln!(out, "client {name} issued: all that it needs is in {}", dir.display())
        }
        Done::Clients(clients) => clients.iter().try_for_each(|client| {
            let renew = match client {
                pb::Client { outdated: false, .. } => String::new(),
                pb::Client { outdated_seconds: 0, .. } => {
                    ", knows no server any more: covey client renew".to_owned()
                }
                pb::Client { outdated_seconds, .. } => {
                    format!(", knows the servers for {}: covey client renew", span(*outdated_seconds))
                }
            };
            writeln!(out, "{}, {}{renew}", client.name, client.key)
        }),
        Done::ClientRevoked { name, revoked: 1 } => writeln!(out, "client {name} revoked"),
        Done::ClientRevoked { name, revoked } => {
            writeln!(out, "client {name} revoked: there were {revoked} certificates of that name")
        }
        Done::ClientRenewed { name, out: dir } => {
            writeln!(out, "client {name} renewed: ca.crt and endpoints are in {}", dir.display())
        }
    }
}

fn as_json(done: &Done) -> serde_json::Value {
    match done {
        Done::TokenCreated(made) => json!({ "token": made.token, "id": made.id, "seconds": made.seconds }),
        Done::Tokens(tokens) => {
            let token = |token: &pb::Token| json!({ "id": token.id, "seconds": token.seconds, "used_by": token.used_by });
            json!({ "tokens": tokens.iter().map(token).collect::<Vec<_>>() })
        }
        Done::TokenRevoked(id) => json!({ "revoked": id }),
        Done::Pending(told) => {
            let nodes: Vec<_> = told.nodes.iter().map(pending_json).collect();
            json!({ "pending": nodes, "silent": told.silent, "left_out": told.left_out })
        }
        Done::Approved(fingerprint) => json!({ "approved": fingerprint }),
        Done::WindowOpened(seconds) => json!({ "open_seconds": seconds }),
        Done::LogLevel(level) => json!({ "level": level }),
        Done::WindowClosed => json!({ "open_seconds": 0 }),
        Done::ClientIssued { name, out } | Done::ClientRenewed { name, out } => {
            json!({ "name": name, "out": out.to_string_lossy() })
        }
        Done::Clients(clients) => {
            let client = |client: &pb::Client| {
                let seconds = client.outdated.then_some(client.outdated_seconds);
                json!({ "name": client.name, "key": client.key, "outdated_seconds": seconds })
            };
            json!({ "clients": clients.iter().map(client).collect::<Vec<_>>() })
        }
        Done::ClientRevoked { name, revoked } => json!({ "name": name, "revoked": revoked }),
    }
}

/// What is said beside it, to whoever types.
pub fn hint(done: &Done) -> Option<String> {
    match done {
        Done::TokenCreated(made) => Some(format!(
            "token {} lets in one node within {}; it is not shown again. On the new box: covey serve --join-token-file FILE",
            made.id,
            span(made.seconds)
        )),
        Done::Pending(told) => missing(told),
        _ => None,
    }
}

/// Who else may wait, or does.
fn missing(told: &pb::NodePendingResponse) -> Option<String> {
    let pb::NodePendingResponse { silent, left_out, .. } = told;
    let elsewhere = (!silent.is_empty())
        .then(|| format!("not answered by {}: who has asked only there is missing here", silent.join(", ")));
    let earlier = (*left_out > 0).then(|| {
        format!(
            "{left_out} more that have asked longer ago are left out; \"covey node approve\" takes the fingerprint that a box shows itself"
        )
    });
    let parts: Vec<String> = elsewhere.into_iter().chain(earlier).collect();
    (!parts.is_empty()).then(|| parts.join("\n"))
}

/// Hexadecimal digits in short groups.
pub fn grouped(digits: &str) -> String {
    let digits: Vec<char> = digits.chars().collect();
    let groups = digits.chunks(GROUP_DIGITS).map(|group| group.iter().collect::<String>());
    groups.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "admin_test.rs"]
mod tests;
