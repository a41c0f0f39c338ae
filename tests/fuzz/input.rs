//! Any bytes as a row of choices.
//!
//! Owns: how a target that makes something of bytes takes them. Must never: fail; bytes that are not there are 0.

/// Bytes that are taken from the front.
#[derive(Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes, or what there is.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Bytes with their length in front.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.bytes(length.into())
    }
}

/// What [`Input::piece`] takes.
pub fn piece(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_le_bytes(), bytes].concat()
}

/// Bytes with their CRC32C behind them, over something before them too.
pub fn sealed(before: &[u8], body: &[u8]) -> Vec<u8> {
    let seal = crc32c::crc32c_append(crc32c::crc32c(before), body);
    [body, &seal.to_le_bytes()].concat()
}
