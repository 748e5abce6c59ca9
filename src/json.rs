//! A place in a JSON document.

use std::str::FromStr;

use serde_json::Value;

/// A JSON pointer (RFC 6901); a bare name `id` stands for `/id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// The value there; `None` where the document is not JSON, has nothing there, or null.
    pub fn find(&self, document: &[u8]) -> Option<Value> {
        self.take(serde_json::from_slice(document).ok()?)
    }

    pub fn take(&self, mut document: Value) -> Option<Value> {
        document.pointer_mut(&self.0).map(Value::take).filter(|value| !value.is_null())
    }

    pub fn get<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        document.pointer(&self.0).filter(|value| !value.is_null())
    }

    /// The pointer to a member of the document itself.
    pub fn member(name: &str) -> Pointer {
        Pointer(format!("/{}", name.replace('~', "~0").replace('/', "~1")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Pointer, String> {
        match text {
            "" => Err("name a field, as in `/id`".into()),
            text if text.starts_with('/') => Ok(Pointer(text.to_owned())),
            name => Ok(Pointer::member(name)),
        }
    }
}

/// A JSON value as the bytes of a key: text as it is, anything else in its compact JSON form.
pub fn key_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    }
}
