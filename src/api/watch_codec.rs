//! Responses of the Watch service on the wire.
//!
//! Owns: their encoding, and how one is cut into pieces. Must never: encode or copy many events once for each watcher, or let go of a batch
//! before its last byte is gone: the watchers' budget counts it for as long as it is held. Driven by `watch`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};

use super::{errors, render};
use crate::store::ChangeKind;
use crate::watch::{Batch, Event, Message, Refusal, Response};
use crate::wire::{etcdserverpb as pb, mvccpb};

/// What stands in front of each event: field 11 of `WatchResponse`, with a length.
const EVENTS_TAG: u8 = 11 << 3 | 2;
/// In front of each message: not compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;
/// Events up to this size are copied behind their head: cheaper than a frame of their own.
const INLINE_BYTES_MAX: usize = 4096;

/// One message to a client.
#[derive(Debug)]
pub struct Outgoing {
    /// All of it but the events.
    head: pb::WatchResponse,
    /// The encoded field of events, in pieces. It has the highest number, so it comes last.
    events: VecDeque<Bytes>,
    /// What the events are of.
    batch: Option<Arc<Batch>>,
}

/// Bytes on their way, and what keeps them counted until they are gone.
struct Held<T, C> {
    bytes: T,
    _counted: C,
}

impl<T: AsRef<[u8]>, C> AsRef<[u8]> for Held<T, C> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl Outgoing {
    /// Its bytes: prefix, head and few events, and then many events, which are shared with whoever else is told of them.
    pub fn into_parts(self) -> (Bytes, VecDeque<Bytes>) {
        let Self { head, mut events, batch } = self;
        let (head_len, events_len) = (head.encoded_len(), len_of(&events));
        let length = u32::try_from(head_len + events_len).unwrap_or(u32::MAX);
        let inline = if events_len <= INLINE_BYTES_MAX { events_len } else { 0 };
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + head_len + inline);
        bytes.put_u8(0);
        bytes.put_u32(length);
        head.encode_raw(&mut bytes);
        match batch {
            None => (bytes.into(), VecDeque::new()),
            Some(batch) if inline > 0 => {
                events.drain(..).for_each(|events| bytes.extend_from_slice(&events));
                let counted = batch.count_copy(bytes.len());
                (Bytes::from_owner(Held { bytes, _counted: counted }), events)
            }
            Some(batch) => {
                let held = |events| Held { bytes: events, _counted: Arc::clone(&batch) };
                (bytes.into(), events.into_iter().map(held).map(Bytes::from_owner).collect())
            }
        }
    }

    /// Tells a watcher that it has ended, and why.
    pub fn ended(header: pb::ResponseHeader, watch_id: i64, refusal: Refusal) -> Self {
        let cancel_reason = errors::watch_refused(refusal);
        let head = pb::WatchResponse {
            header: Some(header),
            watch_id,
            canceled: true,
            cancel_reason,
            ..pb::WatchResponse::default()
        };
        Outgoing { head, events: VecDeque::new(), batch: None }
    }

    /// The messages of one response: several, if it may be cut into pieces and has `bytes_max` bytes or more.
    pub fn of(header: pb::ResponseHeader, response: Response, bytes_max: usize) -> VecDeque<Outgoing> {
        let mut head = pb::WatchResponse {
            header: Some(header),
            watch_id: response.watch_id,
            ..pb::WatchResponse::default()
        };
        let (mut events, mut told) = (VecDeque::new(), None);
        match response.message {
            Message::Created => head.created = true,
            Message::Refused(refusal) => {
                head.created = true;
                head.canceled = true;
                head.cancel_reason = errors::watch_refused(refusal);
            }
            Message::Canceled => head.canceled = true,
            Message::Compacted(revision) => {
                head.canceled = true;
                head.compact_revision = revision.0;
                head.header = Some(pb::ResponseHeader { revision: 0, ..header });
            }
            Message::Progress => {}
            Message::Events { batch, fragment } => {
                events = encoded(&batch).iter().cloned().collect();
                if fragment && batch.len() > 1 && head.encoded_len() + len_of(&events) >= bytes_max {
                    return cut(&head, events, &batch, bytes_max);
                }
                told = Some(batch);
            }
        }
        VecDeque::from([Outgoing { head, events, batch: told }])
    }
}

