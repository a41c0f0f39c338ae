//! Time at the edge: hyper's timers on smol's reactor, and limits on how long something may take.
//!
//! Owns: the adapter. Must never: tell the core what time it is (`runtime::clock` does). Driven by `server` and hyper.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use smol::Timer;

/// The time that deadlines of connections and calls are measured in.
#[expect(clippy::disallowed_methods, reason = "deadlines of sockets end here and never enter the core")]
pub fn now() -> Instant {
    Instant::now()
}

/// Runs `work` for at most `limit`; [`io::ErrorKind::TimedOut`] after that.
pub async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(limit).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    smol::future::or(work, late).await
}

/// smol's timers for hyper.
#[derive(Clone, Copy, Debug)]
pub struct SmolTimer;

struct Sleep(Timer);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(Pin::new(&mut self.get_mut().0).poll(cx));
        Poll::Ready(())
    }
}

impl hyper::rt::Sleep for Sleep {}

impl hyper::rt::Timer for SmolTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Timer::after(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Timer::at(deadline)))
    }

    fn now(&self) -> Instant {
        now()
    }
}
