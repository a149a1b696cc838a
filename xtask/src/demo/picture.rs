//! A terminal's text as a picture: SVG that any browser and any code host shows, with the text in
//! it as text.

use std::fmt::Write as _;

const CHARACTER: f64 = 7.8;
const LINE: f64 = 18.0;
const MARGIN: f64 = 14.0;

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    class: &'static str,
}

/// A command and what it has shown, on a screen of so many columns.
pub(super) fn svg(command: &str, shown: &str, columns: usize) -> String {
    let lines = wrapped(shown, columns);
    let (width, height) =
        (columns as f64 * CHARACTER + 2.0 * MARGIN, (lines.len() + 1) as f64 * LINE + 2.0 * MARGIN);
    let mut text = row(
        0,
        &[(Look { class: "dim" }, "# ".to_owned()), (Look { class: "strong" }, command.to_owned())],
    );
    for (number, line) in lines.iter().enumerate() {
        text.push_str(&row(number + 1, line));
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\">\n\
         <style>text {{ font: 13px monospace; fill: #ddd; white-space: pre }} .strong {{ font-weight: bold; fill: #fff }} .dim {{ fill: #888 }}\n\
         .good {{ fill: #5fc27e }} .warn {{ fill: #e0b44c }} .bad {{ fill: #e8695f }}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1c1f24\"/>\n{text}</svg>\n"
    )
}

fn row(number: usize, pieces: &[(Look, String)]) -> String {
    let mut row = format!(
        "<text x=\"{MARGIN}\" y=\"{:.0}\" xml:space=\"preserve\">",
        MARGIN + (number as f64 + 0.8) * LINE
    );
    for (look, piece) in pieces {
        let piece = piece.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = if look.class.is_empty() {
            write!(row, "{piece}")
        } else {
            write!(row, "<tspan class=\"{}\">{piece}</tspan>", look.class)
        };
    }
    row.push_str("</text>\n");
    row
}

/// Lines of pieces; what is longer than the screen goes on in the next line, as a terminal has it.
fn wrapped(shown: &str, columns: usize) -> Vec<Vec<(Look, String)>> {
    let mut look = Look::default();
    let mut lines = Vec::new();
    for line in shown.trim_end().lines() {
        let (mut row, mut used): (Vec<(Look, String)>, usize) = (Vec::new(), 0);
        for (next, piece) in pieces(line.trim_end_matches('\r'), look) {
            look = next;
            for letter in piece.chars() {
                if used == columns {
                    lines.push(std::mem::take(&mut row));
                    used = 0;
                }
                match row.last_mut() {
                    Some((last, text)) if *last == look => text.push(letter),
                    _ => row.push((look, letter.to_string())),
                }
                used += 1;
            }
        }
        lines.push(row);
    }
    lines
}

/// The text between escape sequences, with how each piece looks. Sequences other than those of
/// colour are left out.
fn pieces(line: &str, mut look: Look) -> Vec<(Look, String)> {
    let mut found = Vec::new();
    let mut parts = line.split("\x1b[");
    found.push((look, parts.next().unwrap_or_default().to_owned()));
    for part in parts {
        let end = part.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(part.len());
        let (codes, rest) = part.split_at(end);
        if rest.starts_with('m') {
            look = codes.split(';').fold(look, |look, code| coloured(code, look));
        }
        found.push((look, rest.get(1..).unwrap_or_default().to_owned()));
    }
    found
}

fn coloured(code: &str, look: Look) -> Look {
    let class = match code {
        "" | "0" | "22" | "39" => "",
        "1" => "strong",
        "2" => "dim",
        "31" => "bad",
        "32" => "good",
        "33" => "warn",
        _ => return look,
    };
    Look { class }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_classes_and_what_is_special_is_escaped() {
        let picture = svg("redirector <x>", "\x1b[32mok\x1b[0m a & b\r\n\x1b[31mbad\x1b[0m\n", 80);
        assert!(picture.contains("<tspan class=\"good\">ok</tspan> a &amp; b</text>"), "{picture}");
        assert!(
            picture.contains("<tspan class=\"bad\">bad</tspan></text>")
                && picture.contains("redirector &lt;x&gt;"),
            "{picture}"
        );
        assert!(!picture.contains('\x1b'));
    }

    #[test]
    fn a_long_line_goes_on_in_the_next_with_its_colour() {
        let lines = wrapped("\x1b[33mabcdef", 4);
        let warn = Look { class: "warn" };
        assert_eq!(lines, [vec![(warn, "abcd".to_owned())], vec![(warn, "ef".to_owned())]]);
    }
}
