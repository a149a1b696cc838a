//! Text that others chose (commands, cgroups, names, files) where a person reads it: no control
//! character reaches a terminal or a log, and no text can forge a line.

use std::{
    borrow::Cow,
    io::{self, Write},
};

/// The beginning of an attribute (ECMA-48, SGR).
const ATTRIBUTE: &str = "\x1b[";
/// The attributes that we set ourselves: none of them hides text.
const ATTRIBUTES: [&str; 13] =
    ["0", "1", "2", "3", "22", "31", "32", "33", "34", "35", "36", "39", "90"];

/// The text with every character escaped that a terminal would act on, line breaks included.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escape(text, &[])
}

fn escape<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let is_escaped = |character: &char| is_hostile(*character) && !kept.contains(character);
    if !text.chars().any(|character| is_escaped(&character)) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_escaped(&character) {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    escaped.into()
}

/// Control characters, and those that reorder or hide the text around them.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// A writer for a terminal that passes text, line breaks and our own attributes.
pub(crate) struct PrintableWriter<'a> {
    out: &'a mut dyn Write,
    /// Whether attributes are passed.
    colour: bool,
}

impl<'a> PrintableWriter<'a> {
    pub(crate) fn new(out: &'a mut dyn Write, colour: bool) -> Self {
        Self { out, colour }
    }
}

impl Write for PrintableWriter<'_> {
    /// Each of our attributes is within one write.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        const KEPT: &[char] = &['\n', '\t'];
        let text = String::from_utf8_lossy(bytes);
        let mut parts = text.split(ATTRIBUTE);
        let first = parts.next().unwrap_or_default();
        self.out.write_all(escape(first, KEPT).as_bytes())?;
        for part in parts {
            let (numbers, _) = part.split_once('m').unwrap_or_default();
            let is_ours = self.colour && numbers.split(';').all(|one| ATTRIBUTES.contains(&one));
            let begin = if is_ours { ATTRIBUTE.into() } else { printable(ATTRIBUTE) };
            self.out.write_all(begin.as_bytes())?;
            self.out.write_all(escape(part, KEPT).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, colour: bool) -> String {
        let mut out = Vec::new();
        PrintableWriter::new(&mut out, colour).write_all(text.as_bytes()).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        let hostile = "a\nb\r\x1b[2J\x1b]0;x\x07\u{9b}31m\u{202e}\u{200b}\u{2028}\u{feff}ä\t";
        let escaped = printable(hostile);
        assert!(!escaped.chars().any(is_hostile), "{escaped}");
        assert!(escaped.starts_with("a\\nb\\r\\u{1b}[2J") && escaped.contains('ä'), "{escaped}");
        assert!(matches!(printable("kubepods/pod-1 ü"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_writer_passes_our_own_colours_only() {
        let red = "\x1b[31mbad\x1b[0m\n";
        assert_eq!(written(red, true), red);
        assert_eq!(written(red, false), "\\u{1b}[31mbad\\u{1b}[0m\n");
        for hostile in ["\x1b[8mhidden", "\x1b[2J", "\x1b]0;t\x07", "\x1b[31;8mx", "\x1b[", "\x1bc"]
        {
            assert!(!written(hostile, true).contains('\x1b'), "{hostile:?}");
        }
    }
}
