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

/// When there is no leader any more.
pub type Leaderless = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Put among the extensions of a response whose bytes count against another budget for as long as they are held.
#[derive(Clone, Copy, Debug)]
pub struct CountedElsewhere;

/// What an answer carries.
pub struct Body {
    kind: Kind,
    /// Where it counts, once it is known over which connection it goes.
    outbox: Option<Arc<Outbox>>,
    /// Its bytes count elsewhere, too.
    counted_elsewhere: bool,
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
        /// Comes when a leader that the caller needs has been lost.
        leaderless: Option<Leaderless>,
        /// The call counts as live until its last message is handed over.
        record: CallRecord,
    },
}

impl Body {
    /// Bytes that are at hand.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::new(Kind::Whole(bytes.into()))
    }

    /// The messages of a call, until `deadline`, or until there is no leader any more.
    pub fn of_call(
        messages: tonic::body::Body,
        deadline: Option<Deadline>,
        leaderless: Option<Leaderless>,
        record: CallRecord,
    ) -> Self {
        Self::new(Kind::Call { messages, deadline, leaderless, record })
    }

    fn new(kind: Kind) -> Self {
        Self { kind, outbox: None, counted_elsewhere: false, rest: None }
    }

    /// Counts it as an answer to the client behind `outbox`.
    pub fn through(self, outbox: &Arc<Outbox>) -> Self {
        Self { outbox: Some(Arc::clone(outbox)), ..self }
    }

    /// Its bytes count elsewhere, for as long as they are held: here it is only looked whether they are taken.
    pub fn counted_elsewhere(self) -> Self {
        Self { counted_elsewhere: true, ..self }
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
                let held = outbox.hold(if this.counted_elsewhere { 0 } else { data.len() });
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
    /// Ends a call with an error that its messages know nothing of.
    fn cut(&mut self, why: &Status) -> Result<Frame<Bytes>, Status> {
        let mut trailers = HeaderMap::new();
        why.add_header(&mut trailers)?;
        if let Kind::Call { record, .. } = self {
            record.note_status(&trailers);
        }
        *self = Kind::Whole(Bytes::new());
        Ok(Frame::trailers(trailers))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Call { messages, deadline, leaderless, record } => {
                let next = http_body::Body::poll_frame(Pin::new(messages), cx);
                // Also where there is a message: those that never end must not keep a call alive for ever.
                let is_late = |deadline: &mut Deadline| {
                    deadline.is_over() || (next.is_pending() && Pin::new(deadline).poll(cx).is_ready())
                };
                if deadline.as_mut().is_some_and(is_late) {
                    return Poll::Ready(Some(self.cut(&errors::deadline_exceeded())));
                }
                if leaderless.as_mut().is_some_and(|lost| lost.as_mut().poll(cx).is_ready()) {
                    return Poll::Ready(Some(self.cut(&errors::no_leader())));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use http_body::Body as _;

    use super::*;
    use crate::api::counters::Counters;
    use crate::telemetry::metrics::Metrics;

    /// A stream that has nothing to say for now.
    struct Silent;

    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_stream_ends_with_the_leader_that_it_needs() {
        let metrics = Arc::new(Metrics::new([]));
        let (lose, lost) = futures_channel::oneshot::channel::<()>();
        let leaderless: Leaderless = Box::pin(async move { lost.await.unwrap_or_default() });
        let record = CallRecord::begin(&metrics, "/a.B/C", Counters::default().call());
        let mut body = Body::of_call(tonic::body::Body::new(Silent), None, Some(leaderless), record);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
        lose.send(()).unwrap();
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else {
            panic!("the stream goes on")
        };
        let status = Status::from_header_map(frame.trailers_ref().unwrap()).unwrap();
        assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, "etcdserver: no leader"));
        assert!(body.is_end_stream());
    }
}
