//! The primitives that rows are made of: numbers, length-prefixed bytes, and a CRC32C seal.
//!
//! Owns: reading and writing them. Must never: panic on what it reads. Driven by `schema` and `facts`.

use bytes::Bytes;

use crate::command::varint::{put_varint, take_varint};

/// The length of a seal in bytes.
pub const SEAL_BYTES: usize = 4;

/// Appends the length of `bytes` and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Ends a row: a checksum over the row's key and all that `row` holds, so that a row under a wrong key is damage too.
pub fn seal(key: &[u8], row: &mut Vec<u8>) {
    let sum = checksum(key, row);
    row.extend_from_slice(&sum);
}

/// The body of a sealed row; `None` where the seal does not fit.
pub fn unseal<'a>(key: &[u8], row: &'a [u8]) -> Option<&'a [u8]> {
    let (body, sum) = row.split_last_chunk::<SEAL_BYTES>()?;
    (*sum == checksum(key, body)).then_some(body)
}

/// The seal of a row.
pub fn checksum(key: &[u8], body: &[u8]) -> [u8; SEAL_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(key), body).to_le_bytes()
}

/// Reads a row's body from the front; every method answers `None` where the bytes end early or mean nothing.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub fn varint(&mut self) -> Option<u64> {
        take_varint(|| self.u8()).ok()
    }

    /// A number that is never negative where it is written.
    pub fn count(&mut self) -> Option<i64> {
        i64::try_from(self.varint()?).ok()
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (head, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(head)
    }

    pub fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    /// A list of items, each read by `item`. The count is not trusted with memory.
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.varint()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Some(items)
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Confirms that nothing is left.
    pub fn end(&self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }
}

/// Where `part` lies in `whole`, of which it must be a slice, as shared bytes.
pub fn share(whole: &Bytes, part: &[u8]) -> Bytes {
    whole.slice_ref(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_covers_key_and_body() {
        let mut row = b"body".to_vec();
        seal(b"key", &mut row);
        assert_eq!(unseal(b"key", &row), Some(&b"body"[..]));
        assert_eq!(unseal(b"kez", &row), None);
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(b"key", &flipped), None);
        }
        assert_eq!(unseal(b"key", &row[..3]), None);
    }
}
