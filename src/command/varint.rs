//! Numbers in groups of seven bits, lowest first (LEB128): what log entries and rows of the store are written with.
//!
//! Owns: the bytes of a number. Must never: change them, or panic on what it reads. Driven by `codec` and by `store`.

/// Why bytes are no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VarintError {
    /// They end inside it.
    Truncated,
    /// It has more than 64 bits.
    TooLarge,
}

/// Appends `number`, at most ten bytes.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Reads a number from the bytes that `next` gives, and takes none beyond it. Zeros at its upper end are read as well.
pub fn take_varint(mut next: impl FnMut() -> Option<u8>) -> Result<u64, VarintError> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = next().ok_or(VarintError::Truncated)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(VarintError::TooLarge);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(VarintError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bytes: &[u8]) -> Result<u64, VarintError> {
        let mut bytes = bytes.iter();
        let number = take_varint(|| bytes.next().copied());
        assert!(number.is_err() || bytes.as_slice().is_empty(), "all of the number was taken");
        number
    }

    #[test]
    fn numbers_come_back_and_overlong_ones_do_not() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(take(&out), Ok(number));
            for cut in 0..out.len() {
                assert_eq!(take(&out[..cut]), Err(VarintError::Truncated));
            }
        }
        assert_eq!(take(&[0xff; 10]), Err(VarintError::TooLarge), "bits 65 to 70 do not fit");
        let mut beyond = [0x80; 10];
        beyond[9] = 0x02;
        assert_eq!(take(&beyond), Err(VarintError::TooLarge), "bit 65 does not fit");
        beyond[9] = 0x80;
        assert_eq!(take(&beyond), Err(VarintError::TooLarge), "an eleventh byte is never right");
    }

    #[test]
    fn a_number_has_these_bytes() {
        let mut out = Vec::new();
        for number in [0, 0x7f, 0x80, 300, u64::MAX] {
            put_varint(&mut out, number);
        }
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(out, [&[0, 0x7f, 0x80, 0x01, 0xac, 0x02][..], &max].concat());
    }
}
