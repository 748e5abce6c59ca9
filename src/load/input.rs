//! Reads a file as a stream of JSON documents. It finds out from the content whether the file is gzipped, and whether
//! it holds JSON Lines or an array.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::bufread::GzDecoder;
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use super::foreign;
use super::split::{Layout, Next, Splitter};
use crate::base::error::{Error, Reason, Result};

const BUFFER: usize = 256 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How many first bytes of the content tell its format.
const HEAD: u64 = 8;

/// An open file that can be read several times, each time from its beginning.
pub(super) struct Input {
    path: PathBuf,
    file: File,
    state: State,
}

/// Shows whether a file was changed.
#[derive(Debug, PartialEq, Eq)]
struct State {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl State {
    fn of(metadata: &Metadata) -> State {
        State { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl Input {
    /// # Errors
    /// [`Error::Usage`] if the path is not a readable regular file, [`Error::Refused`] if the file is empty.
    pub(super) fn open(path: &Path) -> Result<Input> {
        let shown = path.display();
        let unreadable = |err: io::Error| Error::usage(format!("{shown}: {err}"));
        // Check before opening: opening a pipe would wait for its writer.
        let metadata = path.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(Error::usage(format!("{shown} is a directory; name one file in it")));
        }
        if !metadata.is_file() {
            return Err(Error::usage(format!(
                "{shown} is not a regular file: the input is read twice, and a pipe or a terminal can be read only once; \
                 write it to a file first"
            )));
        }
        let file = File::open(path).map_err(unreadable)?;
        let state = State::of(&file.metadata().map_err(unreadable)?);
        if state.bytes == 0 {
            return Err(Error::refused(format!("{shown} is empty")).because(Reason::InvalidRecords));
        }
        Ok(Input { path: path.to_owned(), file, state })
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Bytes on disk, compressed or not.
    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes
    }

    /// The file's documents from its beginning. The bar advances over the file's own bytes.
    ///
    /// # Errors
    /// [`Error::Refused`] if the file cannot be read, is a broken gzip file, or is not UTF-8 text.
    pub(super) fn documents(&self, bar: &ProgressBar) -> Result<Documents> {
        self.documents_of(bar, None)
    }

    /// Like [`Input::documents`], and digests everything that is read, for [`Documents::digest`].
    ///
    /// # Errors
    /// As [`Input::documents`].
    pub(super) fn digested_documents(&self, bar: &ProgressBar) -> Result<Documents> {
        self.documents_of(bar, Some(Sha256::new()))
    }

    fn documents_of(&self, bar: &ProgressBar, digest: Option<Sha256>) -> Result<Documents> {
        let open = || -> io::Result<Documents> {
            let mut file = self.file.try_clone()?;
            file.rewind()?;
            let mut raw = BufReader::with_capacity(BUFFER, bar.wrap_read(file));
            let is_gzip = raw.fill_buf()?.starts_with(&GZIP);
            let mut content: Box<dyn Read> =
                if is_gzip { Box::new(Members(Some(GzDecoder::new(raw)))) } else { Box::new(raw) };
            let mut head = Vec::new();
            content.by_ref().take(HEAD).read_to_end(&mut head)?;
            if let Some(what) = foreign::format(&head, is_gzip) {
                return Err(io::Error::new(io::ErrorKind::Unsupported, what.told(&self.path)));
            }
            let content = Box::new(io::Cursor::new(head).chain(content));
            Documents::new(self.path.clone(), Tap { content, digest })
        };
        open().map_err(|err| unreadable(&self.path, &err))
    }

    /// # Errors
    /// [`Error::Failed`] if the file changed after it was opened.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|err| Error::io(self.name(), err))?;
        if State::of(&now) == self.state {
            return Ok(());
        }
        Err(Error::failed(format!(
            "{} changed while it was read; lines that were already loaded are from the old content; load a copy that \
             nobody writes to, into a new topic",
            self.name()
        )))
    }
}

/// One line of JSON Lines, or one element of an array. It may not be valid JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    pub bytes: &'a [u8],
    pub place: Place,
}

/// The place of a document in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of documents before it. Blank lines do not count.
    pub index: u64,
    /// The line on which it begins, from 1.
    pub line: u64,
    pub in_array: bool,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.in_array {
            true => write!(f, "element {} (line {})", self.index + 1, self.line),
            false => write!(f, "line {}", self.line),
        }
    }
}

