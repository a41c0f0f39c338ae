//! Where messages end in the body of a request (gRPC over HTTP/2, "Length-Prefixed-Message").
//!
//! Owns: the walk over the prefixes. Must never: keep or copy a message. Driven by `record`, for counts; tonic reads the messages.

/// A flag and a length.
const PREFIX_BYTES: usize = 5;

/// A walk over the messages of one body, in whatever pieces they come.
#[derive(Debug, Default)]
pub struct Framing {
    prefix: [u8; PREFIX_BYTES],
    /// How much of the prefix is there.
    prefix_bytes: usize,
    /// How much of the message is there, and how much is still to come.
    message_bytes: usize,
    missing: usize,
}

impl Framing {
    /// Takes the next piece; answers how many messages it completes.
    pub fn feed(&mut self, mut piece: &[u8]) -> u64 {
        let mut complete = 0;
        while !piece.is_empty() {
            if self.prefix_bytes < PREFIX_BYTES {
                let taken = piece.len().min(PREFIX_BYTES - self.prefix_bytes);
                let (of_prefix, rest) = piece.split_at(taken);
                self.prefix[self.prefix_bytes..][..taken].copy_from_slice(of_prefix);
                self.prefix_bytes += taken;
                piece = rest;
                if self.prefix_bytes < PREFIX_BYTES {
                    break;
                }
                let [_, a, b, c, d] = self.prefix;
                self.missing = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            }
            let taken = piece.len().min(self.missing);
            piece = &piece[taken..];
            self.missing -= taken;
            self.message_bytes += taken;
            if self.missing == 0 {
                complete += 1;
                (self.prefix_bytes, self.message_bytes) = (0, 0);
            }
        }
        complete
    }

    /// What has come of a message that is not complete, in bytes.
    pub fn incomplete_bytes(&self) -> usize {
        self.prefix_bytes + self.message_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_pieces_of_any_size() {
        let messages = [&b""[..], b"a", b"four", &[7; 300]];
        let mut body = Vec::new();
        for message in messages {
            body.push(0);
            body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            body.extend_from_slice(message);
        }
        for size in 1..=body.len() {
            let mut framing = Framing::default();
            let complete: u64 = body.chunks(size).map(|piece| framing.feed(piece)).sum();
            assert_eq!((complete, framing.incomplete_bytes()), (4, 0), "pieces of {size}");
        }
        let mut framing = Framing::default();
        assert_eq!((framing.feed(&body[..body.len() - 1]), framing.incomplete_bytes()), (3, 304));
        assert_eq!((framing.feed(&[1]), framing.incomplete_bytes()), (1, 0));
        assert_eq!((framing.feed(&[0, 0xff, 0xff, 0xff, 0xff, 9]), framing.incomplete_bytes()), (0, 6));
    }
}
