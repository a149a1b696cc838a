//! The plot of a run.

use super::{
    report::Report,
    variants::{BARE, EMPTY, TCP, TCP_FULL, UDP},
};
use crate::{
    plot::{document, panel},
    statistics::Spread,
};

/// Panels of a TCP connection without and with a full pool, compared with the bare one, and of a
/// miss, compared with empty programs.
pub(super) fn svg(report: &Report) -> String {
    let panels = [(TCP, BARE.name), (TCP_FULL, BARE.name), (UDP, EMPTY.name)];
    let mut body = String::new();
    let mut y = 16.0;
    for (scenario, against) in panels {
        let Some(found) = report.scenarios.iter().find(|known| known.name == scenario) else {
            continue;
        };
        let bars: Vec<(&str, &Spread)> = found
            .ratios
            .iter()
            .filter(|ratio| ratio.against == against)
            .map(|ratio| (ratio.variant.as_str(), &ratio.ratio))
            .collect();
        y += panel(&mut body, y, &format!("{scenario}: time against {against}"), &bars);
    }
    let note = format!(
        "{}; kernel {}; {}. Bars: medians; whiskers: quartiles.",
        report.machine, report.kernel, report.date
    );
    document(&body, y, &note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::report::{Ratio, Scenario};

    #[test]
    fn each_ratio_has_a_bar_and_markup_is_escaped() {
        let ratio = |variant: &str, median| Ratio {
            variant: variant.to_owned(),
            against: BARE.name.to_owned(),
            ratio: Spread { median, quartile_1: median, quartile_3: median, ..Spread::default() },
            ..Ratio::default()
        };
        let ratios = vec![ratio("redirector, hit", 1.02), ratio("a <peer>", 9.0)];
        let scenario = Scenario { name: TCP.to_owned(), ratios, ..Scenario::default() };
        let svg = svg(&Report { scenarios: vec![scenario], ..Report::default() });
        assert_eq!(
            svg.matches("class=\"ours\"").count() + svg.matches("class=\"bar\"").count(),
            2,
            "{svg}"
        );
        assert!(svg.contains("a &lt;peer&gt;") && svg.contains(">9.000<"), "{svg}");
    }
}
