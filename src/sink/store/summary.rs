//! Finds the fields that are worth a breakdown, in a sample of values. Pure.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

/// The number of values in a sample.
pub(super) const SAMPLE: usize = 1000;
/// A longer value, in bytes, is not in the sample.
pub(super) const SAMPLE_BYTES: usize = 10_000;
/// A field's value that is longer, in bytes, is not a category.
pub(super) const LONGEST: usize = 256;

/// The top-level fields of a JSON object that are strings, numbers or booleans, as text.
pub(super) fn scalars(text: &str) -> Vec<(String, String)> {
    let Ok(fields) = serde_json::from_str::<Map<String, Value>>(text) else { return Vec::new() };
    let scalar = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    };
    let pairs = fields.into_iter().filter_map(|(name, value)| Some((name, scalar(value)?)));
    pairs.filter(|(_, value)| value.len() <= LONGEST).collect()
}

/// The fields whose values repeat: they have at least twice as many records as values. Those with the fewest values come
/// first.
pub(super) fn repeating(sample: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let mut seen: HashMap<String, (u64, HashSet<String>)> = HashMap::new();
    for (name, value) in sample {
        let (records, values) = seen.entry(name).or_default();
        *records += 1;
        values.insert(value);
    }
    let mut fields: Vec<(usize, String)> = seen
        .into_iter()
        .filter(|(_, (records, values))| values.len() as u64 * 2 <= *records)
        .map(|(name, (_, values))| (values.len(), name))
        .collect();
    fields.sort();
    fields.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_repeat_fewest_values_first() {
        let values = (0..100).map(|n| {
            format!(
                r#"{{"id":"{n}","user":{},"action":"{}","at":{{}},"none":null}}"#,
                n % 30,
                ["play", "stop"][n % 2]
            )
        });
        let sample = values.flat_map(|value| scalars(&value));
        assert_eq!(repeating(sample), ["action", "user"]);
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        assert!(scalars("[1]").is_empty() && scalars("\"x\"").is_empty() && scalars("no").is_empty());
    }
}