/// The documents of an [`Input`]. It holds one at a time in memory.
pub(super) struct Documents {
    path: PathBuf,
    splitter: Splitter<BufReader<Tap>>,
    passed: u64,
}

impl Documents {
    fn new(path: PathBuf, content: Tap) -> io::Result<Documents> {
        let splitter = Splitter::new(BufReader::with_capacity(BUFFER, content))?;
        Ok(Documents { path, splitter, passed: 0 })
    }

    /// # Errors
    /// [`Error::Refused`] if the rest of the file cannot be read: a broken gzip file, an array without its end, or a
    /// document that no broker would accept.
    pub(super) fn next(&mut self) -> Result<Option<Document<'_>>> {
        let in_array = self.splitter.layout() == Layout::Array;
        match self.splitter.next() {
            Ok(Next::Document { bytes, line }) => {
                let place = Place { index: self.passed, line, in_array };
                self.passed += 1;
                Ok(Some(Document { bytes, place }))
            }
            Ok(Next::End) => Ok(None),
            Ok(Next::Broken { line, why }) => {
                Err(Error::refused(format!("{}, line {line}: {why}", self.path.display()))
                    .because(Reason::InvalidRecords))
            }
            Err(err) => Err(unreadable(&self.path, &err)),
        }
    }

    /// Documents read so far.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// SHA-256, in hex, of the decompressed content that was read so far.
    pub(super) fn digest(self) -> Option<String> {
        let digest = self.splitter.into_inner().into_inner().digest?;
        Some(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn unreadable(path: &Path, err: &io::Error) -> Error {
    let shown = path.display();
    Error::refused(match err.kind() {
        io::ErrorKind::UnexpectedEof => {
            format!("{shown} is a truncated gzip file; fetch the whole file again")
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            format!("{shown} is a broken gzip file ({err}); fetch it again")
        }
        io::ErrorKind::Unsupported => err.to_string(),
        _ => format!("{shown} cannot be read: {err}"),
    })
}

/// Reads all members of a gzip file. Zeros after a member are padding, as for `gzip`.
struct Members<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.0 else { return Ok(0) };
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(mut raw) = self.0.take().map(GzDecoder::into_inner) else { return Ok(0) };
            match skip_zeros(&mut raw)? {
                None => return Ok(0),
                Some(first) if first == GZIP[0] => self.0 = Some(GzDecoder::new(raw)),
                Some(_) => {
                    return Err(io::Error::other(
                        "after its last gzip member there is something that is not gzip; to get the content before that, \
                         run gzip -dc FILE > OTHER",
                    ));
                }
            }
        }
    }
}

/// Skips zeros. Returns the next byte, which stays unread.
fn skip_zeros(raw: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let chunk = raw.fill_buf()?;
        let (zeros, length) = (chunk.iter().take_while(|byte| **byte == 0).count(), chunk.len());
        let next = chunk.get(zeros).copied();
        raw.consume(zeros);
        if next.is_some() || length == 0 {
            return Ok(next);
        }
    }
}

/// Digests everything that is read through it.
struct Tap {
    content: Box<dyn Read>,
    digest: Option<Sha256>,
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        if let Some(digest) = &mut self.digest {
            digest.update(&buffer[..read]);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(content).expect("written");
        file
    }

    fn read(content: &[u8]) -> Result<Vec<(String, String)>> {
        let file = file(content);
        let input = Input::open(file.path())?;
        let mut documents = input.documents(&ProgressBar::hidden())?;
        let mut all = Vec::new();
        while let Some(document) = documents.next()? {
            all.push((String::from_utf8_lossy(document.bytes).into_owned(), document.place.to_string()));
        }
        Ok(all)
    }

    fn texts(content: &[u8]) -> Vec<String> {
        read(content).expect("readable").into_iter().map(|(text, _)| text).collect()
    }

    #[rstest]
    #[case::lines(b"{\"a\":1}\n{\"a\":2}\n")]
    #[case::no_last_newline(b"{\"a\":1}\n{\"a\":2}")]
    #[case::crlf(b"{\"a\":1}\r\n{\"a\":2}\r\n")]
    #[case::blank_lines(b"\n{\"a\":1}\n \t\n\r\n{\"a\":2}\n\n")]
    #[case::bom(b"\xef\xbb\xbf{\"a\":1}\n{\"a\":2}\n")]
    #[case::array(b"[{\"a\":1},{\"a\":2}]")]
    #[case::array_over_lines(b"\xef\xbb\xbf \n[\n  {\"a\":1} ,\r\n  {\"a\":2}\n]\n\n")]
    fn documents_plain_and_gzipped(#[case] content: &[u8]) {
        let expected = ["{\"a\":1}", "{\"a\":2}"];
        assert_eq!(texts(content), expected);
        assert_eq!(texts(&gzip(content)), expected);
        let (head, tail) = content.split_at(9);
        assert_eq!(texts(&[gzip(head), gzip(tail)].concat()), expected, "two gzip members");
    }

