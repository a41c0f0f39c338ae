//! Mends a request whose `:authority` is a whole URL.
//!
//! etcd's clients up to 3.4, and etcdctl of that age with them, name the server they call as the endpoint was typed:
//! `http://127.0.0.1:2379`. HTTP/2 wants `127.0.0.1:2379` (RFC 9113, section 8.3.1); Go's servers take anything, and hyper resets the
//! stream. The URL comes literally in the first request of a connection, and by its index in HPACK's table from then on, so that it is
//! enough to look at the first request, unless that one was mended.
//!
//! Owns: that one field of that one frame. Must never: touch a byte of anything else; what it does not understand passes as it is, for
//! hyper to judge. Put between the transport and hyper by `server`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::uri::Authority;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

/// What every HTTP/2 connection of a client begins with, in bytes (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// A frame's head: length, kind, flags, stream (RFC 9113, section 4.1).
const FRAME_HEAD_BYTES: usize = 9;
/// The kind of the frame that begins a request, and the flags of its optional fields (RFC 9113, section 6.2).
const HEADERS: u8 = 1;
const FLAG_PADDED: u8 = 0x08;
const FLAG_PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;
/// A larger frame is not looked into: no etcd client has one.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// The place of `:authority` in HPACK's static table (RFC 7541, appendix A).
const AUTHORITY_INDEX: usize = 1;
/// Bytes that are read at a time until the first request is in.
const READ_BYTES: usize = 2048;

/// A transport whose first request is looked at before hyper sees it.
pub struct Mending<T> {
    transport: T,
    /// `None` once there is nothing more to look at.
    filter: Option<Box<Filter>>,
}

impl<T> Mending<T> {
    /// Looks at what `transport` reads from its first byte on.
    pub fn new(transport: T) -> Self {
        let filter = Filter { passing: PREFACE_BYTES, ..Filter::default() };
        Self { transport, filter: Some(Box::new(filter)) }
    }
}

impl<T: Read + Unpin> Read for Mending<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        while let Some(filter) = &mut this.filter {
            if !filter.output.is_empty() {
                let count = filter.output.len().min(cursor.remaining());
                cursor.put_slice(&filter.output[..count]);
                filter.output.drain(..count);
                return Poll::Ready(Ok(()));
            }
            if filter.done {
                this.filter = None;
                break;
            }
            let mut bytes = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.transport).poll_read(cx, buffer.unfilled()))?;
            if buffer.filled().is_empty() {
                filter.give_up();
                if filter.output.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            } else {
                filter.push(buffer.filled());
            }
        }
        Pin::new(&mut this.transport).poll_read(cx, cursor)
    }
}

impl<T: Write + Unpin> Write for Mending<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write_vectored(cx, slices)
    }
}

/// Frames on their way in.
#[derive(Default)]
struct Filter {
    /// Bytes of a frame that is not complete; at most [`FRAME_BYTES_MAX`] and a read.
    input: Vec<u8>,
    /// What hyper may have.
    output: Vec<u8>,
    /// Bytes that pass without a look: the rest of a frame of another kind.
    passing: usize,
    mended: bool,
    done: bool,
}

impl Filter {
    fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while self.advance() {}
        if self.done {
            self.give_up();
        }
    }

    /// Passes a frame, or a part of one; false when more has to come first, or nothing is left to do.
    fn advance(&mut self) -> bool {
        if self.passing > 0 {
            let count = self.passing.min(self.input.len());
            self.output.extend(self.input.drain(..count));
            self.passing -= count;
            return self.passing == 0;
        }
        let Some(head) = self.input.first_chunk::<FRAME_HEAD_BYTES>() else { return false };
        let length = FRAME_HEAD_BYTES
            + usize::from(head[0]) * 65_536
            + usize::from(head[1]) * 256
            + usize::from(head[2]);
        if head[3] != HEADERS || length > FRAME_BYTES_MAX {
            self.passing = length;
            return true;
        }
        if self.input.len() < length {
            return false;
        }
        let frame: Vec<u8> = self.input.drain(..length).collect();
        if let Some(mended) = mend(&frame) {
            self.output.extend_from_slice(&mended);
            self.mended = true;
        } else {
            self.output.extend_from_slice(&frame);
            self.done = !self.mended;
        }
        !self.done
    }

    fn give_up(&mut self) {
        self.output.append(&mut self.input);
        self.done = true;
    }
}

