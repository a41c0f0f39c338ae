//! Just enough HTTP/2 to put a server under load: requests are bytes made once, answers are told apart and counted.
//!
//! Owns: one connection's frames and its windows. Must never: cost as much as the server that is measured, so nothing is decoded that the
//! measure does not need. Driven by `load`.

use std::collections::BTreeMap;
use std::io;

use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// The largest window that HTTP/2 has (RFC 9113, section 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;
const WINDOW_FIRST: i64 = 65_535;
/// Bytes received after which the connection's window is opened again.
const WINDOW_STEP: u32 = 1 << 28;
const FRAME_BYTES_MAX: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const SETTING_HEADER_TABLE: u16 = 1;
const SETTING_INITIAL_WINDOW: u16 = 4;

/// What became of a call, or a part of it.
#[derive(Debug)]
pub enum Answer {
    /// One gRPC message of a call, without its prefix.
    Message { stream: u32, body: Vec<u8> },
    /// The call ended.
    Ended { stream: u32 },
}

/// A connection over any stream.
pub struct Connection<S> {
    stream: S,
    authority: String,
    tls: bool,
    next_stream: u32,
    out: Vec<u8>,
    /// Bytes read and not looked at yet, from `at` on.
    read: Vec<u8>,
    at: usize,
    /// What may be sent now, for the whole connection.
    window: i64,
    stream_window_first: i64,
    /// Bodies that wait for room, and the windows of calls that are not sent whole.
    waiting: BTreeMap<u32, Body>,
    received: u32,
    /// Messages that are not whole yet.
    partial: BTreeMap<u32, Vec<u8>>,
}

struct Body {
    bytes: Vec<u8>,
    sent: usize,
    window: i64,
    ends: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Greets the server.
    pub async fn open(stream: S, authority: String, tls: bool) -> io::Result<Self> {
        let mut out = PREFACE.to_vec();
        let mut settings = Vec::new();
        // No dynamic table: nothing that the server says depends on what it said before.
        for (id, value) in [(SETTING_HEADER_TABLE, 0), (SETTING_INITIAL_WINDOW, WINDOW_MAX)] {
            settings.extend(id.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        frame(&mut out, SETTINGS, 0, 0, &settings);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - 65_535).to_be_bytes());
        let mut connection = Self {
            stream,
            authority,
            tls,
            next_stream: 1,
            out,
            read: Vec::new(),
            at: 0,
            window: WINDOW_FIRST,
            stream_window_first: WINDOW_FIRST,
            waiting: BTreeMap::new(),
            received: 0,
            partial: BTreeMap::new(),
        };
        connection.flush().await?;
        Ok(connection)
    }

