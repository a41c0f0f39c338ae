//! The state as a stream of blobs (API reference, section 5.5).
//!
//! Owns: the size of the blobs, the count of what remains, the hash at the end. Must never: keep a view while the client takes its time, or more
//! than a slice. Driven by gRPC, which asks for a blob once it can send one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use smol::stream::Stream;
use tonic::Status;

use super::credentials::Credentials;
use super::node::Node;
use super::watch_permits::{Permit, check};
use super::{errors, version};
use crate::command::{KeyRange, Rejection};
use crate::runtime::Hold;
use crate::snapshot::{ImageWriter, WriteError};
use crate::wire::etcdserverpb as pb;

/// Bytes in a blob: etcd's number, which clients have buffers for.
const BLOB_BYTES_MAX: usize = 32 * 1024;
/// Bytes that are read at a time, unless a single record is larger.
const SLICE_BYTES: usize = 8 * BLOB_BYTES_MAX;

type Reading = Pin<Box<dyn Future<Output = Result<(Box<Source>, Bytes), Status>> + Send>>;

/// The messages of one snapshot.
pub struct SnapshotStream {
    node: Node,
    state: State,
    /// Read, and not sent yet.
    slice: Bytes,
    remaining: u64,
    /// How many there may be is counted by these.
    _place: Arc<()>,
}

/// Where an image comes from.
struct Source {
    writer: ImageWriter,
    hold: Hold,
    /// By what; `None` where nobody had to be anybody.
    permit: Option<Permit>,
}

enum State {
    /// The next slice is not asked for yet; no view is held.
    Between(Box<Source>),
    Reading(Reading),
    Ended,
}

impl SnapshotStream {
    /// Fixes what the image is of: the state of this member as it is now.
    pub async fn start(node: Node, credentials: &Credentials, place: Arc<()>) -> Result<Self, Status> {
        let hold = node.handle().hold_removal().await?;
        let view = hold.view(node.handle())?;
        // Meanwhile authentication may have been turned on, or the caller's role taken away.
        let caller = node.check(credentials, &view, |permits| permits.access.is_root())?;
        let permit = caller.map(|caller| Permit::new(credentials, caller, KeyRange::everything(), &view));
        let writer = node.read(view, false, ImageWriter::start).await?;
        let remaining = writer.total_bytes();
        tracing::info!(bytes = remaining, revision = writer.revision().0, "sending a snapshot to a client");
        let state = State::Between(Box::new(Source { writer, hold, permit }));
        Ok(Self { node, state, slice: Bytes::new(), remaining, _place: place })
    }

    fn blob(&mut self) -> pb::SnapshotResponse {
        let blob = self.slice.split_to(self.slice.len().min(BLOB_BYTES_MAX));
        self.remaining = self.remaining.saturating_sub(blob.len() as u64);
        message(self.remaining, blob)
    }
}

fn message(remaining_bytes: u64, blob: Bytes) -> pb::SnapshotResponse {
    pb::SnapshotResponse { header: None, remaining_bytes, blob, version: version::STORAGE.to_owned() }
}

impl Stream for SnapshotStream {
    type Item = Result<pb::SnapshotResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            // Short blobs are for the end only.
            if this.slice.len() >= BLOB_BYTES_MAX
                || (this.remaining > 0 && this.remaining == this.slice.len() as u64)
            {
                return Poll::Ready(Some(Ok(this.blob())));
            }
            match std::mem::replace(&mut this.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Between(source) if this.remaining == 0 => {
                    return Poll::Ready(Some(match source.writer.hash() {
                        Ok(hash) => {
                            tracing::info!("sent a snapshot");
                            Ok(message(0, Bytes::copy_from_slice(&hash)))
                        }
                        Err(error) => Err(write_failed(error)),
                    }));
                }
                State::Between(source) => {
                    let rest = std::mem::take(&mut this.slice);
                    this.state = State::Reading(read(this.node.clone(), source, rest));
                }
                State::Reading(mut reading) => {
                    let done = reading.as_mut().poll(cx);
                    if done.is_pending() {
                        this.state = State::Reading(reading);
                    }
                    match ready!(done) {
                        Err(status) => return Poll::Ready(Some(Err(status))),
                        Ok((source, slice)) => {
                            (this.slice, this.state) = (slice, State::Between(source));
                        }
                    }
                }
            }
        }
    }
}

fn write_failed(error: WriteError) -> Status {
    match error {
        WriteError::Store(error) => error.into(),
        error @ WriteError::Miscounted { .. } => errors::image_incomplete(&error),
    }
}

/// Reads a slice on the pool, behind what is left of the one before.
fn read(node: Node, mut source: Box<Source>, rest: Bytes) -> Reading {
    Box::pin(async move {
        let view = source.hold.view(node.handle())?;
        let auth = &view.facts().auth;
        if auth.enabled && !source.permit.as_ref().is_some_and(|permit| auth.is_root(permit.user())) {
            return Err(Rejection::PermissionDenied.into());
        }
        check(source.permit.as_mut(), &view)?;
        let work = move |view: &_| match source.writer.next_slice(view, SLICE_BYTES)? {
            Some(slice) => Ok((source, slice)),
            None => Err(source.writer.miscounted()),
        };
        let (source, slice) = node.read(view, false, work).await.map_err(write_failed)?;
        let slice = if rest.is_empty() { slice } else { [&rest[..], &slice].concat() };
        Ok((source, slice.into()))
    })
}
