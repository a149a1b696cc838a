//! Files that survive a power cut: each one is the old file or the new one, never half of one.
//!
//! Every file the agent keeps (`leases.json`, `routes.json`, the last known addresses) is written
//! by [`write_atomically`]. A file that can't be read back is never lost: [`Quarantine`] keeps a
//! copy for the operator.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {}", path.display())]
pub struct FileError {
    /// The verb of the step that failed.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Replaces the file at `path` by one that holds `bytes`, or leaves it as it was.
///
/// The bytes go to a temporary file in the same directory, which is synced, renamed over `path`,
/// and made durable by a sync of the directory. The directory is [made](make_directory) when it is
/// missing. The file is readable and writable by its owner only.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let directory = directory_of(path);
    make_directory(directory, 0o750)?;
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| FileError { action, path, source }
    };
    let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let mut new = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".new")
        .tempfile_in(directory)
        .map_err(failed("make a temporary file in", directory))?;
    new.write_all(bytes).map_err(failed("write", new.path()))?;
    new.as_file().sync_all().map_err(failed("sync", new.path()))?;
    // The commit point: before it the old file stands, after it the new one.
    new.persist(path).map_err(|error| failed("replace", path)(error.error))?;
    sync_directory(directory).map_err(failed("sync directory", directory))
}

/// Reads the file at `path`; `None` when there is no such file.
pub fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError { action: "read", path: path.to_owned(), source }),
    }
}

/// Makes a directory with this mode, and those above it that are missing, each of them durable; one
/// that is there stays as it is.
pub fn make_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| FileError { action, path, source }
    };
    if path.is_dir() {
        return Ok(());
    }
    let above = directory_of(path);
    make_directory(above, mode)?;
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => {
            return Err(failed("make the directory", path)(error));
        }
        Ok(()) | Err(_) => {}
    }
    sync_directory(above).map_err(failed("sync directory", above))
}

/// A damaged file, and the copy that is made of it before it is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    path: PathBuf,
    copy: PathBuf,
}

impl Quarantine {
    /// Selects the first free `NAME.damaged-<n>` beside the file. Nothing is written yet.
    pub fn plan(path: &Path) -> Self {
        let beside = |n: u32| {
            let mut name = path.file_name().unwrap_or_default().to_os_string();
            name.push(format!(".damaged-{n}"));
            path.with_file_name(name)
        };
        let copy = (1..=u32::MAX)
            .map(beside)
            .find(|candidate| !candidate.exists())
            .expect("a directory holds fewer than 2^32 files");
        Self { path: path.to_owned(), copy }
    }

    /// The path of the copy.
    pub fn copy(&self) -> &Path {
        &self.copy
    }

    /// Writes the copy. The file itself stays until the caller replaces it, so there is always one.
    ///
    /// # Errors
    /// When the file cannot be read or the copy cannot be written.
    pub fn carry_out(&self) -> Result<(), FileError> {
        let bytes = fs::read(&self.path).map_err(|source| FileError {
            action: "read",
            path: self.path.clone(),
            source,
        })?;
        write_atomically(&self.copy, &bytes)
    }

    /// Carries out what is planned, once.
    pub(crate) fn settle(planned: &mut Option<Self>) -> Result<(), FileError> {
        if let Some(quarantine) = planned {
            quarantine.carry_out()?;
            *planned = None;
        }
        Ok(())
    }
}

/// Whether the file or directory at `path` was removed or replaced since `held` was opened there.
/// False if that is unknown.
pub(crate) fn is_lost(path: &Path, held: &File) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    match (held.metadata().map(identity), fs::metadata(path).map(identity)) {
        (Ok(held), Ok(there)) => held != there,
        (Ok(_), Err(error)) => error.kind() == io::ErrorKind::NotFound,
        (Err(_), _) => false,
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_file_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state/deeper/routes.json");
        write_atomically(&path, b"one").expect("written");
        write_atomically(&path, b"two").expect("replaced");
        assert_eq!(read_if_present(&path).expect("read").as_deref(), Some(b"two".as_slice()));
        let names: Vec<_> =
            fs::read_dir(path.parent().expect("a parent")).expect("listed").collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary_file() {
        let directory = tempfile::tempdir().expect("a directory");
        // A directory that is not empty can't be replaced by a file: the rename is the step that
        // fails.
        let path = directory.path().join("state");
        fs::create_dir_all(path.join("inner")).expect("made");
        let error = write_atomically(&path, b"new").expect_err("a directory is in the way");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(path.join("inner").is_dir());
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_missing_file_is_not_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(read_if_present(&directory.path().join("absent")).expect("no error"), None);
    }

    #[test]
    fn each_damaged_file_gets_a_name_of_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("leases.json");
        for n in 1..=3 {
            fs::write(&path, format!("damage {n}")).expect("written");
            let quarantine = Quarantine::plan(&path);
            quarantine.carry_out().expect("copied");
            let copy = quarantine.copy().to_owned();
            assert_eq!(copy, directory.path().join(format!("leases.json.damaged-{n}")));
            assert_eq!(fs::read_to_string(copy).expect("read"), format!("damage {n}"));
            assert_eq!(fs::read_to_string(&path).expect("still there"), format!("damage {n}"));
        }
    }
}
