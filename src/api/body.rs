//! The body of every answer.
//!
//! Owns: ending a call's answer when its time is over. Must never: copy what it carries. Made by `dispatch` and `http`, driven by hyper.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::Status;

use super::calls::Deadline;
use super::errors;
use super::record::CallRecord;

/// What an answer carries.
pub struct Body(Kind);

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
        Self(Kind::Whole(bytes.into()))
    }

    /// The messages of a call, until `deadline`.
    pub fn of_call(messages: tonic::body::Body, deadline: Option<Deadline>, record: CallRecord) -> Self {
        Self(Kind::Call { messages, deadline, record })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match &mut this.0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Call { messages, deadline, record } => {
                let next = Pin::new(messages).poll_frame(cx);
                if next.is_pending()
                    && let Some(deadline) = deadline
                    && Pin::new(deadline).poll(cx).is_ready()
                {
                    let mut trailers = HeaderMap::new();
                    errors::deadline_exceeded().add_header(&mut trailers)?;
                    record.note_status(&trailers);
                    this.0 = Kind::Whole(Bytes::new());
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
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Call { messages, .. } => messages.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Call { messages, .. } => messages.size_hint(),
        }
    }
}
