//! The messages of a gRPC call as JSON.
//!
//! Owns: what stands around them in the body of an answer, and how a call's end becomes the body's. Must never: turn more of an answer into JSON than
//! its client takes, or let go of it uncounted. Driven by hyper, through `body`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tonic::{Code, Status};

use super::write::{Malformed, Rest, Writer};
use super::{error_of_stream, requests};
use crate::api::answers::{Held, Outbox};
use crate::api::body::Body;
use crate::api::schema::{Message, Method, Schema};
use crate::limits::ANSWER_PIECE_BYTES;

/// See the module.
pub struct Answer {
    /// The call, until it is over.
    call: Option<Body>,
    outbox: Arc<Outbox>,
    schema: &'static Schema,
    message: &'static Message,
    stream: bool,
    /// The message that is being written.
    writer: Option<Writer>,
    /// What has come of the messages, and is not written.
    wire: Bytes,
    /// It counts for as long as it is there.
    held: Option<Arc<Held>>,
    /// Written before anybody asked.
    first: Option<Vec<u8>>,
}

impl Answer {
    /// What `call` answers to `method`; it counts as an answer to the client behind `outbox`.
    pub fn new(call: Body, schema: &'static Schema, method: &Method, outbox: &Arc<Outbox>) -> Self {
        Self {
            call: Some(call),
            outbox: Arc::clone(outbox),
            schema,
            message: schema.output(method),
            stream: method.server_streams,
            writer: None,
            wire: Bytes::new(),
            held: None,
            first: None,
        }
    }

    /// Waits until there is something to say; the error, if the call ends with one before that.
    pub async fn begin(&mut self) -> Result<(), Status> {
        self.first = std::future::poll_fn(|cx| self.poll_json(cx)).await.transpose()?;
        Ok(())
    }

    /// All of it, if that is at hand after [`Answer::begin`].
    pub fn whole(&mut self) -> Option<Vec<u8>> {
        if self.call.is_some() || self.writer.is_some() { None } else { self.first.take() }
    }

    /// The next piece of the body. An answer that has ended is asked no more.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => self.poll_json(cx),
        };
        next.map(|json| {
            let json = match json? {
                Ok(json) => json,
                Err(status) if self.stream => error_of_stream(&status),
                Err(status) => return Some(Err(status)),
            };
            let held = self.outbox.hold(json.len());
            Some(Ok(Frame::data(held.piece(json.into()))))
        })
    }

    /// Some JSON, at most a little more than a piece.
    fn poll_json(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, Status>>> {
        let mut json = Vec::new();
        loop {
            match self.write(&mut json) {
                Ok(true) => return Poll::Ready(Some(Ok(json))),
                Ok(false) => {}
                Err(error) => {
                    self.end();
                    return Poll::Ready(Some(Err(Status::internal(error.to_string()))));
                }
            }
            // All of it is written, or so much as has come.
            self.held = None;
            let status = match self.poll_call(cx) {
                // What is said is not kept back for what may come.
                Poll::Pending if json.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Some(Ok(json))),
                Poll::Ready(None) => continue,
                Poll::Ready(Some(status)) => status,
            };
            let torn = self.writer.is_some();
            self.end();
            if status.code() == Code::Ok && !torn {
                return Poll::Ready((!json.is_empty()).then_some(Ok(json)));
            }
            let status = if torn { Status::internal(Malformed.to_string()) } else { status };
            if json.is_empty() {
                return Poll::Ready(Some(Err(status)));
            }
            if self.stream {
                json.extend_from_slice(&error_of_stream(&status));
            }
            return Poll::Ready(Some(Ok(json)));
        }
    }

    fn end(&mut self) {
        (self.call, self.writer, self.wire) = (None, None, Bytes::new());
    }

    /// Writes what is at hand; whether that has filled a piece.
    fn write(&mut self, json: &mut Vec<u8>) -> Result<bool, Malformed> {
        loop {
            if let Some(writer) = &mut self.writer {
                match writer.write(&mut self.wire, json, ANSWER_PIECE_BYTES)? {
                    Rest::Full => return Ok(true),
                    Rest::Hungry => return Ok(false),
                    Rest::Done => {
                        self.writer = None;
                        if self.stream {
                            json.extend_from_slice(b"}\n");
                        }
                    }
                }
            }
            if self.wire.is_empty() {
                return Ok(false);
            }
            if self.wire.len() < requests::PREFIX_BYTES {
                return Err(Malformed);
            }
            self.wire.advance(1);
            let length = usize::try_from(self.wire.get_u32()).map_err(|_| Malformed)?;
            self.writer = Some(Writer::new(self.schema, self.message, length));
            if self.stream {
                json.extend_from_slice(br#"{"result":"#);
            }
        }
    }

    /// Takes the next bytes of the call; how it ended, if it has.
    fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<Option<Status>> {
        let Some(call) = &mut self.call else { return Poll::Ready(Some(Status::ok(""))) };
        let elsewhere = call.is_counted_elsewhere();
        Pin::new(call).poll_frame(cx).map(|frame| match frame {
            None => Some(Status::ok("")),
            Some(Err(status)) => Some(status),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(wire) => {
                    self.held = Some(self.outbox.hold(if elsewhere { 0 } else { wire.len() }));
                    self.wire = wire;
                    None
                }
                Err(frame) => Some(ending(frame.trailers_ref())),
            },
        })
    }
}

/// How a call ended that brought these trailers.
fn ending(trailers: Option<&HeaderMap>) -> Status {
    trailers.and_then(Status::from_header_map).unwrap_or_else(|| Status::ok(""))
}
