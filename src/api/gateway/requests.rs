//! A request's JSON as the messages of a gRPC call.
//!
//! Owns: what is kept of an object until it is complete, and the bounds on that. Must never: read further than the call asks for: a client that
//! sends faster than it is served waits. Driven by the call's service, through `record`.
//!
//! A method that takes one message takes the first object, or nothing, which is the empty message; what comes behind that is passed over, as etcd
//! does. One that takes a stream takes each object as it comes, while answers flow.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tonic::Status;

use super::read::{self, Unreadable};
use super::split::Split;
use crate::api::counters::Arriving;
use crate::api::errors;
use crate::api::schema::{Message, Method, Schema};

/// In front of a message: not compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
pub const PREFIX_BYTES: usize = 5;
/// How much longer than a message its JSON may be: base64 takes four bytes for three, and names and numbers some more. The message is held to the same while it is
/// written, since short numbers take more on the wire than in JSON; one that is not much too long is refused by its length as any other.
const JSON_FACTOR: usize = 2;

/// See the module.
pub struct Requests {
    body: Incoming,
    schema: &'static Schema,
    message: &'static Message,
    stream: bool,
    json_bytes_max: usize,
    split: Split,
    /// What has come of an object that is not complete.
    object: Vec<u8>,
    /// Came, and not looked at yet.
    rest: Bytes,
    arriving: Arriving,
    /// Whether a message was made.
    begun: bool,
    /// Bytes that were passed over.
    passed: usize,
    /// The body is over.
    ended: bool,
}

impl Requests {
    /// The messages for `method` in a body; one may have `message_bytes_max` bytes. `arriving` counts what all bodies have brought.
    pub fn new(
        body: Incoming,
        schema: &'static Schema,
        method: &Method,
        message_bytes_max: usize,
        arriving: &Arc<AtomicUsize>,
    ) -> Self {
        Self {
            body,
            schema,
            message: schema.input(method),
            stream: method.client_streams,
            json_bytes_max: message_bytes_max.saturating_mul(JSON_FACTOR),
            split: Split::default(),
            object: Vec::new(),
            rest: Bytes::new(),
            arriving: Arriving::new(arriving),
            begun: false,
            passed: 0,
            ended: false,
        }
    }

    /// The next message of what has come, if it is complete.
    fn next_message(&mut self) -> Result<Option<Bytes>, Status> {
        if self.begun && !self.stream {
            self.passed += std::mem::take(&mut self.rest).len();
            return if self.passed > self.json_bytes_max { Err(self.too_large()) } else { Ok(None) };
        }
        if self.object.is_empty() {
            let blanks = self.rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.rest.advance(blanks);
        }
        let end = self.split.feed(&self.rest).map_err(|error| errors::bad_json(&error.to_string()))?;
        if self.object.len() + end.unwrap_or(self.rest.len()) > self.json_bytes_max {
            return Err(self.too_large());
        }
        let Some(end) = end else {
            self.object.extend_from_slice(&std::mem::take(&mut self.rest));
            self.arriving.set(self.object.len())?;
            return Ok(None);
        };
        let last = self.rest.split_to(end);
        let message = if self.object.is_empty() {
            self.message(&last)?
        } else {
            self.object.extend_from_slice(&last);
            let object = std::mem::take(&mut self.object);
            self.message(&object)?
        };
        self.arriving.set(0)?;
        Ok(Some(message))
    }

    /// The message of an object.
    fn message(&mut self, object: &[u8]) -> Result<Bytes, Status> {
        self.begun = true;
        match read::encode(self.schema, self.message, object, self.json_bytes_max) {
            Ok(wire) => Ok(framed(&wire)),
            Err(Unreadable::Json(error)) => Err(errors::bad_json(&error.to_string())),
            Err(Unreadable::TooLong) => Err(self.too_large()),
        }
    }

    fn too_large(&self) -> Status {
        errors::json_too_large(self.json_bytes_max)
    }
}

/// Over HTTP/1.1 the body is no sequence of chunks, or has ended before its length: to its sender that is JSON that is not whole. HTTP/2 has reasons of its own.
fn unreadable(error: hyper::Error) -> Status {
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(cause) => errors::bad_json(&cause.to_string()),
        None => Status::from_error(Box::new(error)),
    }
}

/// A message with its prefix.
fn framed(wire: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(PREFIX_BYTES + wire.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(wire.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(wire);
    frame.into()
}

impl Body for Requests {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if !this.rest.is_empty() {
                if let Some(message) = this.next_message().transpose() {
                    return Poll::Ready(Some(message.map(Frame::data)));
                }
                continue;
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => this.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(unreadable(error)))),
                None => {
                    this.ended = true;
                    if !this.object.is_empty() {
                        return Poll::Ready(Some(Err(errors::bad_json("unexpected EOF"))));
                    }
                    if !this.begun && !this.stream {
                        return Poll::Ready(Some(Ok(Frame::data(framed(&[])))));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
