//! Decides whether two records are the same one, and whether they are equal. Pure.

use std::hash::{BuildHasher, Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::base::error::{Error, Result};
use crate::base::json::Pointer;
use crate::kafka::sys::Message;

/// The part of a record that identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    Key,
    KeyAndValue,
    Value,
    /// A field of the value as JSON: the content of a string, or any other value as it is written
    /// (`json::Written::text`).
    Field(Pointer),
    /// The whole record: key, value, headers and timestamp. Equal records are counted, not taken for one.
    Record,
}

impl Identity {
    /// Why a record has no identity of this kind. `json` is its value as JSON.
    pub fn why_none(&self, json: Option<&[u8]>) -> &'static str {
        let (Identity::Field(pointer), Some(value)) = (self, json) else { return "no identity" };
        match pointer.find(value) {
            Err(_) => "no identity: the value is not JSON",
            Ok(None) => "no identity: the field is absent or null",
            Ok(Some(_)) => "no identity: the field cannot be read",
        }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Identity::Key => f.write_str("key"),
            Identity::KeyAndValue => f.write_str("key+value"),
            Identity::Value => f.write_str("value"),
            Identity::Field(pointer) => write!(f, "field:{}", pointer.as_str()),
            Identity::Record => f.write_str("record"),
        }
    }
}

impl std::str::FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Identity, String> {
        match text {
            "key" => Ok(Identity::Key),
            "key+value" => Ok(Identity::KeyAndValue),
            "value" => Ok(Identity::Value),
            "record" => Ok(Identity::Record),
            text => match text.strip_prefix("field:") {
                Some(pointer) => Ok(Identity::Field(pointer.parse()?)),
                None => Err(format!(
                    "`{text}` is not an identity; write key, key+value, value, field:/id or record"
                )),
            },
        }
    }
}

/// A keyed hash of a record's identity. It has 128 bits, so that two identities of a run do not collide by chance.
pub(crate) type IdentityHash = [u64; 2];

/// Hashes records with random keys. Each run draws new keys, so nobody can prepare a collision.
#[derive(Clone)]
pub struct Fingers {
    identity: SipHasher13,
    /// Hashes all bytes of each record, three times faster than the other hash does for 350 bytes. Its 64 bits tell
    /// apart records with the same identity and, when topics are compared, records without one.
    content: ahash::RandomState,
}

impl Fingers {
    /// # Errors
    /// [`Error::Failed`] if the system gives no random numbers.
    pub fn new() -> Result<Fingers> {
        let word = || getrandom::u64().map_err(|e| Error::io("the system's random numbers", e));
        Ok(Fingers {
            identity: SipHasher13::new_with_keys(word()?, word()?),
            content: ahash::RandomState::with_seeds(word()?, word()?, word()?, word()?),
        })
    }

    /// `None` if the record has no such identity ([`Identity::why_none`]): its key is null, or it lacks the field. The
    /// hash never covers the timestamp. For [`Identity::Record`], the hash of the content covers it
    /// ([`Fingers::contents`]). `json` is the record's value as JSON; only an identity by a field needs it.
    pub fn identity(
        &self,
        identity: &Identity,
        message: &Message,
        json: Option<&[u8]>,
    ) -> Option<IdentityHash> {
        match identity {
            Identity::Record => {
                let mut hasher = self.identity;
                all_but_time(&mut hasher, message);
                let hash = hasher.finish128();
                Some([hash.h1, hash.h2])
            }
            Identity::Field(_) => self.identity_of(identity, None, json),
            _ => self.identity_of(identity, message.key(), message.value()),
        }
    }

    /// [`Fingers::identity`] of a record with `key`, `value` and no headers.
    pub fn identity_of(
        &self,
        identity: &Identity,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Option<IdentityHash> {
        let mut hasher = self.identity;
        match identity {
            Identity::Key => hasher.write(key?),
            Identity::KeyAndValue | Identity::Record => {
                part(&mut hasher, key);
                part(&mut hasher, value);
            }
            Identity::Value => part(&mut hasher, value),
            Identity::Field(pointer) => {
                let value = pointer.find(value?).ok()??;
                let text = value.text().ok()?;
                // The string "1" must differ from the number 1. Only strings begin with a quote.
                hasher.write(if value.is_string() { b"\"" } else { b"" });
                hasher.write(text.as_bytes());
            }
        }
        let hash = hasher.finish128();
        Some([hash.h1, hash.h2])
    }

    /// Two hashes of key, value and headers: one with the timestamp, and one without it.
    pub fn contents(&self, message: &Message) -> (u64, u64) {
        let mut hasher = self.content.build_hasher();
        all_but_time(&mut hasher, message);
        let loose = hasher.finish();
        hasher.write_i64(message.timestamp().0);
        (hasher.finish(), loose)
    }
}

/// Hashes whole records: key, value, headers and timestamp. With the same key, the hash is the same on every machine and
/// in every version of this program.
#[derive(Clone)]
pub(crate) struct Print(SipHasher13);

impl Print {
    pub(crate) fn new(key: u128) -> Print {
        Print(SipHasher13::new_with_key(&key.to_be_bytes()))
    }

    pub(crate) fn of(&self, message: &Message) -> u128 {
        self.hash(|hasher| {
            all_but_time(hasher, message);
            hasher.write_i64(message.timestamp().0);
        })
    }

    /// The hash of some text.
    pub(crate) fn of_bytes(&self, bytes: &[u8]) -> u128 {
        self.hash(|hasher| hasher.write(bytes))
    }

    fn hash(&self, write: impl FnOnce(&mut LittleEndian)) -> u128 {
        let mut hasher = LittleEndian(self.0);
        write(&mut hasher);
        let hash = hasher.0.finish128();
        u128::from(hash.h1) << 64 | u128::from(hash.h2)
    }
}

/// Writes numbers in one order of bytes. The standard library writes them in that of the processor.
struct LittleEndian(SipHasher13);

impl Hasher for LittleEndian {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    fn write_i64(&mut self, number: i64) {
        self.write(&number.to_le_bytes());
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

fn all_but_time(hasher: &mut impl Hasher, message: &Message) {
    part(hasher, message.key());
    part(hasher, message.value());
    message.for_each_header(|name, value| {
        part(hasher, Some(name));
        part(hasher, value);
    });
}

/// Writes a part after its length, so that two different sequences of parts never write the same bytes. Null and empty
/// differ as well.
fn part(hasher: &mut impl Hasher, bytes: Option<&[u8]>) {
    match bytes {
        None => hasher.write_u64(u64::MAX),
        Some(bytes) => {
            hasher.write_u64(bytes.len() as u64);
            hasher.write(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by another implementation. A change of it would make the files of `verify --summary` worthless.
    #[test]
    fn the_print_of_a_record_never_changes() {
        let hash = Print::new(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f).hash(|hasher| {
            part(hasher, Some(b"key"));
            part(hasher, None);
            part(hasher, Some(b"name"));
            part(hasher, Some(b""));
            hasher.write_i64(1_618_398_000_123);
        });
        assert_eq!(format!("{hash:032x}"), "f11b076b4706869805a3456dad4db630");
    }
}
