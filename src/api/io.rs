//! What hyper and rustls read from and write to: a TCP socket on smol's reactor.
//!
//! Owns: the socket of one connection, the bytes that were read to find out what the client speaks, TLS around it, the time that a head takes over HTTP/2. Must
//! never: ask the kernel twice for bytes that it just said it does not have, zero a buffer, or copy what can be
//! written as it is. Driven by `server`, then by hyper.

use std::cell::RefCell;
use std::future::Future as _;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_rustls::server::TlsStream;
use hyper::rt::{Read, ReadBufCursor, Write};
use smol::io::{AsyncRead, AsyncWrite};
use smol::{Async, Timer};

use super::pings::{Pings, TOO_MANY_PINGS};

/// How long a client may take for its handshake and its first bytes, and for the head of a request; over HTTP/2 also for what a connection begins with.
pub(super) const GREETING_MAX: Duration = Duration::from_secs(10);
/// What one read takes from a connection at most: one full TLS record.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    /// Where a thread's reads land before hyper takes them. hyper's own buffer is uninitialised memory, which safe code
    /// cannot hand to the kernel; copying the few bytes of a request is cheaper than zeroing 8 KiB for each.
    static LANDING: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// A socket that remembers what the kernel said last.
///
/// After a read that came back short the kernel's buffer is empty, so the next read waits for the reactor at once instead of
/// fetching an EAGAIN first: one system call saved per request.
pub struct Socket {
    inner: Async<TcpStream>,
    readable: bool,
}

impl Socket {
    /// Takes over a connected socket.
    pub fn new(inner: Async<TcpStream>) -> Self {
        Self { inner, readable: true }
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut &TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(&mut self.inner.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.inner.poll_writable(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if !this.readable {
                ready!(this.inner.poll_readable(cx))?;
                this.readable = true;
            }
            match this.inner.get_ref().read(buffer) {
                Ok(count) => {
                    // An end of stream stays readable: it is answered at once however often one asks.
                    this.readable = count == buffer.len() || count == 0;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => this.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |socket| socket.write_vectored(slices))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.inner.get_ref().shutdown(Shutdown::Write) {
            // The client was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }
}

/// A stream whose first bytes were read already and are read again.
pub struct Rewound<S> {
    head: Bytes,
    inner: S,
}

impl<S: AsyncRead + Unpin> Rewound<S> {
    /// Nothing was read.
    pub fn fresh(inner: S) -> Self {
        Self { head: Bytes::new(), inner }
    }

    /// Reads until what has come is `enough`, or the stream ends, and puts all of it back in front.
    pub async fn peek(mut inner: S, enough: impl Fn(&[u8]) -> bool) -> io::Result<Self> {
        let mut head = Vec::new();
        while !enough(&head) {
            let arrived = std::future::poll_fn(|cx| {
                LANDING.with_borrow_mut(|landing| {
                    let count = ready!(Pin::new(&mut inner).poll_read(cx, landing))?;
                    head.extend_from_slice(&landing[..count]);
                    Poll::Ready(io::Result::Ok(count))
                })
            })
            .await?;
            if arrived == 0 {
                break;
            }
        }
        Ok(Self { head: head.into(), inner })
    }

    /// The bytes that were read ahead.
    pub fn head(&self) -> &[u8] {
        &self.head
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.head.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buffer);
        }
        let count = this.head.len().min(buffer.len());
        buffer[..count].copy_from_slice(&this.head[..count]);
        this.head.advance(count);
        if this.head.is_empty() {
            // Gives the allocation back: the connection may live for months.
            this.head = Bytes::new();
        }
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}

/// A connection as hyper sees it.
pub struct Transport {
    stream: Stream,
    /// Set for HTTP/2.
    pings: Option<Pings>,
    /// Whether anything was written yet.
    begun: bool,
    /// Until when the head of this number has to be complete; nothing if none was incomplete when there was last nothing to read.
    head_due: Option<(u64, Timer)>,
}

/// What clients connect by. One type for both kinds, so that hyper's code is in the binary once.
pub enum Stream {
    /// As the bytes come.
    Plain(Rewound<Socket>),
    /// Inside TLS.
    Tls(Box<Rewound<TlsStream<Rewound<Socket>>>>),
}

/// Runs one operation on whichever stream it is.
macro_rules! on_stream {
    ($transport:expr, $stream:ident => $operation:expr) => {
        match &mut $transport.stream {
            Stream::Plain(stream) => {
                let $stream = Pin::new(stream);
                $operation
            }
            Stream::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $operation
            }
        }
    };
}

impl Transport {
    /// A connection that nothing was said on yet. `pings` counts those of an HTTP/2 client.
    pub fn new(stream: Stream, pings: Option<Pings>) -> Self {
        Self { stream, pings, begun: false, head_due: None }
    }

    /// There is nothing to read. That is an error while a head is incomplete for too long: hyper asks silent HTTP/2 clients for signs of life, and a client within a head cannot
    /// give any, nor is there a word of hyper's while it waits for what a connection begins with.
    fn wait_for_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(head) = self.pings.as_ref().and_then(Pings::incomplete_head) else {
            self.head_due = None;
            return Poll::Pending;
        };
        let (_, due) = match self.head_due.take() {
            Some(due) if due.0 == head => self.head_due.insert(due),
            _ => self.head_due.insert((head, Timer::after(GREETING_MAX))),
        };
        ready!(Pin::new(due).poll(cx));
        let text = "a head did not come to its end in time";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }

    /// Ends it with a word why, where that can be said at once.
    fn refuse_pings(&mut self, cx: &mut Context<'_>) -> io::Error {
        if self.pings.as_ref().is_some_and(Pings::is_between_frames) {
            // A client that does not take it in one piece is cut off all the same.
            let _ = on_stream!(self, stream => stream.poll_write(cx, TOO_MANY_PINGS));
        }
        io::Error::other("too many pings")
    }
}

impl Read for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        LANDING.with_borrow_mut(|landing| {
            let room = cursor.remaining().min(landing.len());
            let landing = &mut landing[..room];
            let Poll::Ready(count) = on_stream!(this, stream => stream.poll_read(cx, landing)) else {
                return this.wait_for_more(cx);
            };
            let count = count?;
            let welcome = this.pings.as_mut().is_none_or(|pings| pings.note_read(&landing[..count]));
            if !welcome {
                return Poll::Ready(Err(this.refuse_pings(cx)));
            }
            cursor.put_slice(&landing[..count]);
            Poll::Ready(Ok(()))
        })
    }
}

impl Write for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begun = true;
        let count = ready!(on_stream!(this, stream => stream.poll_write(cx, bytes)))?;
        if let Some(pings) = &mut this.pings {
            pings.note_written(&bytes[..count]);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => stream.poll_close(cx))
    }

    /// Over HTTP/2 not before the first write. What h2 is told then decides which messages it leaves where they lie, and so
    /// sends apart from the trailers that follow: those above 256 bytes where writes are vectored, those above 1024 where
    /// not. To copy one that small is cheaper than a second write. Before each write it asks again, and so larger ones are
    /// not copied. Over HTTP/1 hyper asks once, and would copy answers of any length into a buffer of its own.
    fn is_write_vectored(&self) -> bool {
        self.begun || self.pings.is_none()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begun = true;
        let count = ready!(on_stream!(this, stream => stream.poll_write_vectored(cx, slices)))?;
        if let Some(pings) = &mut this.pings {
            let mut left = count;
            for slice in slices {
                let written = left.min(slice.len());
                pings.note_written(&slice[..written]);
                left -= written;
            }
        }
        Poll::Ready(Ok(count))
    }
}
