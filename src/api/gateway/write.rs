//! From the wire to JSON (proto3 JSON mapping, API reference, section 10).
//!
//! Owns: a walk over one message that can rest at any field. Must never: build a tree of it, or write much more at a time than it is asked for: an
//! answer of any size becomes JSON as its client takes it. Driven by `answer`.
//!
//! Names are those of the `.proto` files, integers of 64 bits are strings, bytes are base64, enums are names; what is not on the wire, since it is
//! zero, is not written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes};
use prost::encoding::decode_varint;

use crate::api::schema::{Field, Kind, Message, Schema};

/// Bytes of a value that are written at a time. They come in threes, so that there is no padding but at the end.
const BLOB_STEP_BYTES: usize = 12 * 1024;

/// A message that is being written.
#[derive(Debug)]
pub struct Writer {
    schema: &'static Schema,
    /// The message, the one in it, and so on to where the walk is.
    levels: Vec<Level>,
    /// What is left of a value of bytes.
    blob: Option<usize>,
}

/// One message on the way to where the walk is.
#[derive(Debug)]
struct Level {
    message: &'static Message,
    /// Bytes of it that are still to come.
    left: usize,
    /// Whether a field was written.
    begun: bool,
    /// The number of the list whose end has not come.
    list: Option<u32>,
}

/// Where a walk rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// As much is written as was asked for.
    Full,
    /// The next bytes of the message have to come.
    Hungry,
    /// All of it is written.
    Done,
}

/// The bytes are no message of this type. They are our own, so it is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer that is no message")]
pub struct Malformed;

impl Writer {
    /// Will write `length` bytes that are `message`.
    pub fn new(schema: &'static Schema, message: &'static Message, length: usize) -> Self {
        Self { schema, levels: vec![Level { message, left: length, begun: false, list: None }], blob: None }
    }

    /// Goes on with `wire`, until `json` has `full` bytes or a little more. A field of the outermost message must be all in one piece of the wire;
    /// the message may come in several.
    pub fn write(&mut self, wire: &mut Bytes, json: &mut Vec<u8>, full: usize) -> Result<Rest, Malformed> {
        loop {
            if json.len() >= full {
                return Ok(Rest::Full);
            }
            if let Some(left) = self.blob {
                self.write_blob(left, wire, json)?;
                continue;
            }
            let outermost = self.levels.len() == 1;
            let Some(level) = self.levels.last_mut() else { return Ok(Rest::Done) };
            if level.left > 0 {
                if wire.is_empty() && outermost {
                    return Ok(Rest::Hungry);
                }
                self.write_field(wire, json)?;
                continue;
            }
            if !level.begun {
                json.push(b'{');
            }
            if level.list.is_some() {
                json.push(b']');
            }
            json.push(b'}');
            self.levels.pop();
        }
    }

    /// Writes the next field, or the beginning of a long one.
    fn write_field(&mut self, wire: &mut Bytes, json: &mut Vec<u8>) -> Result<(), Malformed> {
        let level = self.levels.last_mut().ok_or(Malformed)?;
        let key = level.varint(wire)?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        let has_length = match key & 7 {
            0 => false,
            2 => true,
            _ => return Err(Malformed),
        };
        let value = level.varint(wire)?;
        let Some(field) = level.message.fields.iter().find(|field| field.number == number) else {
            if has_length {
                level.take(usize::try_from(value).map_err(|_| Malformed)?, wire)?;
            }
            return Ok(());
        };
        level.write_name(field, json);
        if !has_length {
            return self.write_number(field, value, json);
        }
        let length = usize::try_from(value).map_err(|_| Malformed)?;
        match field.kind {
            Kind::Message(place) => {
                level.left = level.left.checked_sub(length).ok_or(Malformed)?;
                let message = self.schema.message_at(place);
                self.levels.push(Level { message, left: length, begun: false, list: None });
            }
            Kind::Bytes => {
                level.left = level.left.checked_sub(length).ok_or(Malformed)?;
                json.push(b'"');
                self.blob = Some(length);
            }
            Kind::String => {
                let text = level.take(length, wire)?;
                let text = std::str::from_utf8(&text).map_err(|_| Malformed)?;
                serde_json::to_writer(json, text).map_err(|_| Malformed)?;
            }
            _ => self.write_packed(field, length, wire, json)?,
        }
        Ok(())
    }

