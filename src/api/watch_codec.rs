//! Responses of the Watch service on the wire.
//!
//! Owns: their encoding, and how one is cut into pieces. Must never: encode an event once for each watcher. Driven by `watch` and gRPC.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::{errors, render};
use crate::store::ChangeKind;
use crate::watch::{Batch, Event, Message, Response};
use crate::wire::{etcdserverpb as pb, mvccpb};

/// What stands in front of each event: field 11 of `WatchResponse`, with a length.
const EVENTS_TAG: u8 = 11 << 3 | 2;

/// One message to a client.
#[derive(Debug)]
pub struct Outgoing {
    /// All of it but the events.
    head: pb::WatchResponse,
    /// The encoded field of events. It has the highest number, so it comes last.
    events: Bytes,
}

impl Outgoing {
    /// The messages of one response: several, if it may be cut into pieces and has `bytes_max` bytes or more.
    pub fn of(header: pb::ResponseHeader, response: Response, bytes_max: usize) -> VecDeque<Outgoing> {
        let mut head = pb::WatchResponse {
            header: Some(header),
            watch_id: response.watch_id,
            ..pb::WatchResponse::default()
        };
        let mut events = Bytes::new();
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
                events = batch.encoded.get_or_init(|| encode_batch(&batch)).clone();
                if fragment && batch.events.len() > 1 && head.encoded_len() + events.len() >= bytes_max {
                    return cut(&head, events, bytes_max);
                }
            }
        }
        VecDeque::from([Outgoing { head, events }])
    }
}

/// Cuts events into pieces of less than `bytes_max` bytes with at least one event each. All but the last say that more follows.
fn cut(head: &pb::WatchResponse, mut events: Bytes, bytes_max: usize) -> VecDeque<Outgoing> {
    let head = pb::WatchResponse { fragment: true, ..head.clone() };
    let room = bytes_max.saturating_sub(head.encoded_len());
    let mut pieces = VecDeque::new();
    while !events.is_empty() {
        let mut end = event_len(&events);
        while end < events.len() {
            let next = end + event_len(&events[end..]);
            if next >= room {
                break;
            }
            end = next;
        }
        pieces.push_back(Outgoing { head: head.clone(), events: events.split_to(end) });
    }
    if let Some(last) = pieces.back_mut() {
        last.head.fragment = false;
    }
    pieces
}

/// How long the first of some encoded events is, with its tag and length.
fn event_len(events: &[u8]) -> usize {
    let mut rest = &events[1..];
    let length = decode_varint(&mut rest).expect("events that were encoded here");
    let length = usize::try_from(length).expect("a length that was a usize");
    events.len() - rest.len() + length
}

fn encode_batch(batch: &Batch) -> Bytes {
    let events: Vec<(mvccpb::Event, usize)> = batch
        .events
        .iter()
        .map(|event| event_message(event, batch.prev_kv))
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

/// gRPC's codec of the service.
#[derive(Clone, Copy, Debug)]
pub struct Codec;

impl tonic::codec::Codec for Codec {
    type Encode = Outgoing;
    type Decode = pb::WatchRequest;
    type Encoder = Codec;
    type Decoder = Codec;

    fn encoder(&mut self) -> Codec {
        Codec
    }

    fn decoder(&mut self) -> Codec {
        Codec
    }
}

impl Encoder for Codec {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, message: Outgoing, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let length = message.head.encoded_len() + message.events.len();
        buffer.reserve(length);
        message.head.encode_raw(buffer);
        buffer.put(message.events);
        Ok(())
    }
}

impl Decoder for Codec {
    type Item = pb::WatchRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<pb::WatchRequest>, Status> {
        let request = pb::WatchRequest::decode(&mut *buffer);
        request.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
