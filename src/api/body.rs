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
use super::gateway;
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
    /// The messages of a call as JSON, which counts what it takes by itself.
    Json(Box<gateway::Answer>),
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

    /// The messages of a call as JSON.
    pub fn of_json(answer: gateway::Answer) -> Self {
        Self::new(Kind::Json(Box::new(answer)))
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

    /// Whether its bytes count elsewhere.
    pub fn is_counted_elsewhere(&self) -> bool {
        self.counted_elsewhere
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
        if matches!(this.kind, Kind::Json(_)) {
            return Poll::Ready(next);
        }
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
            Kind::Call { .. } | Kind::Json(_) => SizeHint::default(),
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
            Kind::Json(answer) => answer.poll_frame(cx),
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Call { messages, deadline, leaderless, record } => {
                let next = http_body::Body::poll_frame(Pin::new(messages), cx);
                // Also where there is a message: those that never end must not keep a call alive for ever. But not in the middle of one,
                // or the client would take the cut for damage.
                if next.is_pending() || record.is_between_messages() {
                    let is_late = |deadline: &mut Deadline| {
                        deadline.is_over() || (next.is_pending() && Pin::new(deadline).poll(cx).is_ready())
                    };
                    if deadline.as_mut().is_some_and(is_late) {
                        return Poll::Ready(Some(self.cut(&errors::deadline_exceeded())));
                    }
                    if leaderless.as_mut().is_some_and(|lost| lost.as_mut().poll(cx).is_ready()) {
                        return Poll::Ready(Some(self.cut(&errors::no_leader())));
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
        match self {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Call { messages, .. } => http_body::Body::is_end_stream(messages),
            Kind::Json(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::task::Waker;
    use std::time::Duration;

    use http_body::Body as _;

    use super::*;
    use crate::api::calls::Calls;
    use crate::api::counters::{CallsOfOne, Counters};
    use crate::api::timer::now;
    use crate::telemetry::metrics::Metrics;

    /// A stream that says this, and then nothing for now.
    #[derive(Default)]
    struct Says(VecDeque<&'static [u8]>);

    impl http_body::Body for Says {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let next = self.0.pop_front();
            next.map_or(Poll::Pending, |next| Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(next))))))
        }
    }

    fn body(says: Says, deadline: Option<Deadline>, leaderless: Option<Leaderless>) -> Body {
        let metrics = Arc::new(Metrics::new([]));
        let record = CallRecord::begin(&metrics, "/a.B/C", Counters::default().call(&CallsOfOne::default()));
        Body::of_call(tonic::body::Body::new(says), deadline, leaderless, record)
    }

    fn next(body: &mut Body) -> Option<Frame<Bytes>> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => Some(frame),
            Poll::Pending => None,
            Poll::Ready(other) => panic!("{other:?}"),
        }
    }

    fn status(frame: Option<Frame<Bytes>>) -> (tonic::Code, String) {
        let frame = frame.expect("the stream goes on");
        let status = Status::from_header_map(frame.trailers_ref().expect("it ends")).unwrap();
        (status.code(), status.message().to_owned())
    }

    const NO_LEADER: &str = "etcdserver: no leader";

    #[test]
    fn a_stream_ends_with_the_leader_that_it_needs() {
        let (lose, lost) = futures_channel::oneshot::channel::<()>();
        let leaderless: Leaderless = Box::pin(async move { lost.await.unwrap_or_default() });
        let mut body = body(Says::default(), None, Some(leaderless));
        assert!(next(&mut body).is_none());
        lose.send(()).unwrap();
        assert_eq!(status(next(&mut body)), (tonic::Code::Unavailable, NO_LEADER.to_owned()));
        assert!(body.is_end_stream());
    }

    /// A busy stream is not kept alive by what it says.
    #[test]
    fn a_stream_ends_when_its_time_is_over_whatever_it_says() {
        let calls = Calls::default();
        let busy = || Says([&b"\0\0\0\0\x01a"[..]; 9].into());
        let deadline = |after| Some(calls.spawner().deadline(now() + after));
        let mut in_time = body(busy(), deadline(Duration::from_hours(1)), None);
        assert!(next(&mut in_time).is_some_and(|frame| frame.is_data()));
        for says in [busy(), Says::default()] {
            let mut late = body(says, deadline(Duration::ZERO), None);
            let status = status(next(&mut late));
            assert_eq!(status, (tonic::Code::DeadlineExceeded, "context deadline exceeded".to_owned()));
        }
    }

    /// A message that leaves in several pieces is not torn.
    #[test]
    fn no_message_is_cut_in_its_middle() {
        let pieces = [&b"\0\0\0\0\x04a"[..], b"b", b"cd", b"\0\0\0\0\x01a"];
        let mut body = body(Says(pieces.into()), None, Some(Box::pin(std::future::ready(()))));
        // The first poll is where it ends: nothing has left yet.
        assert_eq!(status(next(&mut body)).1, NO_LEADER);
        let (lose, lost) = futures_channel::oneshot::channel::<()>();
        let leaderless: Leaderless = Box::pin(async move { lost.await.unwrap_or_default() });
        let mut body = self::body(Says(pieces.into()), None, Some(leaderless));
        assert_eq!(next(&mut body).unwrap().into_data().unwrap(), pieces[0]);
        lose.send(()).unwrap();
        for piece in &pieces[1..3] {
            assert_eq!(next(&mut body).unwrap().into_data().unwrap(), *piece);
        }
        assert_eq!(status(next(&mut body)).1, NO_LEADER);
    }
}
