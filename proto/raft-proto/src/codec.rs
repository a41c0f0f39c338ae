//! How a declared message becomes bytes: one [`Field`] implementation per kind of field, and the
//! macros that derive a message's codecs from its list of fields.
//!
//! prost's derive is not used because it stores an enum as any `i32`, which moves the question what
//! an unknown value means to every reader. Here the field has the enum's type and decoding decides.
//! `prost::encoding` is hidden from prost's documentation but is what its derive expands to, so it
//! cannot change within 0.14.

use prost::DecodeError;
use prost::UnknownEnumValue;
use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};

/// A type that a field of a message can have. A field with its default value takes no bytes.
pub(crate) trait Field {
    fn encode(&self, tag: u32, buf: &mut impl BufMut);
    fn encoded_len(&self, tag: u32) -> usize;
    fn merge(
        &mut self,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError>;
}

macro_rules! scalar_field {
    ($ty:ty, $wire:ident) => {
        impl Field for $ty {
            fn encode(&self, tag: u32, buf: &mut impl BufMut) {
                if *self != Self::default() {
                    encoding::$wire::encode(tag, self, buf);
                }
            }

            fn encoded_len(&self, tag: u32) -> usize {
                if *self == Self::default() { 0 } else { encoding::$wire::encoded_len(tag, self) }
            }

            fn merge(
                &mut self,
                wire_type: WireType,
                buf: &mut impl Buf,
                ctx: DecodeContext,
            ) -> Result<(), DecodeError> {
                encoding::$wire::merge(wire_type, self, buf, ctx)
            }
        }
    };
}

scalar_field!(u64, uint64);
scalar_field!(i64, int64);
scalar_field!(bool, bool);
scalar_field!(Bytes, bytes);

/// A repeated number: written packed, read packed or not.
impl Field for Vec<u64> {
    fn encode(&self, tag: u32, buf: &mut impl BufMut) {
        encoding::uint64::encode_packed(tag, self, buf);
    }

    fn encoded_len(&self, tag: u32) -> usize {
        encoding::uint64::encoded_len_packed(tag, self)
    }

    fn merge(
        &mut self,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::uint64::merge_repeated(wire_type, self, buf, ctx)
    }
}

/// An enum of this crate.
pub(crate) trait Enumeration:
    Copy + Default + PartialEq + Into<i32> + TryFrom<i32, Error = UnknownEnumValue>
{
}

impl<E: Enumeration> Field for E {
    fn encode(&self, tag: u32, buf: &mut impl BufMut) {
        if *self != Self::default() {
            encoding::int32::encode(tag, &(*self).into(), buf);
        }
    }

    fn encoded_len(&self, tag: u32) -> usize {
        if *self == Self::default() { 0 } else { encoding::int32::encoded_len(tag, &(*self).into()) }
    }

    fn merge(
        &mut self,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut value = 0;
        encoding::int32::merge(wire_type, &mut value, buf, ctx)?;
        #[expect(deprecated, reason = "prost 0.14 has no other constructor, and keeps this one until 0.15")]
        let known = E::try_from(value).map_err(|error| DecodeError::new(error.to_string()))?;
        *self = known;
        Ok(())
    }
}

/// A message of this crate. prost implements its own trait for numbers too, so that one cannot
/// tell a repeated message from a repeated number.
pub(crate) trait Nested: prost::Message + Default {}

impl<M: Nested> Field for Option<M> {
    fn encode(&self, tag: u32, buf: &mut impl BufMut) {
        if let Some(message) = self {
            encoding::message::encode(tag, message, buf);
        }
    }

    fn encoded_len(&self, tag: u32) -> usize {
        self.as_ref().map_or(0, |message| encoding::message::encoded_len(tag, message))
    }

    fn merge(
        &mut self,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::message::merge(wire_type, self.get_or_insert_default(), buf, ctx)
    }
}

impl<M: Nested> Field for Vec<M> {
    fn encode(&self, tag: u32, buf: &mut impl BufMut) {
        encoding::message::encode_repeated(tag, self, buf);
    }

    fn encoded_len(&self, tag: u32) -> usize {
        encoding::message::encoded_len_repeated(tag, self)
    }

