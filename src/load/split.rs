//! Splits text into JSON documents, at line ends or at the commas of the outermost array. It does not parse them, so that
//! one malformed document does not hide the next.
//!
//! Joined files give the same documents as the single files. A byte order mark at the beginning of a line is skipped,
//! because a file began there. A line `{…}{…}` holds two documents, because the first file had no newline at its end. An
//! object ends at its bracket, whatever follows, so there is no other way to read such a line.

use std::io::{self, BufRead};

use serde::de::IgnoredAny;

/// The largest document that is held in memory, in bytes. A broker takes 1 MB by default.
const LARGEST: usize = 64 << 20;
const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];
const MORE: &str = "there is more text after the array; if files were joined, load each of them by itself";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Lines,
    Array,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A line without its ending, or an element without the blanks around it. It begins on line `line`, from 1.
    Document {
        bytes: &'a [u8],
        line: u64,
    },
    End,
    /// The rest of the text cannot be split.
    Broken {
        line: u64,
        why: &'static str,
    },
}

/// The documents of a text.
pub(super) struct Splitter<R> {
    text: R,
    layout: Layout,
    /// The line of the next byte, from 1.
    line: u64,
    document: Vec<u8>,
    /// For lines: the blanks with which the first line begins, if they were consumed already.
    blanks: Vec<u8>,
    /// For lines: the place in `document` at which its next document begins, if the line holds another.
    rest: Option<usize>,
    /// For an array: whether an element was read, and whether the array's end was read.
    began: bool,
    ended: bool,
}

/// Why an array's element ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Comma,
    Bracket,
    EndOfText,
    TooLarge,
}

/// The state of an element before its next byte.
#[derive(Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl<R: BufRead> Splitter<R> {
    /// Skips a byte order mark. The first character that is not blank tells the layout.
    ///
    /// # Errors
    /// Those of the text's reader.
    pub(super) fn new(mut text: R) -> io::Result<Splitter<R>> {
        if text.fill_buf()?.starts_with(&BOM) {
            text.consume(BOM.len());
        }
        let mut splitter = Splitter {
            text,
            layout: Layout::Lines,
            line: 1,
            document: Vec::new(),
            blanks: Vec::new(),
            rest: None,
            began: false,
            ended: false,
        };
        if splitter.begins_with_bracket()? {
            splitter.skip_blanks()?;
            splitter.text.consume(1);
            splitter.layout = Layout::Array;
        }
        Ok(splitter)
    }

    /// Consumes only whole buffers of blanks, and keeps those of the first line that holds more.
    fn begins_with_bracket(&mut self) -> io::Result<bool> {
        loop {
            let chunk = self.text.fill_buf()?;
            if let Some(first) = chunk.iter().find(|byte| !byte.is_ascii_whitespace()) {
                return Ok(*first == b'[');
            }
            let (length, lines) = (chunk.len(), newlines(chunk));
            if length == 0 {
                return Ok(false);
            }
            self.line += lines;
            if lines > 0 {
                self.blanks.clear();
            }
            let of_line = chunk.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            // A line that is too large needs no more.
            if self.blanks.len() <= LARGEST {
                self.blanks.extend_from_slice(of_line);
            }
            self.text.consume(length);
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn into_inner(self) -> R {
        self.text
    }

    /// # Errors
    /// Those of the text's reader.
    pub(super) fn next(&mut self) -> io::Result<Next<'_>> {
        match self.layout {
            Layout::Lines => self.next_line(),
            Layout::Array => self.next_element(),
        }
    }

    fn next_line(&mut self) -> io::Result<Next<'_>> {
        let begin = match self.rest.take() {
            Some(begin) => begin,
            None => loop {
                self.document.clear();
                self.document.append(&mut self.blanks);
                let mut limited = io::Read::take(&mut self.text, LARGEST as u64 + 1);
                if limited.read_until(b'\n', &mut self.document)? == 0 {
                    return Ok(Next::End);
                }
                if self.document.len() > LARGEST {
                    return Ok(too_large(self.line));
                }
                self.line += 1;
                let begin = marks(&self.document);
                if !self.document[begin..].trim_ascii().is_empty() {
                    break begin;
                }
            },
        };
        let text = without_ending(&self.document[begin..]);
        let joint = joint(text);
        self.rest = joint.map(|(_, next)| begin + next);
        Ok(Next::Document { bytes: joint.map_or(text, |(end, _)| &text[..end]), line: self.line - 1 })
    }

    fn next_element(&mut self) -> io::Result<Next<'_>> {
        let first = self.skip_blanks()?;
        let line = self.line;
        if self.ended {
            return Ok(match first {
                None => Next::End,
                Some(_) => Next::Broken { line, why: MORE },
            });
        }
        if first == Some(b']') && !self.began {
            self.text.consume(1);
            self.ended = true;
            return self.next_element();
        }
        self.began = true;
        match self.read_element()? {
            Stop::Comma => {}
            Stop::Bracket => self.ended = true,
            Stop::EndOfText => {
                return Ok(Next::Broken { line, why: "the array has no end; the file was cut off" });
            }
            Stop::TooLarge => return Ok(too_large(line)),
        }
        Ok(Next::Document { bytes: self.document.trim_ascii(), line })
    }

    /// Reads the element into `document`, and skips the byte that ends it.
    fn read_element(&mut self) -> io::Result<Stop> {
        self.document.clear();
        let mut nesting = Nesting::default();
        loop {
            let chunk = self.text.fill_buf()?;
            if chunk.is_empty() {
                return Ok(Stop::EndOfText);
            }
            let stop = chunk.iter().position(|byte| nesting.ends_at(*byte));
            let taken = &chunk[..stop.unwrap_or(chunk.len())];
            self.line += newlines(taken);
            self.document.extend_from_slice(taken);
            if self.document.len() > LARGEST {
                return Ok(Stop::TooLarge);
            }
            let ending = stop.map(|at| chunk[at]);
            let consumed = taken.len() + usize::from(ending.is_some());
            self.text.consume(consumed);
            match ending {
                Some(b',') => return Ok(Stop::Comma),
                Some(_) => return Ok(Stop::Bracket),
                None => {}
            }
        }
    }

    /// Skips blanks. Returns the next byte, which stays unread.
    fn skip_blanks(&mut self) -> io::Result<Option<u8>> {
        loop {
            let chunk = self.text.fill_buf()?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let blanks = chunk.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let next = chunk.get(blanks).copied();
            self.line += newlines(&chunk[..blanks]);
            self.text.consume(blanks);
            if next.is_some() {
                return Ok(next);
            }
        }
    }
}

