//! From JSON to the wire (proto3 JSON mapping, API reference, section 10).
//!
//! Owns: what is taken for a field and its value. Must never: build a tree of what it reads: bytes go in, bytes come out, three bytes of JSON are
//! at most eleven of the wire, and of all that as much as its caller allows. Driven by `requests`.
//!
//! As etcd's gateway it takes both names of a field, numbers as strings, values of enums as names or numbers, both alphabets of base64; it passes
//! over fields and names of values that it does not know, and refuses a field that comes twice.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::api::schema::{Field, Kind, Message, Schema};

/// Whatever the last bits are, as Go has it.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
const PADDED: GeneralPurposeConfig = LENIENT.with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
const UNPADDED: GeneralPurposeConfig = LENIENT.with_decode_padding_mode(DecodePaddingMode::RequireNone);
const PLAIN: [GeneralPurpose; 2] =
    [GeneralPurpose::new(&STANDARD, UNPADDED), GeneralPurpose::new(&STANDARD, PADDED)];
const FOR_URLS: [GeneralPurpose; 2] =
    [GeneralPurpose::new(&URL_SAFE, UNPADDED), GeneralPurpose::new(&URL_SAFE, PADDED)];
/// What is passed over wherever it stands in base64.
const LINE_ENDS: [char; 2] = ['\r', '\n'];

/// Bytes of the length in front of a message, which is known only behind it. Seven bits each, so no message that arrives whole is longer.
const LENGTH_BYTES: usize = 4;

/// A fraction or an exponent is read as a double, which is exact for integers below this.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// Why an object is no message.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON, or not the message's.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The message is longer than is allowed.
    #[error("the message is too long")]
    TooLong,
}

/// What is written.
struct Wire {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Wire {
    fn is_too_long(&self) -> bool {
        self.bytes.len() > self.bytes_max
    }

    /// To be asked after each value, so that no more is written than one value too many.
    fn check<E: Error>(&self) -> Result<(), E> {
        if self.is_too_long() { Err(E::custom(Unreadable::TooLong)) } else { Ok(()) }
    }
}

/// Encodes one JSON object as a message of at most `bytes_max` bytes. How deep objects may nest is bounded by serde_json.
pub fn encode(
    schema: &Schema,
    message: &Message,
    json: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, Unreadable> {
    let mut wire = Wire { bytes: Vec::new(), bytes_max };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = (&mut reader).deserialize_map(Fields { schema, message, wire: &mut wire });
    if wire.is_too_long() {
        return Err(Unreadable::TooLong);
    }
    read.and_then(|()| reader.end())?;
    Ok(wire.bytes)
}

/// The bytes of a text in base64, as Go reads it: in either alphabet, line ends passed over, and with padding where the text's length is a multiple of four, line ends included.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let engines = if text.contains(['-', '_']) { &FOR_URLS } else { &PLAIN };
    let engine = &engines[usize::from(text.len().is_multiple_of(4))];
    let letters =
        if text.contains(LINE_ENDS) { text.replace(LINE_ENDS, "").into() } else { Cow::Borrowed(text) };
    engine.decode(&*letters).ok()
}

/// Reads the fields of an object.
struct Fields<'a> {
    schema: &'a Schema,
    message: &'a Message,
    wire: &'a mut Wire,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { schema, message, wire } = self;
        let (mut seen, mut groups) = (0_u64, 0_u64);
        while let Some(place) = map.next_key_seed(Name(message))? {
            let Some(place) = place else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let field = &message.fields[place];
            if seen & (1 << place) != 0 {
                return Err(A::Error::custom(format_args!("field {} comes twice", field.name)));
            }
            seen |= 1 << place;
            let set = map.next_value_seed(Value { schema, field, in_list: false, wire: &mut *wire })?;
            wire.check::<A::Error>()?;
            if set && let Some(group) = field.oneof {
                // A message has no more groups than fields.
                if groups & (1 << group) != 0 {
                    return Err(A::Error::custom(format_args!(
                        "{} is one of several that are set",
                        field.name
                    )));
                }
                groups |= 1 << group;
            }
        }
        Ok(())
    }
}

/// Reads the name of a field; its place in the message, if it has one of that name.
struct Name<'a>(&'a Message);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().position(|field| field.name == name || field.json_name == name))
    }
}

/// Reads the value of a field; whether it has one.
struct Value<'a> {
    schema: &'a Schema,
    field: &'a Field,
    /// It is one of a list.
    in_list: bool,
    wire: &'a mut Wire,
}