    fn merge(
        &mut self,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::message::merge_repeated(wire_type, self, buf, ctx)
    }
}

/// Declares an enum and its conversions. The variant with the value 0 carries `#[default]`.
macro_rules! enumeration {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum $name {
            $($(#[$variant_meta])* $variant = $value,)+
        }

        impl $crate::codec::Enumeration for $name {}

        impl From<$name> for i32 {
            fn from(value: $name) -> i32 {
                value as i32
            }
        }

        impl TryFrom<i32> for $name {
            type Error = ::prost::UnknownEnumValue;

            fn try_from(value: i32) -> Result<Self, Self::Error> {
                match value {
                    $($value => Ok(Self::$variant),)+
                    unknown => Err(::prost::UnknownEnumValue(unknown)),
                }
            }
        }
    };
}
pub(crate) use enumeration;

/// Declares a message, `field: type = number`, and both its codecs. Fields are encoded in the
/// order of the declaration, which is that of their numbers.
macro_rules! message {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty = $tag:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)+
        }

        impl $crate::codec::Nested for $name {}

        impl ::prost::Message for $name {
            fn encode_raw(&self, buf: &mut impl ::prost::bytes::BufMut) {
                $($crate::codec::Field::encode(&self.$field, $tag, buf);)+
            }

            fn encoded_len(&self) -> usize {
                0 $(+ $crate::codec::Field::encoded_len(&self.$field, $tag))+
            }

            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: ::prost::encoding::WireType,
                buf: &mut impl ::prost::bytes::Buf,
                ctx: ::prost::encoding::DecodeContext,
            ) -> Result<(), ::prost::DecodeError> {
                match tag {
                    $($tag => $crate::codec::Field::merge(&mut self.$field, wire_type, buf, ctx)
                        .map_err(|mut error| {
                            error.push(stringify!($name), stringify!($field));
                            error
                        }),)+
                    _ => ::prost::encoding::skip_field(wire_type, tag, buf, ctx),
                }
            }

            fn clear(&mut self) {
                *self = Self::default();
            }
        }

        impl ::protobuf::Clear for $name {
            fn clear(&mut self) {
                *self = Self::default();
            }
        }

        impl ::protobuf::Message for $name {
            fn new() -> Self {
                Self::default()
            }

            fn default_instance() -> &'static Self {
                static INSTANCE: ::std::sync::LazyLock<$name> =
                    ::std::sync::LazyLock::new($name::default);
                &INSTANCE
            }

            fn is_initialized(&self) -> bool {
                true
            }

            fn compute_size(&self) -> u32 {
                u32::try_from(::prost::Message::encoded_len(self)).unwrap_or(u32::MAX)
            }

            fn get_cached_size(&self) -> u32 {
                ::protobuf::Message::compute_size(self)
            }

            fn write_to_with_cached_sizes(
                &self,
                os: &mut ::protobuf::CodedOutputStream<'_>,
            ) -> ::protobuf::ProtobufResult<()> {
                os.write_raw_bytes(&::prost::Message::encode_to_vec(self))
            }

            fn merge_from(
                &mut self,
                is: &mut ::protobuf::CodedInputStream<'_>,
            ) -> ::protobuf::ProtobufResult<()> {
                $crate::codec::merge_from_stream(self, is)
            }

            fn as_any(&self) -> &dyn ::std::any::Any {
                self
            }

            fn descriptor(&self) -> &'static ::protobuf::reflect::MessageDescriptor {
                Self::descriptor_static()
            }

            fn get_unknown_fields(&self) -> &::protobuf::UnknownFields {
                static NONE: ::std::sync::LazyLock<::protobuf::UnknownFields> =
                    ::std::sync::LazyLock::new(::protobuf::UnknownFields::new);
                &NONE
            }

            // Asked for by the trait; neither raft nor protobuf's provided methods call it.
            fn mut_unknown_fields(&mut self) -> &mut ::protobuf::UnknownFields {
                unimplemented!("{} keeps no unknown fields", stringify!($name))
            }
        }
    };
}
pub(crate) use message;

/// Merges the rest of protobuf 2's stream into `message`. That stream has no way to hand over its
/// remainder in one piece; raft only reads configuration changes by it, a few bytes each.
pub(crate) fn merge_from_stream(
    message: &mut impl prost::Message,
    is: &mut protobuf::CodedInputStream<'_>,
) -> protobuf::ProtobufResult<()> {
    let mut rest = Vec::new();
    while !is.eof()? {
        rest.push(is.read_raw_byte()?);
    }
    message.merge(rest.as_slice()).map_err(|error| std::io::Error::from(error).into())
}
