//! Reads values that name their schema in a Schema Registry.
//!
//! Such a value begins with a zero byte and the id of its schema, four bytes, big-endian; the rest is Avro, Protobuf or
//! JSON ("Wire Format" in the documentation of Confluent's Schema Registry). This gives the value as JSON, so that all
//! other code reads a field in one way. It is only for reading: a copy has the bytes of the original.

mod avro;
mod input;
mod protobuf;
mod registry;

use std::borrow::Cow;
use std::sync::Arc;

use self::avro::Avro;
use self::protobuf::Protobuf;
use self::registry::{OPTION, Registry, VARIABLE};
use crate::base::error::Result;

/// A value as JSON, or why it cannot be read.
pub(crate) type Decoded<'v> = std::result::Result<Cow<'v, [u8]>, String>;

/// The Schema Registry that a command line names, if it names one.
#[derive(Clone, Default)]
pub struct Schemas(Option<Arc<Registry>>);

/// The first byte of a value that names its schema. No JSON begins with it.
const MAGIC: u8 = 0;

impl Schemas {
    /// The registry at `url`: `http[s]://[USER:PASSWORD@]HOST:PORT[/PATH][?ca=FILE]`. This asks it nothing yet.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the URL is not valid, or would send a password in clear text.
    pub fn at(url: &str) -> Result<Schemas> {
        Ok(Schemas(Some(Arc::new(Registry::new(url)?))))
    }

    /// Refuses a URL with a password in a flag, because the process list shows flags.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the URL has a password, or is not valid: then a part of it may
    /// be a password.
    pub fn check_flag(url: &str) -> Result<()> {
        registry::parse(url)?.check_flag(OPTION, VARIABLE)
    }

    /// The registry's URL without secrets.
    pub(crate) fn shown(&self) -> Option<String> {
        self.0.as_ref().map(|registry| registry.shown())
    }

    /// The registry's URL for a command line; `None` if the URL has a password, which comes from the environment.
    pub(crate) fn flag(&self) -> Option<&str> {
        self.0.as_ref()?.flag()
    }

    /// The value as JSON, if it names a schema and there is a registry. Any other value is returned as it is.
    ///
    /// # Errors
    /// [`Error::Restart`](crate::base::error::Error::Restart) if the registry does not answer,
    /// [`Error::Refused`](crate::base::error::Error::Refused) if it rejects this user or is something else. A schema that the
    /// registry does not know, and a value that does not fit its schema, are no errors but reasons.
    pub(crate) fn json<'v>(&self, value: &'v [u8]) -> Result<Decoded<'v>> {
        let (Some(registry), Some((&MAGIC, rest))) = (&self.0, value.split_first()) else {
            return Ok(Ok(Cow::Borrowed(value)));
        };
        let Some((id, rest)) = rest.split_first_chunk() else {
            return Ok(Err("the value ends within the id of its schema".to_owned()));
        };
        // The id is a signed integer, so a registry need not take a larger one for a question.
        let id = u32::from_be_bytes(*id);
        if i32::try_from(id).is_err() {
            return Ok(Err(format!("no registry has a schema {id}")));
        }
        Ok(match &*registry.schema(id)? {
            Ok(schema) => {
                schema.json(rest).map_err(|why| format!("the value cannot be read by schema {id}: {why}"))
            }
            Err(why) => Err(why.clone()),
        })
    }
}

/// What a schema says about the bytes after its id.
enum Schema {
    Avro(Avro),
    Protobuf(Protobuf),
    /// The bytes are JSON. Whether they fit the schema does not matter here.
    Json,
}

/// A schema as the registry keeps it.
struct Source {
    /// `AVRO`, `PROTOBUF` or `JSON`.
    kind: String,
    text: String,
    /// The names and texts of the schemas that it refers to, and that those refer to.
    references: Vec<(String, String)>,
}

impl Schema {
    fn parse(source: &Source) -> std::result::Result<Schema, String> {
        match source.kind.as_str() {
            "AVRO" => Avro::parse(&source.text, &source.references).map(Schema::Avro),
            "PROTOBUF" => Protobuf::parse(&source.text, &source.references).map(Schema::Protobuf),
            "JSON" => Ok(Schema::Json),
            kind => Err(format!("its type {kind} is neither AVRO nor PROTOBUF nor JSON")),
        }
    }

    fn json<'v>(&self, bytes: &'v [u8]) -> Decoded<'v> {
        match self {
            Schema::Avro(schema) => schema.json(bytes).map(Cow::Owned),
            Schema::Protobuf(schema) => schema.json(bytes).map(Cow::Owned),
            Schema::Json => Ok(Cow::Borrowed(bytes)),
        }
    }
}
