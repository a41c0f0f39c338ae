//! Whether a client asks for signs of life more often than it may (API reference, section 8), and whether it has begun a head that is not complete.
//!
//! Owns: the count of pings, the frame that tells a client that there were too many, and the count of heads. Must never: change a byte that passes, or judge a
//! ping by anything but time and answers. Shown everything that an HTTP/2 connection reads and writes, by `io`, which keeps the time of a head.
//!
//! As in gRPC's Go server: a ping that comes sooner after the one before than `--grpc-keepalive-min-time` is a strike, an answer sent in
//! between forgives all of them (Go's clients measure the line with pings while data flows), and a third strike ends the connection. Unlike
//! there, pings without an open call are judged no harder than others: they keep clients on poor lines connected.

use std::time::{Duration, Instant};

use super::timer::now;

/// Strikes that are forgiven.
const STRIKES_MAX: u32 = 2;

/// What every HTTP/2 connection of a client begins with, in bytes (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// Length, kind, flags and stream of a frame (RFC 9113, section 4.1), and the kinds that matter here (section 6).
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const FLAG_ACK: u8 = 1;
const FLAG_END_HEADERS: u8 = 4;

/// GOAWAY with `ENHANCE_YOUR_CALM` and the text by which gRPC's clients know that they have to ping less often.
pub const TOO_MANY_PINGS: &[u8] = b"\0\0\x16\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0btoo_many_pings";

/// The pings of one connection.
#[derive(Debug)]
pub struct Pings {
    min_time: Duration,
    read: Frames,
    heads: Heads,
    written: Frames,
    last: Option<Instant>,
    strikes: u32,
    /// Something was answered since the last ping.
    answered: bool,
}

impl Pings {
    /// Of a connection from its first byte on; a client may ping every `min_time`.
    pub fn new(min_time: Duration) -> Self {
        let read = Frames { passing: PREFACE_BYTES, ..Frames::default() };
        let (heads, written) = (Heads::default(), Frames::default());
        Self { min_time, read, heads, written, last: None, strikes: 0, answered: false }
    }

    /// What was read; false when there are too many pings.
    pub fn note_read(&mut self, bytes: &[u8]) -> bool {
        let mut pings = 0;
        let heads = &mut self.heads;
        self.read.pass(bytes, |kind, flags| {
            heads.note(kind, flags);
            pings += u32::from(kind == PING && flags & FLAG_ACK == 0);
        });
        (0..pings).all(|_| self.is_welcome(now()))
    }

    /// The number of the head that has begun to come and is not complete, if there is one. What every connection begins with counts as one.
    pub fn incomplete_head(&self) -> Option<u64> {
        let Heads { begun, in_frame, goes_on } = self.heads;
        (goes_on || in_frame && self.read.passing > 0).then_some(begun)
    }

    /// What was written.
    pub fn note_written(&mut self, bytes: &[u8]) {
        let answered = &mut self.answered;
        self.written.pass(bytes, |kind, _| *answered |= matches!(kind, DATA | HEADERS));
    }

    /// Whether another frame may be written now: the last one is complete.
    pub fn is_between_frames(&self) -> bool {
        self.written.passing == 0 && self.written.filled == 0
    }

    fn is_welcome(&mut self, now: Instant) -> bool {
        let last = self.last.replace(now);
        if std::mem::take(&mut self.answered) {
            self.strikes = 0;
        } else if last.is_some_and(|last| now.saturating_duration_since(last) < self.min_time) {
            self.strikes += 1;
        }
        self.strikes <= STRIKES_MAX
    }
}

/// The heads that a client sends: a frame, and those that it goes on in (RFC 9113, section 4.3).
#[derive(Debug)]
struct Heads {
    begun: u64,
    /// The present frame, or the last one, belongs to a head.
    in_frame: bool,
    /// Another frame of it has to follow.
    goes_on: bool,
}

impl Default for Heads {
    fn default() -> Self {
        Self { begun: 0, in_frame: true, goes_on: false }
    }
}

impl Heads {
    /// A frame begins.
    fn note(&mut self, kind: u8, flags: u8) {
        self.in_frame = matches!(kind, HEADERS | CONTINUATION);
        self.begun += u64::from(kind == HEADERS);
        if self.in_frame {
            self.goes_on = flags & FLAG_END_HEADERS == 0;
        }
    }
}

