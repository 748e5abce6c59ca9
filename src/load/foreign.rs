//! Recognizes files that are not JSON in UTF-8 by their first bytes, so that the error can name the format and how to
//! convert it. Pure.

use std::path::Path;

/// A format that this program does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    is: &'static str,
    /// The command that converts it to text in UTF-8.
    command: &'static str,
    in_gzip: bool,
}

/// First bytes, from the formats' own descriptions: RFC 8878 (zstd), RFC 1952 (gzip), the LZ4 frame format, the .xz file
/// format, PKWARE's APPNOTE (zip), and the file(1) magic for bzip2 and 7z. Of Unicode's byte order marks, the longer ones
/// come first, since they begin with a shorter one.
const FIRST_BYTES: &[(&[u8], &str, &str)] = &[
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "zstd -dc"),
    (b"BZh", "compressed by bzip2", "bzip2 -dc"),
    (b"\xfd7zXZ\0", "compressed by xz", "xz -dc"),
    (b"\x04\x22\x4d\x18", "compressed by lz4", "lz4 -dc"),
    (b"\x1f\x8b", "compressed by gzip twice", "gzip -dc"),
    (b"PK\x03\x04", "a zip archive", "unzip -p"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x -so"),
    (b"\xff\xfe\0\0", "text in UTF-32", "iconv -f UTF-32LE -t UTF-8"),
    (b"\0\0\xfe\xff", "text in UTF-32", "iconv -f UTF-32BE -t UTF-8"),
    (b"\xff\xfe", "text in UTF-16", "iconv -f UTF-16LE -t UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "iconv -f UTF-16BE -t UTF-8"),
];

/// `head` is the beginning of the content; `in_gzip` says that the content was compressed.
pub(super) fn format(head: &[u8], in_gzip: bool) -> Option<Format> {
    let known = FIRST_BYTES.iter().find(|(bytes, ..)| head.starts_with(bytes));
    let (is, command) = known.map(|(_, is, command)| (*is, *command)).or_else(|| without_mark(head))?;
    Some(Format { is, command, in_gzip })
}

/// JSON begins with ASCII characters and has no NUL, so the places of zeros tell the encoding (RFC 4627, section 3).
fn without_mark(head: &[u8]) -> Option<(&'static str, &'static str)> {
    match head.first_chunk::<4>()?.map(|byte| byte != 0) {
        [true, false, false, false] => Some(("text in UTF-32", "iconv -f UTF-32LE -t UTF-8")),
        [false, false, false, true] => Some(("text in UTF-32", "iconv -f UTF-32BE -t UTF-8")),
        [true, false, true, false] => Some(("text in UTF-16", "iconv -f UTF-16LE -t UTF-8")),
        [false, true, false, true] => Some(("text in UTF-16", "iconv -f UTF-16BE -t UTF-8")),
        _ => None,
    }
}

impl Format {
    /// A sentence that names the format, and how to convert the file.
    pub(super) fn told(self, path: &Path) -> String {
        let Format { is, command, in_gzip } = self;
        let file = path.display();
        let (what, command) = match (in_gzip, command) {
            (false, command) => ("", format!("{command} {file}")),
            (true, "unzip -p" | "7z x -so") => {
                (", in gzip", format!("gzip -dc {file} > ARCHIVE && {command} ARCHIVE"))
            }
            (true, command) => (", in gzip", format!("gzip -dc {file} | {command}")),
        };
        format!(
            "{file} is {is}{what}; only text in UTF-8 can be read, plain or in gzip; convert it first: {command} > FILE"
        )
    }
}
