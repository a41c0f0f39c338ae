//! Where gRPC's messages end in a stream of bytes.
//!
//! Owns: the reading of their prefixes (gRPC over HTTP/2, "Length-Prefixed-Message"). Must never: keep a byte of them. Driven by `record`,
//! for requests and answers.

/// A flag, and the length in four bytes.
const PREFIX_BYTES: usize = 5;

/// The position in a stream of messages.
#[derive(Debug, Default)]
pub struct Frames {
    /// What has come of the prefix of the message that is not complete.
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// What is still to come of it.
    missing: usize,
    /// What has come of it, prefix included.
    partial: usize,
}

impl Frames {
    /// Goes over the next bytes; how many messages they complete.
    pub fn feed(&mut self, mut data: &[u8]) -> u64 {
        let mut complete = 0;
        while !data.is_empty() {
            if self.prefix_len < PREFIX_BYTES {
                let taken = data.len().min(PREFIX_BYTES - self.prefix_len);
                let (head, rest) = data.split_at(taken);
                self.prefix[self.prefix_len..self.prefix_len + taken].copy_from_slice(head);
                self.prefix_len += taken;
                self.partial += taken;
                data = rest;
                if self.prefix_len < PREFIX_BYTES {
                    break;
                }
                let [_, length @ ..] = self.prefix;
                self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            }
            let taken = data.len().min(self.missing);
            data = &data[taken..];
            self.missing -= taken;
            self.partial += taken;
            if self.missing == 0 {
                *self = Self::default();
                complete += 1;
            }
        }
        complete
    }

    /// Bytes of a message that is not complete.
    pub fn partial(&self) -> usize {
        self.partial
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let stream = b"\0\0\0\0\x02ab\0\0\0\0\0\x01\0\0\0\x03abc\0\0\0\0\x09ab";
        for step in 1..=stream.len() {
            let mut frames = Frames::default();
            let complete: u64 = stream.chunks(step).map(|chunk| frames.feed(chunk)).sum();
            assert_eq!((complete, frames.partial()), (3, 7), "in steps of {step}");
        }
        let mut frames = Frames::default();
        assert_eq!((frames.feed(&stream[..7]), frames.partial()), (1, 0));
        assert_eq!((frames.feed(&stream[7..11]), frames.partial()), (0, 4));
        assert_eq!((frames.feed(&stream[11..]), frames.partial()), (2, 7));
    }
}