impl Nesting {
    /// Whether `byte` is the comma or bracket after the element. Otherwise it belongs to the element.
    fn ends_at(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

/// The length in bytes of the byte order marks at the beginning.
fn marks(text: &[u8]) -> usize {
    text.chunks_exact(BOM.len()).take_while(|chunk| *chunk == BOM).count() * BOM.len()
}

/// The length in bytes of the blanks and byte order marks at the beginning.
fn gap(text: &[u8]) -> usize {
    let blanks = text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    match marks(&text[blanks..]) {
        0 => blanks,
        marks => blanks + marks + gap(&text[blanks + marks..]),
    }
}

/// The end of a line's first object and the beginning of the next, if the line holds another. The rest after the last
/// whole object is a document too, but a malformed one.
fn joint(line: &[u8]) -> Option<(usize, usize)> {
    let is_next = |end: usize| line.get(end + gap(&line[end..])) == Some(&b'{');
    // A quick check, which rules out most lines without the parser.
    let mut ends = line.iter().enumerate().filter(|(_, byte)| **byte == b'}').map(|(at, _)| at + 1);
    if !line.trim_ascii_start().starts_with(b"{") || !ends.any(is_next) {
        return None;
    }
    let mut documents = serde_json::Deserializer::from_slice(line).into_iter::<IgnoredAny>();
    documents.next()?.ok()?;
    let end = documents.byte_offset();
    is_next(end).then(|| (end, end + gap(&line[end..])))
}

fn without_ending(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn too_large(line: u64) -> Next<'static> {
    Next::Broken { line, why: "a document of more than 64 MiB begins here; no broker would accept it" }
}
