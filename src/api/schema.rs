//! What messages and services of the API look like, as the descriptors tell that the build has made.
//!
//! Owns: reading these descriptors. Must never: know a message by its name, or be given descriptors by anybody else. Asked by `gateway`; `reflection` reads
//! the same for itself.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message as _;

use crate::wire::FILE_DESCRIPTOR_SET;

/// The parts of Google's `descriptor.proto` that are of use here, with its numbers.
pub(super) mod proto {
    /// A `FileDescriptorSet`, its files not looked into.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Set {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        pub files: Vec<bytes::Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct File {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub package: String,
        #[prost(message, repeated, tag = "4")]
        pub messages: Vec<Message>,
        #[prost(message, repeated, tag = "5")]
        pub enums: Vec<Enum>,
        #[prost(message, repeated, tag = "6")]
        pub services: Vec<Service>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Message {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, repeated, tag = "2")]
        pub fields: Vec<Field>,
        #[prost(message, repeated, tag = "3")]
        pub messages: Vec<Message>,
        #[prost(message, repeated, tag = "4")]
        pub enums: Vec<Enum>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Field {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(uint32, tag = "3")]
        pub number: u32,
        #[prost(int32, tag = "4")]
        pub label: i32,
        #[prost(int32, tag = "5")]
        pub kind: i32,
        #[prost(string, tag = "6")]
        pub type_name: String,
        #[prost(uint32, optional, tag = "9")]
        pub oneof: Option<u32>,
        #[prost(string, tag = "10")]
        pub json_name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Enum {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, repeated, tag = "2")]
        pub values: Vec<EnumValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct EnumValue {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(int32, tag = "2")]
        pub number: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Service {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, repeated, tag = "2")]
        pub methods: Vec<Method>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Method {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub input: String,
        #[prost(string, tag = "3")]
        pub output: String,
        #[prost(bool, tag = "5")]
        pub client_streams: bool,
        #[prost(bool, tag = "6")]
        pub server_streams: bool,
    }
}

/// The label of a repeated field.
const REPEATED: i32 = 3;

/// All that the build has described.
#[derive(Debug)]
pub struct Schema {
    messages: Vec<Message>,
    by_name: BTreeMap<String, usize>,
    enums: Vec<Enum>,
    methods: Vec<Method>,
}

/// A message.
#[derive(Debug)]
pub struct Message {
    /// At most 64 (see [`Schema::of`]), so that a set of them is a word.
    pub fields: Vec<Field>,
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// On the wire.
    pub number: u32,
    /// As it is written in the `.proto` file.
    pub name: String,
    /// In lower camel case.
    pub json_name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether it is a list of that.
    pub repeated: bool,
    /// Of which group it is, if only one of several fields may be set.
    pub oneof: Option<u32>,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `int64`
    Int64,
    /// `uint64`
    Uint64,
    /// `int32`
    Int32,
    /// `uint32`
    Uint32,
    /// `bool`
    Bool,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// One of the schema's enums.
    Enum(usize),
    /// One of the schema's messages.
    Message(usize),
}

/// The values of an enum.
#[derive(Debug)]
struct Enum(Vec<(String, i32)>);

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    service: String,
    name: String,
    input: usize,
    output: usize,
    /// Whether the client may send more than one message.
    pub client_streams: bool,
    /// Whether the server may.
    pub server_streams: bool,
}

/// Why a schema could not be made.
#[derive(Debug, thiserror::Error)]
enum SchemaError {
    #[error("the descriptors cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("{0} is not defined")]
    Undefined(String),
    #[error("field {0} is of type {1}, which nothing here reads")]
    Type(String, i32),
    #[error("{0} has too many fields")]
    TooManyFields(String),
}

/// The schema of everything in `proto/`, made when it is asked for first.
pub fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let made = Schema::of(Bytes::from_static(FILE_DESCRIPTOR_SET));
        made.expect("descriptors that the build has made, and that a test has read")
    })
}

/// What is found before names can be looked up.
#[derive(Default)]
struct Found {
    messages: Vec<(String, proto::Message)>,
    message_by_name: BTreeMap<String, usize>,
    enums: Vec<Enum>,
    enum_by_name: BTreeMap<String, usize>,
}

impl Schema {
    fn of(set: Bytes) -> Result<Self, SchemaError> {
        let (mut found, mut services) = (Found::default(), Vec::new());
        for file in proto::Set::decode(set)?.files {
            let proto::File { package, messages, enums, services: of_file, .. } = proto::File::decode(file)?;
            found.enums(&package, enums);
            found.messages(&package, messages);
            let named = of_file.into_iter().map(|each| (format!("{package}.{}", each.name), each.methods));
            services.extend(named);
        }
        let mut methods = Vec::new();
        for (service, of_service) in services {
            for method in of_service {
                let proto::Method { name, input, output, client_streams, server_streams } = method;
                let (input, output) = (found.message(&input)?, found.message(&output)?);
                let service = service.clone();
                methods.push(Method { service, name, input, output, client_streams, server_streams });
            }
        }
        let messages = found.messages.iter().map(|(name, message)| found.resolve(name, message));
        let messages = messages.collect::<Result<_, _>>()?;
        Ok(Self { messages, by_name: found.message_by_name, enums: found.enums, methods })
    }

