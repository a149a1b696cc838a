//! Plots in SVG: bars of ratios with their spread.

use std::fmt::Write as _;

use crate::statistics::Spread;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 270.0;
const ROW: f64 = 26.0;
/// Ratios beyond this are cut off; their number shows it.
const LARGEST: f64 = 4.0;

/// The picture: panels of this height, and a note below them.
pub(crate) fn document(panels: &str, height: f64, note: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{:.0}\" \
         viewBox=\"0 0 {WIDTH} {0:.0}\">\n\
         <style>text {{ font: 13px sans-serif; fill: #222 }} .title {{ font-weight: bold }} \
         .note {{ font-size: 11px; fill: #666 }}\n\
         .bar {{ fill: #4878a8 }} .ours {{ fill: #2a9d5c }} \
         .one {{ stroke: #222; stroke-dasharray: 3 3 }} .whisker {{ stroke: #222 }}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         {panels}<text x=\"16\" y=\"{:.0}\" class=\"note\">{}</text>\n</svg>\n",
        height + 22.0,
        height + 8.0,
        escape(note)
    )
}

/// The picture of one panel.
pub(crate) fn single(title: &str, bars: &[(&str, &Spread)], note: &str) -> String {
    let mut body = String::new();
    let height = 16.0 + panel(&mut body, 16.0, title, bars);
    document(&body, height, note)
}

/// Draws one panel at height `y`; returns its own height.
pub(crate) fn panel(body: &mut String, y: f64, title: &str, bars: &[(&str, &Spread)]) -> f64 {
    let scale = bars.iter().map(|(_, spread)| spread.quartile_3).fold(1.1, f64::max).min(LARGEST);
    let x = |ratio: f64| LEFT + (WIDTH - LEFT - 70.0) * ratio.clamp(0.0, scale) / scale;
    let _ = writeln!(
        body,
        "<text x=\"16\" y=\"{:.0}\" class=\"title\">{}</text>",
        y + 12.0,
        escape(title)
    );
    let mut top = y + 24.0;
    for (name, spread) in bars {
        let class = if name.starts_with("redirector") { "ours" } else { "bar" };
        let middle = top + ROW / 2.0;
        let _ = writeln!(
            body,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            middle + 4.0,
            escape(name)
        );
        let _ = writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"{class}\"/>",
            top + 3.0,
            x(spread.median) - LEFT,
            ROW - 8.0
        );
        let (low, high) = (x(spread.quartile_1), x(spread.quartile_3));
        let _ = writeln!(
            body,
            "<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" \
                class=\"whisker\"/>"
        );
        let _ = writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{:.1}\">{:.3}</text>",
            high + 6.0,
            middle + 4.0,
            spread.median
        );
        top += ROW;
    }
    let one = x(1.0);
    let _ = writeln!(
        body,
        "<line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{:.1}\" y2=\"{top:.1}\" class=\"one\"/>",
        y + 20.0
    );
    top - y + 14.0
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
