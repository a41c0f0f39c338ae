//! An HTTP/2 connection for tonic's generated clients, on smol.
//!
//! Owns: one connection. Must never: retry, or know what is said on it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::rt::ReadBufCursor;
use smol::io::{AsyncRead, AsyncWrite};

/// hyper's view of any stream of smol.
pub struct ClientIo<S>(S);

impl<S: AsyncRead + Unpin> hyper::rt::Read for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = vec![0; cursor.remaining().min(64 * 1024)];
        Pin::new(&mut self.0).poll_read(cx, &mut buffer).map_ok(|count| cursor.put_slice(&buffer[..count]))
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

#[derive(Clone)]
struct Spawn;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, future: F) {
        smol::spawn(future).detach();
    }
}

/// An HTTP/2 connection, as tonic's generated clients want it. Dropping all clones closes it.
#[derive(Clone)]
pub struct Channel(SendRequest<tonic::body::Body>);

impl Channel {
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> hyper::Result<Self> {
        Self::narrow(stream, 16 << 20).await
    }

    /// One that takes so many bytes before it has read earlier ones.
    pub async fn narrow(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        window: u32,
    ) -> hyper::Result<Self> {
        Self::with_windows(stream, window, window).await
    }

    /// One that takes so many bytes of each stream, and of all together, before it has read earlier ones.
    pub async fn with_windows(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        of_each: u32,
        of_all: u32,
    ) -> hyper::Result<Self> {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(Spawn)
            .initial_stream_window_size(of_each)
            .initial_connection_window_size(of_all)
            .handshake(ClientIo(stream))
            .await?;
        smol::spawn(async move { drop(connection.await) }).detach();
        Ok(Self(sender))
    }

    /// Sends a request as it is.
    pub async fn send(&self, request: Request<tonic::body::Body>) -> hyper::Result<Response<Incoming>> {
        self.0.clone().send_request(request).await
    }
}

impl tower_service::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(with_authority(request)))
    }
}

fn with_authority(mut request: Request<tonic::body::Body>) -> Request<tonic::body::Body> {
    let path = request.uri().path_and_query().unwrap().clone();
    *request.uri_mut() =
        Uri::builder().scheme("http").authority("any.authority").path_and_query(path).build().unwrap();
    request
}
