//! Pictures of the status page in a real browser.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result};
use testbed::browser::{Browser, Device};

use super::fixture::Fixture;

/// How long the page's lines grow before it is photographed.
const GROWTH: Duration = Duration::from_secs(30);

const SIZES: [(&str, Device); 2] = [
    ("desktop", Device { width: 1100, height: 700, is_mobile: false, is_dark: false }),
    ("phone", Device { width: 390, height: 844, is_mobile: true, is_dark: false }),
];

/// Opens the page of the fixture's agent, and writes `page-SIZE-COLOURS.png`.
pub(super) fn take(fixture: &Fixture, into: &Path) -> Result<()> {
    let mut browser = Browser::start(fixture.rig.node.sandbox())?;
    browser.set_device(SIZES[0].1)?;
    browser.open("http://localhost:9464/")?;
    thread::sleep(GROWTH);
    for (size, device) in SIZES {
        for (colours, is_dark) in [("light", false), ("dark", true)] {
            browser.set_device(Device { is_dark, ..device })?;
            // Until the width is another one.
            thread::sleep(Duration::from_secs(1));
            let file = into.join(format!("page-{size}-{colours}.png"));
            std::fs::write(&file, browser.screenshot()?)
                .with_context(|| format!("failed to write {}", file.display()))?;
            println!("{}", file.display());
        }
    }
    Ok(())
}