impl Value<'_> {
    /// What the value is to be, where it is not a list.
    fn kind<E: Error>(&self) -> Result<Kind, E> {
        if self.field.repeated && !self.in_list { Err(self.wrong()) } else { Ok(self.field.kind) }
    }

    fn wrong<E: Error>(&self) -> E {
        let list = if self.field.repeated { " in a list" } else { "" };
        E::custom(format_args!("field {} takes {}{list}", self.field.name, name_of(self.field.kind)))
    }

    fn put_varint(self, value: u64) -> bool {
        encode_key(self.field.number, WireType::Varint, &mut self.wire.bytes);
        encode_varint(value, &mut self.wire.bytes);
        true
    }

    fn put_bytes(self, bytes: &[u8]) -> bool {
        encode_key(self.field.number, WireType::LengthDelimited, &mut self.wire.bytes);
        encode_varint(bytes.len() as u64, &mut self.wire.bytes);
        self.wire.bytes.extend_from_slice(bytes);
        true
    }

    /// An integer that is in the kind's range; negative ones take ten bytes, whatever their kind.
    fn put_integer<E: Error>(self, value: i128) -> Result<bool, E> {
        let bits = match self.kind::<E>()? {
            Kind::Int64 => i64::try_from(value).ok().map(i64::cast_unsigned),
            Kind::Int32 | Kind::Enum(_) => {
                i32::try_from(value).ok().map(|value| i64::from(value).cast_unsigned())
            }
            Kind::Uint64 => u64::try_from(value).ok(),
            Kind::Uint32 => u32::try_from(value).ok().map(u64::from),
            Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) => None,
        };
        match bits {
            Some(bits) => Ok(self.put_varint(bits)),
            None => Err(self.wrong()),
        }
    }
}

/// Writes a length into the room that was left for it, as a varint that is longer than it had to be.
fn put_length(mut length: usize, room: &mut [u8]) -> Option<()> {
    for byte in room.iter_mut() {
        *byte = 0x80 | u8::try_from(length & 0x7f).ok()?;
        length >>= 7;
    }
    *room.last_mut()? &= 0x7f;
    (length == 0).then_some(())
}

const fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Int64 => "an int64",
        Kind::Uint64 => "a uint64",
        Kind::Int32 => "an int32",
        Kind::Uint32 => "a uint32",
        Kind::Bool => "true or false",
        Kind::String => "a string",
        Kind::Bytes => "bytes in base64",
        Kind::Enum(_) => "a name or a number",
        Kind::Message(_) => "an object",
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(self.field.kind))
    }

    /// `null` is no value, but not one of a list.
    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        if self.in_list { Err(self.wrong()) } else { Ok(false) }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        match self.kind::<E>()? {
            Kind::Bool => Ok(self.put_varint(u64::from(value))),
            _ => Err(self.wrong()),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        self.put_integer(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.put_integer(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        match whole(value) {
            Some(value) => self.put_integer(value),
            None => Err(self.wrong()),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        match self.kind::<E>()? {
            Kind::String => Ok(self.put_bytes(text.as_bytes())),
            Kind::Bytes => match from_base64(text) {
                Some(bytes) => Ok(self.put_bytes(&bytes)),
                None => Err(self.wrong()),
            },
            Kind::Enum(place) => match self.schema.value_number(place, text) {
                Some(number) => self.put_integer(number.into()),
                None => Ok(false),
            },
            Kind::Int64 | Kind::Uint64 | Kind::Int32 | Kind::Uint32 => match integer(text) {
                Some(value) => self.put_integer(value),
                None => Err(self.wrong()),
            },
            Kind::Bool | Kind::Message(_) => Err(self.wrong()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        if !self.field.repeated || self.in_list {
            return Err(self.wrong());
        }
        let Self { schema, field, wire, .. } = self;
        while list.next_element_seed(Value { schema, field, in_list: true, wire: &mut *wire })?.is_some() {
            wire.check::<A::Error>()?;
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        let Kind::Message(place) = self.kind::<A::Error>()? else { return Err(self.wrong()) };
        let message = self.schema.message_at(place);
        encode_key(self.field.number, WireType::LengthDelimited, &mut self.wire.bytes);
        let begin = self.wire.bytes.len() + LENGTH_BYTES;
        self.wire.bytes.resize(begin, 0);
        Fields { schema: self.schema, message, wire: &mut *self.wire }.visit_map(map)?;
        let length = self.wire.bytes.len() - begin;
        put_length(length, &mut self.wire.bytes[begin - LENGTH_BYTES..begin]).ok_or_else(|| self.wrong())?;
        Ok(true)
    }
}

/// The integer that a double is.
#[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
fn whole(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() < EXACT_BELOW).then_some(value as i128)
}

/// An integer as JSON writes numbers.
fn integer(text: &str) -> Option<i128> {
    let number: serde_json::Number = serde_json::from_str(text).ok()?;
    // What else JSON takes is blanks around it.
    if text.starts_with(|first: char| first != '-' && !first.is_ascii_digit())
        || text.ends_with(char::is_whitespace)
    {
        return None;
    }
    number.as_i128().or_else(|| whole(number.as_f64()?))
}

#[cfg(test)]
#[path = "read_test.rs"]
mod tests;