/// Cuts events into pieces of less than `bytes_max` bytes with at least one event each. All but the last say that more follows.
fn cut(
    head: &pb::WatchResponse,
    events: VecDeque<Bytes>,
    batch: &Arc<Batch>,
    bytes_max: usize,
) -> VecDeque<Outgoing> {
    let head = pb::WatchResponse { fragment: true, ..head.clone() };
    let room = bytes_max.saturating_sub(head.encoded_len());
    let mut pieces = VecDeque::new();
    for mut events in events {
        while !events.is_empty() {
            let mut end = event_len(&events);
            while end < events.len() {
                let next = end + event_len(&events[end..]);
                if next >= room {
                    break;
                }
                end = next;
            }
            let (events, batch) = (VecDeque::from([events.split_to(end)]), Some(Arc::clone(batch)));
            pieces.push_back(Outgoing { head: head.clone(), events, batch });
        }
    }
    if let Some(last) = pieces.back_mut() {
        last.head.fragment = false;
    }
    pieces
}

fn len_of(events: &VecDeque<Bytes>) -> usize {
    events.iter().map(Bytes::len).sum()
}

/// How long the first of some encoded events is, with its tag and length.
fn event_len(events: &[u8]) -> usize {
    let mut rest = &events[1..];
    let length = decode_varint(&mut rest).expect("events that were encoded here");
    let length = usize::try_from(length).expect("a length that was a usize");
    events.len() - rest.len() + length
}

/// The events of a batch, in parts: each is the field of a `WatchResponse`.
pub fn encoded(batch: &Batch) -> &[Bytes] {
    batch.encoded(|events| encode_events(events, batch.prev_kv))
}

/// The field of these events.
pub fn encode_events(events: &[Arc<Event>], prev_kv: bool) -> Bytes {
    let events: Vec<(mvccpb::Event, usize)> = events
        .iter()
        .map(|event| event_message(event, prev_kv))
        .map(|event| {
            let length = event.encoded_len();
            (event, length)
        })
        .collect();
    let total = events.iter().map(|(_, length)| 1 + encoded_len_varint(*length as u64) + length).sum();
    let mut buffer = BytesMut::with_capacity(total);
    for (event, length) in &events {
        buffer.put_u8(EVENTS_TAG);
        encode_varint(*length as u64, &mut buffer);
        event.encode_raw(&mut buffer);
    }
    assert_eq!(buffer.len(), total, "lengths are known beforehand");
    buffer.freeze()
}

/// An event; a deletion has of its pair the key and the revision alone.
fn event_message(event: &Event, prev_kv: bool) -> mvccpb::Event {
    let deleted = || mvccpb::KeyValue {
        key: event.change.key.clone(),
        mod_revision: event.id.main.0,
        ..mvccpb::KeyValue::default()
    };
    let kind = match event.change.kind {
        ChangeKind::Put { .. } => mvccpb::event::EventType::Put,
        ChangeKind::Delete => mvccpb::event::EventType::Delete,
    };
    let kv = event.change.key_value(event.id).map_or_else(deleted, render::key_value);
    let previous = event.previous.as_ref().filter(|_| prev_kv);
    mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv: previous.cloned().map(render::key_value) }
}

/// gRPC's decoder of the service.
#[derive(Clone, Copy, Debug)]
pub struct Codec;

impl Decoder for Codec {
    type Item = pb::WatchRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<pb::WatchRequest>, Status> {
        let request = pb::WatchRequest::decode(&mut *buffer);
        request.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