    /// Begins a call with one message. Its bytes leave with the next [`Connection::flush`].
    pub fn call(&mut self, path: &str, message: &[u8], ends: bool) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let block = header_block(path, &self.authority, self.tls);
        frame(&mut self.out, HEADERS, END_HEADERS, stream, &block);
        self.send(stream, message, ends);
        stream
    }

    /// Sends one more message of a call.
    pub fn send(&mut self, stream: u32, message: &[u8], ends: bool) {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(message);
        let first = self.stream_window_first;
        let waiting =
            self.waiting.entry(stream).or_insert(Body { bytes: Vec::new(), sent: 0, window: first, ends });
        waiting.bytes.extend(bytes);
        waiting.ends = ends;
        self.push_bodies();
    }

    /// Writes what waits.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
            self.out.clear();
        }
        self.stream.flush().await
    }

    /// Reads once and hands over what is whole.
    pub async fn receive(&mut self, answers: &mut Vec<Answer>) -> io::Result<()> {
        let begin = self.read.len();
        self.read.resize(begin + 64 * 1024, 0);
        let count = self.stream.read(&mut self.read[begin..]).await?;
        self.read.truncate(begin + count);
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        while let Some((kind, flags, stream, payload)) = self.next_frame() {
            self.handle(kind, flags, stream, &payload, answers)?;
        }
        self.read.drain(..self.at);
        self.at = 0;
        self.flush().await
    }

    fn next_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let rest = &self.read[self.at..];
        let header = rest.first_chunk::<HEADER_BYTES>()?;
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let payload = rest.get(HEADER_BYTES..HEADER_BYTES + length)?.to_vec();
        let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
        let (kind, flags) = (header[3], header[4]);
        self.at += HEADER_BYTES + length;
        Some((kind, flags, stream, payload))
    }

    fn handle(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        answers: &mut Vec<Answer>,
    ) -> io::Result<()> {
        match kind {
            DATA => self.take_data(stream, payload, answers),
            SETTINGS if flags & ACK == 0 => self.take_settings(payload),
            PING if flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
            WINDOW_UPDATE => {
                let more = payload.first_chunk().map_or(0, |bytes| i64::from(u32::from_be_bytes(*bytes)));
                match self.waiting.get_mut(&stream) {
                    Some(body) => body.window += more,
                    None if stream == 0 => self.window += more,
                    None => {}
                }
                self.push_bodies();
            }
            RST_STREAM | GOAWAY => {
                let why = format!("the server ended stream {stream} with frame {kind}: {payload:?}");
                return Err(io::Error::other(why));
            }
            _ => {}
        }
        if (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0 {
            self.partial.remove(&stream);
            self.waiting.remove(&stream);
            answers.push(Answer::Ended { stream });
        }
        Ok(())
    }

    fn take_data(&mut self, stream: u32, payload: &[u8], answers: &mut Vec<Answer>) {
        self.received += u32::try_from(payload.len()).unwrap_or(0);
        if self.received >= WINDOW_STEP {
            frame(&mut self.out, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
        let pending = self.partial.entry(stream).or_default();
        pending.extend_from_slice(payload);
        while let Some((prefix, rest)) = pending.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            let Some(body) = rest.get(..length) else { break };
            answers.push(Answer::Message { stream, body: body.to_vec() });
            pending.drain(..5 + length);
        }
    }

    fn take_settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let (id, value) = (u16::from_be_bytes([setting[0], setting[1]]), &setting[2..]);
            if id == SETTING_INITIAL_WINDOW {
                let value = i64::from(u32::from_be_bytes([value[0], value[1], value[2], value[3]]));
                let change = value - self.stream_window_first;
                self.waiting.values_mut().for_each(|body| body.window += change);
                self.stream_window_first = value;
            }
        }
        frame(&mut self.out, SETTINGS, ACK, 0, &[]);
        self.push_bodies();
    }

    /// Turns as much of the waiting bodies into frames as the windows allow.
    fn push_bodies(&mut self) {
        let (out, window) = (&mut self.out, &mut self.window);
        self.waiting.retain(|stream, body| {
            while body.sent < body.bytes.len() && *window > 0 && body.window > 0 {
                let room = usize::try_from((*window).min(body.window)).unwrap_or(0).min(FRAME_BYTES_MAX);
                let part = &body.bytes[body.sent..body.bytes.len().min(body.sent + room)];
                body.sent += part.len();
                let last = body.ends && body.sent == body.bytes.len();
                frame(out, DATA, if last { END_STREAM } else { 0 }, *stream, part);
                let cost = i64::try_from(part.len()).unwrap_or(0);
                *window -= cost;
                body.window -= cost;
            }
            let whole = body.sent == body.bytes.len();
            if whole {
                body.bytes.clear();
                body.sent = 0;
            }
            !(whole && body.ends)
        });
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The request's headers in HPACK without indexing (RFC 7541): the numbers are entries of its static table.
fn header_block(path: &str, authority: &str, tls: bool) -> Vec<u8> {
    let mut block = vec![0x83, if tls { 0x87 } else { 0x86 }];
    let mut literal = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).unwrap_or(0));
        block.extend_from_slice(value.as_bytes());
    };
    literal(&[0x04], path);
    literal(&[0x01], authority);
    literal(&[0x0f, 0x10], "application/grpc");
    literal(b"\x00\x02te", "trailers");
    block
}