    /// A method of a service, by its full name.
    pub fn method(&self, service: &str, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name == name && method.service == service)
    }

    /// A message by its full name.
    pub fn message(&self, name: &str) -> Option<&Message> {
        self.by_name.get(name).map(|place| &self.messages[*place])
    }

    /// The message that a [`Kind::Message`] means.
    pub fn message_at(&self, place: usize) -> &Message {
        &self.messages[place]
    }

    /// What a method is asked.
    pub fn input(&self, method: &Method) -> &Message {
        &self.messages[method.input]
    }

    /// What a method answers.
    pub fn output(&self, method: &Method) -> &Message {
        &self.messages[method.output]
    }

    /// The name of a value of the enum that a [`Kind::Enum`] means.
    pub fn value_name(&self, place: usize, number: i32) -> Option<&str> {
        let Enum(values) = &self.enums[place];
        values.iter().find(|value| value.1 == number).map(|(name, _)| name.as_str())
    }

    /// The value of that name.
    pub fn value_number(&self, place: usize, name: &str) -> Option<i32> {
        let Enum(values) = &self.enums[place];
        values.iter().find(|value| value.0 == name).map(|(_, number)| *number)
    }
}

impl Found {
    fn enums(&mut self, scope: &str, enums: Vec<proto::Enum>) {
        for each in enums {
            let full = format!("{scope}.{}", each.name);
            self.enum_by_name.insert(full, self.enums.len());
            let values = each.values.into_iter().map(|value| (value.name, value.number));
            self.enums.push(Enum(values.collect()));
        }
    }

    fn messages(&mut self, scope: &str, messages: Vec<proto::Message>) {
        for mut message in messages {
            let full = format!("{scope}.{}", message.name);
            self.enums(&full, std::mem::take(&mut message.enums));
            self.messages(&full, std::mem::take(&mut message.messages));
            self.message_by_name.insert(full.clone(), self.messages.len());
            self.messages.push((full, message));
        }
    }

    /// The place of a message that is named with a dot in front.
    fn message(&self, name: &str) -> Result<usize, SchemaError> {
        let found = self.message_by_name.get(name.trim_start_matches('.'));
        found.copied().ok_or_else(|| SchemaError::Undefined(name.to_owned()))
    }

    fn resolve(&self, name: &str, message: &proto::Message) -> Result<Message, SchemaError> {
        if message.fields.len() > u64::BITS as usize {
            return Err(SchemaError::TooManyFields(name.to_owned()));
        }
        let fields = message.fields.iter().map(|field| {
            Ok(Field {
                number: field.number,
                name: field.name.clone(),
                json_name: field.json_name.clone(),
                kind: self.kind(field)?,
                repeated: field.label == REPEATED,
                oneof: field.oneof,
            })
        });
        Ok(Message { fields: fields.collect::<Result<_, SchemaError>>()? })
    }

    /// The numbers are those of `FieldDescriptorProto.Type`.
    fn kind(&self, field: &proto::Field) -> Result<Kind, SchemaError> {
        Ok(match field.kind {
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            8 => Kind::Bool,
            9 => Kind::String,
            11 => Kind::Message(self.message(&field.type_name)?),
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            14 => {
                let found = self.enum_by_name.get(field.type_name.trim_start_matches('.'));
                Kind::Enum(*found.ok_or_else(|| SchemaError::Undefined(field.type_name.clone()))?)
            }
            other => return Err(SchemaError::Type(field.name.clone(), other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of a new type, or an import that is missing, fails here and not in front of a client.
    #[test]
    fn the_descriptors_are_read() {
        let schema = schema();
        let range = schema.method("etcdserverpb.KV", "Range").unwrap();
        assert!(!range.client_streams && !range.server_streams);
        let watch = schema.method("etcdserverpb.Watch", "Watch").unwrap();
        assert!(watch.client_streams && watch.server_streams);
        let request = schema.input(range);
        let order = request.fields.iter().find(|field| field.name == "sort_order").unwrap();
        let Kind::Enum(order) = order.kind else { panic!("{order:?}") };
        assert_eq!(schema.value_name(order, 2), Some("DESCEND"));
        assert_eq!(schema.value_number(order, "ASCEND"), Some(1));
        assert_eq!((schema.value_name(order, 9), schema.value_number(order, "ascend")), (None, None));
        let member = schema.message("etcdserverpb.Member").unwrap();
        let names: Vec<_> =
            member.fields.iter().map(|field| (field.name.as_str(), field.json_name.as_str())).collect();
        assert_eq!(names[2], ("peerURLs", "peerURLs"));
        let limit = request.fields.iter().find(|field| field.json_name == "minModRevision").unwrap();
        assert_eq!((limit.name.as_str(), limit.number, limit.kind), ("min_mod_revision", 10, Kind::Int64));
    }
}