    #[rstest]
    #[case::lines(b"{}\n\n{}\n", &["line 1", "line 3"])]
    #[case::array(b"[\n{},\n\n{}]", &["element 1 (line 2)", "element 2 (line 4)"])]
    #[case::no_json_lines(b"a\nb", &["line 1", "line 2"])]
    fn places(#[case] content: &[u8], #[case] expected: &[&str]) {
        let places: Vec<_> = read(content).expect("readable").into_iter().map(|(_, place)| place).collect();
        assert_eq!(places, expected);
    }

    #[test]
    fn what_is_in_strings_does_not_split() {
        let array = br#"[{"a":"],[\"}{\\"},[1,[2,3]],"x,y", 4 ,{"b":{}}]"#;
        assert_eq!(texts(array), [r#"{"a":"],[\"}{\\"}"#, "[1,[2,3]]", r#""x,y""#, "4", r#"{"b":{}}"#]);
    }

    #[rstest]
    #[case::open_array(b"[{\"a\":1},", "line 1: the array has no end")]
    #[case::open_element(b"[{\"a\":1", "line 1: the array has no end")]
    #[case::open_string(b"[{\"a\":\"1}]\n", "the array has no end")]
    #[case::text_after_array(b"[1]\n[2]", "line 2: there is more text after the array; if files were joined")]
    fn broken_arrays(#[case] content: &[u8], #[case] says: &str) {
        let error = read(content).expect_err("refused");
        assert!(matches!(error, Error::Refused(_)), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn an_empty_element_is_a_document_that_is_no_json() {
        assert_eq!(texts(b"[1,,2]"), ["1", "", "2"]);
        assert_eq!(texts(b"[1,]"), ["1", ""]);
        assert!(texts(b"[ ]").is_empty());
    }

    #[test]
    fn a_truncated_gzip_file_is_refused() {
        let content: Vec<u8> = (0..9000u32).flat_map(|n| format!("{{\"a\":{n}}}\n").into_bytes()).collect();
        let whole = gzip(&content);
        for length in [5, 100, whole.len() / 2, whole.len() - 1] {
            let error = read(&whole[..length]).expect_err("refused");
            assert!(error.to_string().contains("truncated gzip"), "{error}");
        }
        let mut broken = whole.clone();
        let middle = broken.len() / 2;
        broken[middle] ^= 0x55;
        assert!(matches!(read(&broken), Err(Error::Refused(_))));
    }

    #[test]
    fn zeros_behind_a_gzip_member_are_padding_and_nothing_else_is() {
        let (one, two) = (gzip(b"{\"a\":1}\n"), gzip(b"{\"a\":2}\n"));
        for zeros in [1, 511, BUFFER, BUFFER + 9] {
            let zeros = vec![0; zeros];
            assert_eq!(texts(&[one.as_slice(), &zeros].concat()), ["{\"a\":1}"]);
            let between = [one.as_slice(), &zeros, &two, &zeros].concat();
            assert_eq!(texts(&between), ["{\"a\":1}", "{\"a\":2}"]);
            for behind in [b"x".as_slice(), b"<html>", &[0xff; 20]] {
                let error = read(&[one.as_slice(), &zeros, behind].concat()).expect_err("refused");
                assert!(error.to_string().contains("after its last gzip member"), "{error}");
            }
        }
    }

    #[rstest]
    #[case::utf_16_le(b"\xff\xfe{\0}\0", "UTF-16", "iconv -f UTF-16LE -t UTF-8 ")]
    #[case::utf_16_be(b"\xfe\xff\0{\0}", "UTF-16", "iconv -f UTF-16BE -t UTF-8 ")]
    #[case::utf_16_le_without_mark(b"{\0\"\0i\0", "UTF-16", "iconv -f UTF-16LE -t UTF-8 ")]
    #[case::utf_16_be_without_mark(b"\0[\0{\0", "UTF-16", "iconv -f UTF-16BE -t UTF-8 ")]
    #[case::utf_32_le(b"\xff\xfe\0\0{\0\0\0", "UTF-32", "iconv -f UTF-32LE -t UTF-8 ")]
    #[case::utf_32_be_without_mark(b"\0\0\0{\0\0\0}", "UTF-32", "iconv -f UTF-32BE -t UTF-8 ")]
    #[case::zstd(b"\x28\xb5\x2f\xfd\x04XY", "compressed by zstd", "zstd -dc ")]
    #[case::bzip2(b"BZh91AY&SY", "compressed by bzip2", "bzip2 -dc ")]
    #[case::xz(b"\xfd7zXZ\0\0", "compressed by xz", "xz -dc ")]
    #[case::lz4(b"\x04\x22\x4d\x18\x64", "compressed by lz4", "lz4 -dc ")]
    #[case::zip(b"PK\x03\x04\x14\0", "a zip archive", "unzip -p ")]
    fn what_is_no_utf_8_text_is_named(#[case] content: &[u8], #[case] is: &str, #[case] way_out: &str) {
        for (stored, is_gzip) in [(content.to_vec(), false), (gzip(content), true)] {
            let error = read(&stored).expect_err("refused");
            assert!(matches!(error, Error::Refused(_)));
            assert!(error.to_string().contains(is) && error.to_string().contains(way_out), "{error}");
            assert_eq!(error.to_string().contains("gzip -dc"), is_gzip, "{error}");
        }
        let error = read(&gzip(&gzip(b"{}"))).expect_err("refused");
        assert!(error.to_string().contains("compressed by gzip twice"), "{error}");
    }

    /// Joined files split into the documents that each file had.
    #[rstest]
    #[case::no_newline(b"{\"a\":1}{\"b\":\"}{\"}\n{}{}", &["{\"a\":1}", "{\"b\":\"}{\"}", "{}", "{}"])]
    #[case::a_mark(b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}\n \n\xef\xbb\xbf\n\xef\xbb\xbf\xef\xbb\xbf{}", &["{}", "{}", "{}"])]
    #[case::both(b"{\"a\":1} \xef\xbb\xbf {\"b\":2}\r\n", &["{\"a\":1}", "{\"b\":2}"])]
    #[case::blanks(b"{} {}", &["{}", "{}"])]
    #[case::in_a_string(b"{\"a\":\"}{\"}", &["{\"a\":\"}{\"}"])]
    #[case::cut_behind(b"{}{\"a\":", &["{}", "{\"a\":"])]
    #[case::malformed_first(b"{\"a\":}{}", &["{\"a\":}{}"])]
    #[case::no_object_behind(b"{}5\n{} x\n5{}\n{},{}", &["{}5", "{} x", "5{}", "{},{}"])]
    fn joined_files(#[case] content: &[u8], #[case] expected: &[&str]) {
        assert_eq!(texts(content), expected);
    }

    #[test]
    fn no_file_to_read() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in [folder.path().to_owned(), folder.path().join("absent"), "/dev/null".into()] {
            assert!(matches!(Input::open(&path), Err(Error::Usage(_))));
        }
        assert!(matches!(Input::open(file(b"").path()), Err(Error::Refused(_))));
    }

    #[test]
    fn the_digest_is_of_the_content() {
        let content = b"{\"a\":1}\n";
        let digest = |stored: &[u8]| {
            let file = file(stored);
            let input = Input::open(file.path()).expect("opens");
            let mut documents = input.digested_documents(&ProgressBar::hidden()).expect("reads");
            while documents.next().expect("reads").is_some() {}
            documents.digest().expect("digested")
        };
        assert_eq!(digest(content), digest(&gzip(content)));
        assert_eq!(digest(content), format!("{:x}", Sha256::digest(content)));
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let mut file = file(b"{}\n");
        let input = Input::open(file.path()).expect("opens");
        assert!(input.check_unchanged().is_ok());
        file.write_all(b"{}\n").expect("written");
        assert!(matches!(input.check_unchanged(), Err(Error::Failed(_))));
    }

    proptest! {
        #[test]
        fn never_panics(content in proptest::collection::vec(any::<u8>(), 1..200)) {
            let _ = read(&content);
        }

        #[test]
        fn an_array_splits_into_its_elements(elements in proptest::collection::vec(".{0,12}", 0..8)) {
            let values: Vec<String> =
                elements.iter().map(|text| serde_json::json!({ text: [text, 1] }).to_string()).collect();
            let array = format!("[ {} ]", values.join(" , "));
            prop_assert_eq!(texts(array.as_bytes()), values);
        }
    }
}
