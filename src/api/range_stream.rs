//! A range in chunks (API reference, section 1.3).
//!
//! Owns: how large a chunk is, and where the next one starts. Must never: keep a view while the client takes its time: that would
//! keep every page freed meanwhile, and the store's file would grow. Driven by gRPC, which asks for a chunk once it can send one.
//!
//! Each chunk is read from the newest view at the revision of the first. Hence a compaction past that revision ends the stream
//! with the compacted error, as it does in etcd.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use smol::stream::Stream;
use tonic::Status;

use super::node::Node;
use super::render;
use super::watch_permits::{Permit, check};
use crate::command::{KeyRange, KeyValue, Range, RangeResult};
use crate::ids::Revision;
use crate::mvcc::{Page, PagesEnd, RangePages, ReadError, View};
use crate::wire::etcdserverpb as pb;

/// Keys in the first chunk (etcd's number). It doubles from chunk to chunk while chunks stay small.
const FIRST_CHUNK_KEYS: usize = 10;
/// Keys in a chunk, however small they are.
const CHUNK_KEYS_MAX: usize = 16 * 1024;

type Reading = Pin<Box<dyn Future<Output = Result<(Page, Cursor), Status>> + Send>>;

/// The chunks of one range.
pub struct RangeStream {
    node: Node,
    state: State,
}

enum State {
    /// A chunk is being read.
    Reading(Reading),
    /// The next chunk is not asked for yet; no view is held.
    Between(Cursor),
    Ended,
}

/// Where a stream is.
struct Cursor {
    /// What is left to read, at a pinned revision.
    rest: Range,
    at: Revision,
    chunk_keys: usize,
    chunk_bytes_max: usize,
    /// Keys sent so far.
    sent: i64,
    /// By what. While a stream goes on, it may be forbidden.
    permit: Option<Permit>,
}

impl RangeStream {
    /// Reads `request`, which must be in key order, in chunks of about `chunk_bytes_max` bytes; the current revision is `view`'s, in which `permit` was
    /// found, unless nobody had to be anybody.
    pub fn start(
        node: Node,
        view: Arc<View>,
        request: Range,
        permit: Option<Permit>,
        chunk_bytes_max: usize,
    ) -> Self {
        let at = if request.revision > 0 { Revision(request.revision) } else { view.revision() };
        let rest = Range { revision: at.0, ..request };
        let cursor = Cursor { rest, at, chunk_keys: FIRST_CHUNK_KEYS, chunk_bytes_max, sent: 0, permit };
        let state = State::Reading(read(node.clone(), view, cursor));
        Self { node, state }
    }

    fn message(&self, page: Page, cursor: Cursor) -> (pb::RangeResponse, State) {
        match page.end {
            None => (render::range_chunk(page.kvs), State::Between(cursor)),
            Some(PagesEnd { more, count }) => {
                let result = RangeResult { kvs: page.kvs, more, count: cursor.sent + count };
                (render::range(self.node.header(cursor.at), result), State::Ended)
            }
        }
    }
}

impl Stream for RangeStream {
    type Item = Result<pb::RangeStreamResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match std::mem::replace(&mut this.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Between(cursor) => {
                    let view = this.node.handle().view();
                    this.state = State::Reading(read(this.node.clone(), view, cursor));
                }
                State::Reading(mut reading) => {
                    let done = reading.as_mut().poll(cx);
                    if done.is_pending() {
                        this.state = State::Reading(reading);
                    }
                    let item = match ready!(done) {
                        Err(error) => Err(error),
                        Ok((page, cursor)) => {
                            let (message, state) = this.message(page, cursor);
                            this.state = state;
                            Ok(pb::RangeStreamResponse { range_response: Some(message) })
                        }
                    };
                    return Poll::Ready(Some(item));
                }
            }
        }
    }
}

/// Reads one chunk on the pool and moves the cursor behind it.
fn read(node: Node, view: Arc<View>, mut cursor: Cursor) -> Reading {
    Box::pin(async move {
        // Until the chunk is encoded, which is when it begins to count as an answer.
        let _room = node.answers().reserve(cursor.chunk_bytes_max).await?;
        // Room may have been waited for.
        check(cursor.permit.as_mut(), &node.handle().view())?;
        let mut pages = RangePages::new(view, cursor.rest.clone())?;
        let (keys, bytes) = (cursor.chunk_keys, cursor.chunk_bytes_max);
        let mut chunk = Page { kvs: Vec::new(), end: None };
        while chunk.end.is_none() && (chunk.kvs.is_empty() || pages.is_counting()) {
            let work = move || -> Result<_, ReadError> { Ok((pages.next_page(keys, bytes)?, pages)) };
            let (page, rest) = node.handle().blocking(work).await?;
            pages = rest;
            let nothing = Page { kvs: Vec::new(), end: Some(PagesEnd { more: false, count: 0 }) };
            let page = page.unwrap_or(nothing);
            chunk.kvs.extend(page.kvs);
            chunk.end = page.end;
        }
        let cursor = if chunk.end.is_none() { cursor.after(&chunk.kvs) } else { cursor };
        Ok((chunk, cursor))
    })
}

impl Cursor {
    /// The cursor behind a chunk that is not the last one.
    fn after(mut self, kvs: &[KeyValue]) -> Self {
        if let Some(last) = kvs.last() {
            let end = self.rest.range.end.clone();
            self.rest.range = KeyRange { start: successor(&last.key), end };
        }
        let sent = i64::try_from(kvs.len()).unwrap_or(i64::MAX);
        self.sent += sent;
        if self.rest.limit > 0 {
            assert!(self.rest.limit > sent, "a page that reaches the limit is the last one");
            self.rest.limit -= sent;
        }
        // A chunk that was cut by its bytes has as many keys as fit; one that was not may have been too small.
        let full = kvs.len() == self.chunk_keys;
        self.chunk_keys = if full { (self.chunk_keys * 2).min(CHUNK_KEYS_MAX) } else { kvs.len().max(1) };
        self
    }
}

/// The lowest key above `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
