//! Clients of the registry in several languages, each with the resolver of its own world. Each
//! resolves a name, connects, checks the certificate, and prints its kind, the peer's address and
//! the status of a request.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{packages, process, sample_artifacts};

/// Longest time of a compiler on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The clients that [`ClientPrograms::line`] runs, by the first word of their output.
pub const KINDS: [&str; 6] = ["glibc", "python", "node", "jvm", "musl", "go"];

/// The clients' programs, in a folder that every guest of the rig sees.
#[derive(Debug)]
pub struct ClientPrograms {
    folder: PathBuf,
}

impl ClientPrograms {
    /// Writes and compiles the programs into `folder`.
    pub fn prepare(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
        for (name, text) in [
            ("client.py", include_str!("client.py")),
            ("client.js", include_str!("client.js")),
            ("tls_over_relay.py", include_str!("tls_over_relay.py")),
        ] {
            fs::write(folder.join(name), text).context("failed to write a client")?;
        }
        for (name, compiled) in compiled()? {
            let path = folder.join(name);
            fs::write(&path, compiled).context("failed to write a compiled client")?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&path, mode).context("failed to make a client executable")?;
        }
        sample_artifacts::image(&folder.join("image"))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The static musl program.
    pub fn relay(&self) -> PathBuf {
        self.folder.join("relay")
    }

    /// A line of shell that runs the client of this kind.
    pub fn command(&self, kind: &str, name: &str, ca: &Path) -> String {
        let ca = ca.display();
        let client = match kind {
            "glibc" => format!(
                "curl -sS --fail --cacert {ca} -o /dev/null \
                 -w 'glibc %{{remote_ip}} %{{http_code}}\\n' https://{name}/"
            ),
            "python" => format!("/usr/bin/python3 client.py {name} {ca}"),
            "node" => format!("NODE_EXTRA_CA_CERTS={ca} node client.js {name}"),
            "jvm" => format!("java -cp . -XX:TieredStopAtLevel=1 Client {name} {ca}"),
            "musl" => format!("/usr/bin/python3 tls_over_relay.py {name} {ca} ./relay"),
            // skopeo is a Go program; with this variable it uses Go's own resolver.
            _ => format!(
                "GODEBUG=netdns=go TMPDIR=$HOME SSL_CERT_FILE={ca} skopeo --insecure-policy copy \
                 --quiet oci:image:1.0 docker://{name}/team/hello:1.0 && echo go {name} 201"
            ),
        };
        format!("cd {} && {client}", self.folder.display())
    }

    /// A line of shell that runs all clients, one after the other.
    pub fn line(&self, name: &str, ca: &Path) -> String {
        KINDS.map(|kind| self.command(kind, name, ca)).join("; ")
    }
}

/// A file's name and content.
type Compiled = (&'static str, Vec<u8>);

/// The compiled clients: compilers take a second or more, so once for each process.
fn compiled() -> Result<&'static [Compiled]> {
    static COMPILED: OnceLock<Result<Vec<Compiled>, String>> = OnceLock::new();
    match COMPILED.get_or_init(|| compile().map_err(|error| format!("{error:#}"))) {
        Ok(compiled) => Ok(compiled),
        Err(error) => bail!("failed to compile a client: {error}"),
    }
}

fn compile() -> Result<Vec<Compiled>> {
    let folder = tempfile::tempdir().context("failed to make a folder")?;
    for (name, text) in
        [("Client.java", include_str!("Client.java")), ("relay.c", include_str!("relay.c"))]
    {
        fs::write(folder.path().join(name), text).context("failed to write a client's source")?;
    }
    let mut musl = packages::tool("musl-gcc")?;
    musl.args(["-static", "-O1", "-o", "relay", "relay.c"]).current_dir(folder.path());
    process::finish(musl, LIMIT)?.success()?;
    let mut javac = packages::tool("javac")?;
    javac.arg("Client.java").current_dir(folder.path());
    process::finish(javac, LIMIT)?.success()?;
    ["relay", "Client.class"]
        .into_iter()
        .map(|name| {
            let content = fs::read(folder.path().join(name));
            Ok((name, content.with_context(|| format!("the compiler made no {name}"))?))
        })
        .collect()
}
