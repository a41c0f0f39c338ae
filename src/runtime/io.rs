//! Streams of the async runtime as hyper wants them.
//!
//! Owns: one adapter, for the client side of the command line. Must never: zero a buffer for each read. Made by whoever
//! connects, then driven by hyper.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use smol::io::{AsyncRead, AsyncWrite};

/// What one read takes at most: a full TLS record.
const READ_BYTES: usize = 16 * 1024;

/// Any stream of `futures-io`, plain or TLS, behind hyper's traits.
pub struct HyperIo<S> {
    inner: S,
    /// Where reads land before hyper takes them: hyper's own buffer is uninitialised, which safe code cannot read into.
    landing: Box<[u8]>,
}

impl<S> HyperIo<S> {
    /// Takes over a connected stream.
    pub fn new(inner: S) -> Self {
        Self { inner, landing: vec![0; READ_BYTES].into_boxed_slice() }
    }
}

impl<S: AsyncRead + Unpin> Read for HyperIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = cursor.remaining().min(this.landing.len());
        let landing = &mut this.landing[..room];
        let count = ready!(Pin::new(&mut this.inner).poll_read(cx, landing))?;
        cursor.put_slice(&landing[..count]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Write for HyperIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }
}
