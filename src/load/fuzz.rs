//! What must hold whatever bytes a file has. See `src/fuzz.rs`.

use std::io::{BufReader, Cursor};

use super::fields::Fields;
use super::guess::Guess;
use super::split::{Next, Splitter};

/// See [`crate::fuzz::documents`].
pub(crate) fn documents(data: &[u8]) {
    let Some((size, text)) = data.split_first() else { return };
    let whole = split(text, text.len().max(1));
    // A byte order mark is three bytes long.
    assert_eq!(whole, split(text, usize::from(*size).max(3)), "other buffers give other documents");
    let mut guess = Guess::default();
    let documents = whole.iter().filter_map(|part| part.as_ref().ok());
    let is_taken = documents.clone().take(20).all(|(document, _)| guess.look_at(document).is_ok());
    if let (true, Ok(key), Ok(time)) = (is_taken, guess.key(), guess.time()) {
        let fields = Fields::new(key, time);
        documents.for_each(|(document, _)| drop(fields.read(document)));
    }
}

/// The documents and their lines, and the text that cannot be split, with its line.
type Part = Result<(Vec<u8>, u64), (&'static str, u64)>;

fn split(text: &[u8], buffer: usize) -> Vec<Part> {
    let reader = BufReader::with_capacity(buffer, Cursor::new(text));
    let mut splitter = Splitter::new(reader).expect("memory cannot fail");
    let mut found = Vec::new();
    loop {
        match splitter.next().expect("memory cannot fail") {
            Next::End => return found,
            Next::Document { bytes, line } => found.push(Ok((bytes.to_vec(), line))),
            Next::Broken { line, why } => {
                found.push(Err((why, line)));
                return found;
            }
        }
    }
}