/// The frame with the authority that its URL names; `None` where there is nothing to mend.
fn mend(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, payload) = frame.split_first_chunk::<FRAME_HEAD_BYTES>()?;
    let flags = head[4];
    let mut start = 0;
    let mut padding = 0;
    if flags & FLAG_PADDED != 0 {
        padding = usize::from(*payload.first()?);
        start += 1;
    }
    if flags & FLAG_PRIORITY != 0 {
        start += PRIORITY_BYTES;
    }
    let block = payload.get(start..payload.len().checked_sub(padding)?)?;
    let (from, to, text) = find_authority(block)?;
    let url = std::str::from_utf8(&text).ok()?;
    let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    authority.parse::<Authority>().ok()?;
    let mut mended = head.to_vec();
    mended.extend_from_slice(&payload[..start + from]);
    // As it is: a string without Huffman's code, its length in seven bits.
    mended.push(u8::try_from(authority.len()).ok().filter(|length| *length < 127)?);
    mended.extend_from_slice(authority.as_bytes());
    mended.extend_from_slice(&payload[start + to..]);
    let length = u32::try_from(mended.len() - FRAME_HEAD_BYTES).ok()?;
    mended[..3].copy_from_slice(&length.to_be_bytes()[1..]);
    Some(mended)
}

/// Where the literal value of `:authority` stands in a block of fields (RFC 7541, section 6), and the value.
fn find_authority(block: &[u8]) -> Option<(usize, usize, Vec<u8>)> {
    let mut at = 0;
    loop {
        let first = *block.get(at)?;
        if first & 0x80 != 0 {
            at = integer(block, at, 7)?.1;
            continue;
        }
        if first & 0xe0 == 0x20 {
            at = integer(block, at, 5)?.1;
            continue;
        }
        let (name, after_name) = integer(block, at, if first & 0x40 == 0 { 4 } else { 6 })?;
        let value_at = if name == 0 { string(block, after_name)?.2 } else { after_name };
        let (coded, from, to) = string(block, value_at)?;
        if name == AUTHORITY_INDEX {
            let raw = block.get(from..to)?;
            let text = if coded { decode(raw)? } else { raw.to_vec() };
            return Some((value_at, to, text));
        }
        at = to;
    }
}

/// An integer with a prefix of `bits` bits, and where it ends (RFC 7541, section 5.1).
fn integer(block: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(at)?) & mask;
    let mut at = at + 1;
    if value < mask {
        return Some((value, at));
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*block.get(at)?);
        at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

/// Whether a string is in Huffman's code, and where its bytes begin and end (RFC 7541, section 5.2).
fn string(block: &[u8], at: usize) -> Option<(bool, usize, usize)> {
    let coded = *block.get(at)? & 0x80 != 0;
    let (length, from) = integer(block, at, 7)?;
    Some((coded, from, from.checked_add(length).filter(|to| *to <= block.len())?))
}

/// Huffman's code of the characters that a URL without a path has (RFC 7541, appendix B): how many bits, the first code of that
/// length, and the characters in order of their codes.
const CODES: [(u32, u32, &[u8]); 5] = [
    (5, 0b00000, b"012aceiost"),
    (6, 0b01_0110, b"-./3456789=A_bdfghlmnpru"),
    (7, 0b101_1100, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, 0b1111_1100, b"XZ"),
    (13, 0b1_1111_1111_1011, b"[]"),
];
/// The longest of these codes.
const CODE_BITS_MAX: u32 = 13;

/// The text of a coded string; `None` when it has other characters.
fn decode(raw: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(raw.len() * 8 / 5);
    let (mut code, mut bits) = (0_u32, 0_u32);
    for byte in raw {
        for place in (0..8).rev() {
            code = code << 1 | u32::from(byte >> place & 1);
            bits += 1;
            if let Some(character) = character(code, bits) {
                text.push(character);
                (code, bits) = (0, 0);
            } else if bits > CODE_BITS_MAX {
                return None;
            }
        }
    }
    // The rest of the last byte is ones.
    (bits < 8 && code == (1 << bits) - 1).then_some(text)
}

fn character(code: u32, bits: u32) -> Option<u8> {
    let (_, first, characters) = CODES.iter().find(|(length, ..)| *length == bits)?;
    let place = usize::try_from(code.checked_sub(*first)?).ok()?;
    characters.get(place).copied()
}

#[cfg(test)]
#[path = "authority_test.rs"]
mod tests;
