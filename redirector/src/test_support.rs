//! What tests share: a disk that hangs, and generated pages of docs/reference, each of which has a
//! part between two marks that a test keeps equal to the code.

use std::{path::PathBuf, sync::mpsc};

use tokio::runtime::Builder;

const BEGIN: &str = "<!-- generated: REDIRECTOR_BLESS=1 cargo test -p redirector reference -->\n";
const END: &str = "<!-- end of what is generated -->\n";

/// Asserts that the generated part of docs/reference/`page` is `text`. With REDIRECTOR_BLESS=1 in
/// the environment it is written instead.
#[track_caller]
pub(crate) fn assert_generated(page: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(page);
    let whole = std::fs::read_to_string(&path).unwrap_or_default();
    let (before, rest) =
        whole.split_once(BEGIN).unwrap_or_else(|| panic!("{} has no line {BEGIN}", path.display()));
    let (old, after) =
        rest.split_once(END).unwrap_or_else(|| panic!("{} has no line {END}", path.display()));
    let new = format!("\n{text}\n");
    if std::env::var_os("REDIRECTOR_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{new}{END}{after}")).expect("written");
    } else {
        assert_eq!(
            old,
            new,
            "{} is not what the code says: REDIRECTOR_BLESS=1 cargo test -p redirector reference",
            path.display()
        );
    }
}

/// A disk that hangs: the only thread that may wait for one is busy.
pub(crate) struct HangingDisk(mpsc::Sender<()>);

impl HangingDisk {
    /// Runs `test` with such a disk.
    pub(crate) fn run(test: impl AsyncFnOnce(Self)) {
        let runtime = Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (disk, resumed) = mpsc::channel::<()>();
        runtime.spawn_blocking(move || resumed.recv());
        runtime.block_on(test(Self(disk)));
    }

    /// Lets it write.
    pub(crate) fn resume(self) {
        drop(self.0);
    }
}