/// Where one direction of a connection is within its frames.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// Bytes of the present frame that are still to come.
    passing: usize,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(u8, u8)) {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let count = self.passing.min(bytes.len());
                self.passing -= count;
                bytes = &bytes[count..];
                continue;
            }
            let count = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == HEAD_BYTES {
                let [a, b, c, kind, flags, ..] = self.head;
                self.passing = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.filled = 0;
                on_frame(kind, flags);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING_FRAME: &[u8] = b"\0\0\x08\x06\0\0\0\0\0payload.";
    const PING_ACK: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0payload.";
    const DATA_FRAME: &[u8] = b"\0\0\x03\0\0\0\0\0\x01abc";

    fn pings(min_time: Duration) -> Pings {
        let mut pings = Pings::new(min_time);
        assert!(pings.note_read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        pings
    }

    #[test]
    fn the_third_ping_too_soon_is_too_many_however_it_arrives() {
        let mut at_once = pings(Duration::from_secs(5));
        assert!(at_once.note_read(&PING_FRAME.repeat(3)));
        assert!(!at_once.note_read(PING_FRAME));
        let mut by_bytes = pings(Duration::from_secs(5));
        let welcome = PING_FRAME.repeat(4).iter().take_while(|byte| by_bytes.note_read(&[**byte])).count();
        assert_eq!(welcome, 3 * PING_FRAME.len() + HEAD_BYTES - 1);
        assert!(pings(Duration::from_secs(5)).note_read(&PING_ACK.repeat(9)), "answers to our own");
        assert!(pings(Duration::ZERO).note_read(&PING_FRAME.repeat(99)), "switched off");
        // A payload that looks like pings.
        let data = [&b"\0\0\x55\0\0\0\0\0\x01"[..], &PING_FRAME.repeat(5)].concat();
        assert!(pings(Duration::from_secs(5)).note_read(&data));
    }

    #[test]
    fn time_or_an_answer_in_between_makes_a_ping_welcome() {
        let mut patient = pings(Duration::from_secs(5));
        let start = now();
        assert!((0..9).all(|n| patient.is_welcome(start + Duration::from_secs(5) * n)));
        let mut busy = pings(Duration::from_secs(5));
        for _ in 0..9 {
            busy.note_written(DATA_FRAME);
            assert!(busy.note_read(&PING_FRAME.repeat(2)));
        }
        busy.note_written(PING_ACK);
        assert!(busy.note_read(PING_FRAME) && !busy.note_read(PING_FRAME), "an acknowledgement is no answer");
    }

    #[test]
    fn a_head_is_incomplete_from_its_first_frame_to_the_end_of_its_last() {
        const FIRST: &[u8] = b"\0\0\x02\x01\x01\0\0\0\x01ab";
        const NEXT: &[u8] = b"\0\0\x01\x09\0\0\0\0\x01c";
        const LAST: &[u8] = b"\0\0\x01\x09\x04\0\0\0\x01d";
        const WHOLE: &[u8] = b"\0\0\x02\x01\x05\0\0\0\x03ab";
        let mut client = Pings::new(Duration::ZERO);
        assert_eq!(client.incomplete_head(), Some(0));
        client.note_read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r");
        assert_eq!(client.incomplete_head(), Some(0));
        client.note_read(b"\n");
        assert_eq!(client.incomplete_head(), None);
        let begun = [FIRST, NEXT, LAST].concat();
        for byte in &begun[..HEAD_BYTES - 1] {
            client.note_read(&[*byte]);
            assert_eq!(client.incomplete_head(), None, "it may be any frame");
        }
        for byte in &begun[HEAD_BYTES - 1..begun.len() - 1] {
            client.note_read(&[*byte]);
            assert_eq!(client.incomplete_head(), Some(1));
        }
        client.note_read(&begun[begun.len() - 1..]);
        assert_eq!(client.incomplete_head(), None);
        // Of a client that asks for much each read may end within a head, and each time it is another one.
        let (begin, end) = WHOLE.split_at(HEAD_BYTES + 1);
        client.note_read(begin);
        for number in 2..9 {
            assert_eq!(client.incomplete_head(), Some(number));
            client.note_read(&[end, DATA_FRAME, PING_FRAME, begin].concat());
        }
        client.note_read(end);
        client.note_read(&DATA_FRAME[..=HEAD_BYTES]);
        assert_eq!(client.incomplete_head(), None, "a body may take its time");
    }

    #[test]
    fn the_last_word_is_a_frame_and_goes_between_frames() {
        let mut frames = Frames::default();
        let mut kinds = Vec::new();
        frames.pass(TOO_MANY_PINGS, |kind, flags| kinds.push((kind, flags)));
        assert_eq!((kinds, frames.passing, frames.filled), (vec![(7, 0)], 0, 0));
        let mut pings = pings(Duration::from_secs(5));
        for cut in 1..DATA_FRAME.len() {
            pings.note_written(&DATA_FRAME[..cut]);
            assert!(!pings.is_between_frames());
            pings.note_written(&DATA_FRAME[cut..]);
            assert!(pings.is_between_frames());
        }
    }
}
