//! Programs that look a name up, each with the resolver of its own world. What one prints has the
//! addresses that it got.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{packages, process};

/// Longest time of a compiler on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

const MUSL: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(argv[1], "443", &hints, &found);
    if (error) { printf("%s\n", gai_strerror(error)); return 1; }
    printf("%s\n", inet_ntoa(((struct sockaddr_in *)found->ai_addr)->sin_addr));
    return 0;
}
"#;

const JVM: &str = "
public class Lookup {
    public static void main(String[] words) throws Exception {
        for (var found : java.net.InetAddress.getAllByName(words[0]))
            System.out.println(found.getHostAddress());
    }
}
";

/// A resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// glibc's, as most programs use it.
    Glibc,
    /// musl's: it asks all servers at once, from one unconnected socket.
    Musl,
    /// Node's `dns.lookup`, which is glibc's in a thread.
    Node,
    /// Node's `dns.resolve4`: c-ares, which uses no search list there.
    CAres,
    /// Go's own, in skopeo, whose error shows the address that it connected to.
    Go,
    /// A JVM's.
    Jvm,
}

impl Resolver {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Glibc, Self::Musl, Self::Node, Self::CAres, Self::Go, Self::Jvm];
}

/// The programs, in a folder.
#[derive(Debug)]
pub struct LookupPrograms {
    folder: PathBuf,
}

impl LookupPrograms {
    /// Writes and compiles them into `folder`.
    pub fn prepare(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
        for (source, text, compiler, arguments) in [
            ("lookup.c", MUSL, "musl-gcc", &["-static", "-O1", "-o", "lookup"][..]),
            ("Lookup.java", JVM, "javac", &[]),
        ] {
            fs::write(folder.join(source), text).context("failed to write a program's source")?;
            let mut compile = packages::tool(compiler)?;
            compile.args(arguments).arg(source).current_dir(folder);
            process::finish(compile, LIMIT)?.success()?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// A line of shell that looks a name up.
    pub fn line(&self, resolver: Resolver, name: &str) -> String {
        let folder = self.folder.display();
        let node = |call: &str| {
            format!(
                "node -e \"require('dns').{call}, (error, found) => console.log(error, found))\""
            )
        };
        match resolver {
            Resolver::Glibc => format!("getent ahosts {name}"),
            Resolver::Musl => format!("{folder}/lookup {name}"),
            Resolver::Node => node(&format!("lookup('{name}', {{ all: true }}")),
            Resolver::CAres => node(&format!("resolve4('{name}'")),
            Resolver::Go => format!(
                "GODEBUG=netdns=go skopeo --insecure-policy inspect --no-creds \
                 docker://{name}/team/hello:1.0"
            ),
            Resolver::Jvm => format!("java -cp {folder} -XX:TieredStopAtLevel=1 Lookup {name}"),
        }
    }
}
