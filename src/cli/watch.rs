//! `watch`: changes as they happen, over however many connections it takes.
//!
//! Owns: where the watch stands, and the command that is run for each change. Must never: print a change twice, or leave one out
//! without saying so. Driven by `run`.

use std::ffi::OsString;
use std::io;
use std::process::Command;

use smol::stream::{self, StreamExt as _};

use super::args::ClientSettings;
use super::calls::origin;
use super::lasting::{LastingError, Line, Work};
use super::output;
use super::quote::quote;
use super::reply::Reply;
use crate::wire::etcdserverpb::watch_client::WatchClient;
use crate::wire::etcdserverpb::watch_request::RequestUnion;
use crate::wire::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::wire::mvccpb::Event;

/// What the server says of a revision that is gone, for which it has a field instead of words.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// Watches until the server ends it, prints each message with `print`, and runs `to_run` for each change where that is not empty.
pub fn watch<'a>(
    settings: &'a ClientSettings,
    mut request: WatchCreateRequest,
    to_run: Vec<OsString>,
    print: impl Fn(&Reply) -> io::Result<()> + 'a,
) -> Work<'a> {
    Box::new(move |executor| {
        Box::pin(async move {
            let mut line = Line::new(executor, settings);
            loop {
                let (channel, endpoint) = line.connect().await?;
                let mut client = WatchClient::with_origin(channel, origin(&endpoint))
                    .max_decoding_message_size(usize::MAX);
                let create = RequestUnion::CreateRequest(request.clone());
                let create = WatchRequest { request_union: Some(create) };
                // Ending the requests would be no end of the watch, but is a thing that proxies do not know.
                let requests = stream::once(create).chain(stream::pending());
                let broken = match client.watch(requests).await {
                    Err(status) => status,
                    Ok(responses) => {
                        let mut responses = responses.into_inner();
                        loop {
                            match responses.message().await {
                                Ok(Some(response)) => {
                                    line.note_success();
                                    take(&mut request, response, &to_run, &print)?;
                                }
                                Ok(None) => break tonic::Status::unavailable("the server ended the watch"),
                                Err(status) => break status,
                            }
                        }
                    }
                };
                line.broken(broken).await?;
            }
        })
    })
}

/// Prints a message, and notes in `request` where to go on after it.
fn take(
    request: &mut WatchCreateRequest,
    response: WatchResponse,
    to_run: &[OsString],
    print: &impl Fn(&Reply) -> io::Result<()>,
) -> Result<(), LastingError> {
    let revision = response.header.map_or(0, |header| header.revision);
    if response.canceled {
        let compacted = response.compact_revision != 0;
        let reason = if compacted { COMPACTED.to_owned() } else { response.cancel_reason.clone() };
        print(&Reply::Watch(response)).map_err(LastingError::Output)?;
        return Err(LastingError::Canceled(reason));
    }
    if response.created {
        // From now on, and "now" must not move when the connection breaks before the first change.
        if request.start_revision == 0 {
            request.start_revision = revision + 1;
        }
        return Ok(());
    }
    let seen = response.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision).max();
    // Without changes it is progress: everything up to the header's revision was sent.
    let next = seen.unwrap_or(revision) + 1;
    request.start_revision = request.start_revision.max(next);
    if response.events.is_empty() {
        output::to_stdout(|out| {
            io::Write::write_all(out, format!("progress notify: {revision}\n").as_bytes())
        })
        .map_err(LastingError::Output)?;
    }
    let reply = Reply::Watch(response);
    print(&reply).map_err(LastingError::Output)?;
    let Reply::Watch(response) = reply else { return Ok(()) };
    match to_run.split_first() {
        Some((command, arguments)) => {
            response.events.iter().try_for_each(|event| run(command, arguments, revision, event))
        }
        None => Ok(()),
    }
}

/// Runs the command for one change and waits for it, with etcdctl's names in its environment.
fn run(command: &OsString, arguments: &[OsString], revision: i64, event: &Event) -> Result<(), LastingError> {
    let kv = event.kv.clone().unwrap_or_default();
    let status = Command::new(command)
        .args(arguments)
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", quote(event.r#type().as_str_name().as_bytes()))
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value))
        .status();
    let name = || command.to_string_lossy().into_owned();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(LastingError::Failed { command: name(), status }),
        Err(source) => Err(LastingError::Run { command: name(), source }),
    }
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
