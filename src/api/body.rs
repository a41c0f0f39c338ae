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

/// When there is no leader any more.
pub type Leaderless = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What an answer carries.
pub struct Body(Kind);

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
        Self(Kind::Whole(bytes.into()))
    }

    /// The messages of a call, until `deadline`, or until there is no leader any more.
    pub fn of_call(
        messages: tonic::body::Body,
        deadline: Option<Deadline>,
        leaderless: Option<Leaderless>,
        record: CallRecord,
    ) -> Self {
        Self(Kind::Call { messages, deadline, leaderless, record })
    }

    /// Ends a call with an error that its messages know nothing of.
    fn cut(&mut self, why: &Status) -> Result<Frame<Bytes>, Status> {
        let mut trailers = HeaderMap::new();
        why.add_header(&mut trailers)?;
        if let Kind::Call { record, .. } = &mut self.0 {
            record.note_status(&trailers);
        }
        self.0 = Kind::Whole(Bytes::new());
        Ok(Frame::trailers(trailers))
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
            Kind::Call { messages, deadline, leaderless, record } => {
                let next = Pin::new(messages).poll_frame(cx);
                if next.is_pending() {
                    if deadline.as_mut().is_some_and(|deadline| Pin::new(deadline).poll(cx).is_ready()) {
                        return Poll::Ready(Some(this.cut(&errors::deadline_exceeded())));
                    }
                    if leaderless.as_mut().is_some_and(|lost| lost.as_mut().poll(cx).is_ready()) {
                        return Poll::Ready(Some(this.cut(&errors::no_leader())));
                    }
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
