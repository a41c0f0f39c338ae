//! The UDP socket as quinn takes it, and quinn's other wishes, on the transport's thread.
//!
//! Owns: the order of system calls on the socket. Must never: wait, or start a thread. Driven by quinn and `reactor`.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};
use smol::{Executor, Task};

use super::reactor::Reactor;

/// The thread, as seen by those who give it work. It ends when the thread does, whoever still holds this.
#[derive(Clone)]
pub(super) struct Host {
    executor: Weak<Executor<'static>>,
    reactor: Arc<Reactor>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

impl Host {
    pub(super) fn new(executor: &Arc<Executor<'static>>, reactor: Arc<Reactor>) -> Self {
        Self { executor: Arc::downgrade(executor), reactor }
    }

    /// Runs this on the thread; it ends early when the task is dropped. `None` when the thread has ended.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Option<Task<()>> {
        self.executor.upgrade().map(|executor| executor.spawn(work))
    }

    /// Waits this long; on the thread only.
    pub(super) async fn sleep(&self, time: Duration) {
        self.reactor.sleep(time).await;
    }
}

impl Runtime for Host {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(self.reactor.timer(at))
    }

    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()> + Send>>) {
        if let Some(task) = self.spawn(work) {
            task.detach();
        }
    }

    /// Asked for only when an endpoint changes its socket, which ours never does.
    fn wrap_udp_socket(&self, _: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::from(ErrorKind::Unsupported))
    }
}

/// The socket.
#[derive(Debug)]
pub(super) struct Socket {
    io: Arc<UdpSocket>,
    state: UdpSocketState,
    reactor: Arc<Reactor>,
    /// The last receive took all there was: asking again would cost a call to learn that.
    drained: AtomicBool,
    /// The last send found no room.
    blocked: AtomicBool,
}

impl Socket {
    pub(super) fn new(io: Arc<UdpSocket>, reactor: Arc<Reactor>) -> io::Result<Self> {
        // This makes it non-blocking, too.
        let state = UdpSocketState::new((&*io).into())?;
        let (drained, blocked) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { io, state, reactor, drained, blocked })
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send((&*self.io).into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.blocked.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if !self.drained.swap(false, Ordering::Relaxed) {
            match self.state.recv((&*self.io).into(), buffers, meta) {
                Ok(count) => {
                    self.drained.store(count < buffers.len(), Ordering::Relaxed);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // What the network says of some packet sent earlier is no end of the socket.
                Err(error) => tracing::debug!(%error, "receiving from members"),
            }
        }
        self.reactor.set_reader(context.waker());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

/// One connection's waiting for room in the socket.
#[derive(Debug)]
struct Room(Arc<Socket>);

impl UdpPoller for Room {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.blocked.swap(false, Ordering::Relaxed) {
            // Whoever comes next tries anew: at worst it finds the socket still full and waits as well.
            self.0.reactor.add_writer(context.waker());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transfer of states would cost a system call for each packet otherwise.
    #[test]
    fn one_call_takes_many_packets() {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let reactor = Reactor::new(Arc::clone(&socket)).unwrap();
        let socket = Socket::new(socket, reactor).unwrap();
        assert!(socket.max_transmit_segments() > 1 && socket.max_receive_segments() > 1);
    }
}
