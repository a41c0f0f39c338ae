//! The body of every answer.
//!
//! Owns: ending a call's answer when its time is over, handing it on in pieces that count until they are taken. Must never: copy what it
//! carries. Made by `dispatch` and `http`, driven by hyper.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::Status;

use super::answers::{Held, Outbox};
use super::calls::Deadline;
use super::errors;
use super::record::CallRecord;
use crate::limits::ANSWER_PIECE_BYTES;

/// What an answer carries.
pub struct Body {
    kind: Kind,
    /// Where it counts, once it is known over which connection it goes.
    outbox: Option<Arc<Outbox>>,
    /// What hyper has not asked for yet of bytes that are at hand.
    rest: Option<(Bytes, Arc<Held>)>,
}

enum Kind {
    /// One piece, or nothing.
    Whole(Bytes),
    /// The messages of a call.
    Call {
        messages: tonic::body::Body,
        deadline: Option<Deadline>,
        /// The call counts as live until its last message is handed over.
        record: CallRecord,
    },
}

impl Body {
    /// Bytes that are at hand.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::new(Kind::Whole(bytes.into()))
    }

    /// The messages of a call, until `deadline`.
    pub fn of_call(messages: tonic::body::Body, deadline: Option<Deadline>, record: CallRecord) -> Self {
        Self::new(Kind::Call { messages, deadline, record })
    }

    fn new(kind: Kind) -> Self {
        Self { kind, outbox: None, rest: None }
    }

    /// Counts it as an answer to the client behind `outbox`.
    pub fn through(self, outbox: &Arc<Outbox>) -> Self {
        Self { outbox: Some(Arc::clone(outbox)), ..self }
    }

    /// The next piece of what is at hand.
    fn piece(&mut self) -> Option<Bytes> {
        let (bytes, held) = self.rest.as_mut()?;
        let piece = held.piece(bytes.split_to(bytes.len().min(ANSWER_PIECE_BYTES)));
        if bytes.is_empty() {
            self.rest = None;
        }
        Some(piece)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(piece) = this.piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let next = ready!(this.kind.poll_frame(cx));
        match (next, &this.outbox) {
            (Some(Ok(frame)), Some(outbox)) if frame.data_ref().is_some_and(|data| !data.is_empty()) => {
                let Ok(data) = frame.into_data() else { unreachable!("it was looked at") };
                let held = outbox.hold(data.len());
                this.rest = Some((data, held));
                Poll::Ready(this.piece().map(|piece| Ok(Frame::data(piece))))
            }
            (next, _) => Poll::Ready(next),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.kind.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => {
                let rest = self.rest.as_ref().map_or(0, |(rest, _)| rest.len());
                SizeHint::with_exact((bytes.len() + rest) as u64)
            }
            Kind::Call { .. } => SizeHint::default(),
        }
    }
}

impl Kind {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Call { messages, deadline, record } => {
                let next = http_body::Body::poll_frame(Pin::new(messages), cx);
                if next.is_pending()
                    && let Some(deadline) = deadline
                    && Pin::new(deadline).poll(cx).is_ready()
                {
                    let mut trailers = HeaderMap::new();
                    errors::deadline_exceeded().add_header(&mut trailers)?;
                    record.note_status(&trailers);
                    *self = Kind::Whole(Bytes::new());
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                if let Poll::Ready(Some(Ok(frame))) = &next {
                    match (frame.data_ref(), frame.trailers_ref()) {
                        (Some(data), _) => record.note_sent(data),
                        (None, Some(trailers)) => record.note_status(trailers),
                        (None, None) => {}
                    }
                }
                next
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Call { messages, .. } => http_body::Body::is_end_stream(messages),
        }
    }
}