    /// A list of numbers that have their key once.
    fn write_packed(
        &mut self,
        field: &Field,
        length: usize,
        wire: &mut Bytes,
        json: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let level = self.levels.last_mut().ok_or(Malformed)?;
        let end = level.left.checked_sub(length).filter(|_| field.repeated && length > 0).ok_or(Malformed)?;
        loop {
            let level = self.levels.last_mut().ok_or(Malformed)?;
            let value = level.varint(wire)?;
            let left = level.left;
            self.write_number(field, value, json)?;
            if left <= end {
                return if left == end { Ok(()) } else { Err(Malformed) };
            }
            json.push(b',');
        }
    }

    fn write_number(&self, field: &Field, value: u64, json: &mut Vec<u8>) -> Result<(), Malformed> {
        #[expect(clippy::cast_possible_truncation, reason = "what protobuf prescribes for larger ones")]
        let narrow = value as u32;
        let text = match field.kind {
            Kind::Int64 => format!("\"{}\"", value.cast_signed()),
            Kind::Uint64 => format!("\"{value}\""),
            Kind::Int32 => narrow.cast_signed().to_string(),
            Kind::Uint32 => narrow.to_string(),
            Kind::Bool => (value != 0).to_string(),
            Kind::Enum(place) => match self.schema.value_name(place, narrow.cast_signed()) {
                Some(name) => format!("\"{name}\""),
                None => narrow.cast_signed().to_string(),
            },
            Kind::String | Kind::Bytes | Kind::Message(_) => return Err(Malformed),
        };
        json.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn write_blob(&mut self, left: usize, wire: &mut Bytes, json: &mut Vec<u8>) -> Result<(), Malformed> {
        let step = left.min(BLOB_STEP_BYTES);
        if step > wire.len() {
            return Err(Malformed);
        }
        let begin = json.len();
        json.resize(begin + step.div_ceil(3) * 4, 0);
        STANDARD.encode_slice(&wire[..step], &mut json[begin..]).map_err(|_| Malformed)?;
        wire.advance(step);
        self.blob = Some(left - step).filter(|left| *left > 0);
        if self.blob.is_none() {
            json.push(b'"');
        }
        Ok(())
    }
}

impl Level {
    /// The next number.
    fn varint(&mut self, wire: &mut Bytes) -> Result<u64, Malformed> {
        let before = wire.len();
        let value = decode_varint(wire).map_err(|_| Malformed)?;
        self.left = self.left.checked_sub(before - wire.len()).ok_or(Malformed)?;
        Ok(value)
    }

    /// The next bytes.
    fn take(&mut self, length: usize, wire: &mut Bytes) -> Result<Bytes, Malformed> {
        self.left = self.left.checked_sub(length).ok_or(Malformed)?;
        if length > wire.len() {
            return Err(Malformed);
        }
        Ok(wire.split_to(length))
    }

    /// What stands in front of a value: the field's name, unless the value goes on with its list.
    fn write_name(&mut self, field: &Field, json: &mut Vec<u8>) {
        let separator = if self.begun { "," } else { "{" };
        let again = self.list == Some(field.number);
        if self.list.is_some() && !again {
            json.push(b']');
        }
        json.extend_from_slice(separator.as_bytes());
        self.begun = true;
        if again {
            return;
        }
        self.list = field.repeated.then_some(field.number);
        json.push(b'"');
        json.extend_from_slice(field.name.as_bytes());
        json.extend_from_slice(if field.repeated { b"\":[" } else { b"\":" });
    }
}

#[cfg(test)]
#[path = "write_test.rs"]
mod tests;
