//! A terminal's text as SVG, with a dark background of its own: readable on light and dark pages.

use anstyle::{Color, RgbColor, Style};
use anstyle_svg::{Term, WIN10_CONSOLE};

const FOREGROUND: Color = Color::Rgb(RgbColor(221, 221, 221));
const BACKGROUND: Color = Color::Rgb(RgbColor(28, 31, 36));

/// A command and its output.
pub(super) fn svg(command: &str, output: &str) -> String {
    let (dim, bold) = (Style::new().dimmed(), Style::new().bold());
    let screen = format!("{dim}# {dim:#}{bold}{command}{bold:#}\n{}", output.replace('\r', ""));
    Term::new()
        .palette(WIN10_CONSOLE)
        .fg_color(FOREGROUND)
        .bg_color(BACKGROUND)
        .render_svg(screen.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_classes_and_markup_is_escaped() {
        let picture = svg("redirector <x>", "\x1b[32mok\x1b[0m a & b\r\n\x1b[31mbad\x1b[39m c\n");
        for expected in [
            "class=\"fg-green\">ok</tspan>",
            "class=\"fg-red\">bad</tspan>",
            "redirector &lt;x&gt;",
            "a &amp; b",
        ] {
            assert!(picture.contains(expected), "no `{expected}` in {picture}");
        }
        assert!(!picture.contains(['\x1b', '\r']), "{picture}");
    }
}
