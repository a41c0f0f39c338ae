//! Where one JSON object ends and the next begins.
//!
//! Owns: telling that from brackets and strings alone. Must never: judge what is inside, or keep a byte of it. Driven by `requests`, with the
//! bytes as they come.

/// The position in a stream of objects.
#[derive(Debug, Default)]
pub struct Split {
    /// Brackets that are open. It fits, since every one of them is a byte that came.
    depth: u64,
    in_string: bool,
    /// The byte before was a backslash in a string.
    escaped: bool,
}

/// Something else than an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("JSON objects are expected")]
pub struct NotAnObject;

impl Split {
    /// Goes over the next bytes, at most to the end of an object; how many these are, if it is complete. Blanks in front of an object are for the
    /// caller to skip.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, NotAnObject> {
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_string {
                self.in_string = self.escaped || *byte != b'"';
                self.escaped = !self.escaped && *byte == b'\\';
                continue;
            }
            match byte {
                b'{' => self.depth += 1,
                _ if self.depth == 0 => return Err(NotAnObject),
                b'"' => self.in_string = true,
                b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                return Ok(Some(at + 1));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_however_the_bytes_are_cut() {
        let objects = ["{}", r#"{"a":"}\"{\\","b":[{"c":"\\"},[]]}"#, r#"{"d":"]"}"#];
        let text = objects.concat();
        for step in 1..=text.len() {
            let (mut split, mut found, mut object) = (Split::default(), Vec::new(), Vec::new());
            for mut piece in text.as_bytes().chunks(step) {
                while !piece.is_empty() {
                    let Some(end) = split.feed(piece).unwrap() else {
                        object.extend_from_slice(piece);
                        break;
                    };
                    object.extend_from_slice(&piece[..end]);
                    found.push(String::from_utf8(std::mem::take(&mut object)).unwrap());
                    piece = &piece[end..];
                }
            }
            assert_eq!(
                (found, object),
                (objects.map(str::to_owned).to_vec(), Vec::new()),
                "in steps of {step}"
            );
        }
    }

    #[test]
    fn nothing_but_objects_is_taken() {
        for text in ["null", "[{}]", "1", "\"{}\"", ",{}", "}", "]"] {
            assert_eq!(Split::default().feed(text.as_bytes()), Err(NotAnObject), "{text}");
        }
        assert_eq!(Split::default().feed(b"{\"a\":[[["), Ok(None));
    }
}
