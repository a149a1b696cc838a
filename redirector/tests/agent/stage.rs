//! Staged failures: misbehaving servers in place of the registry, and processes in place of a job.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Child,
    sync::Arc,
    thread,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use testbed::{
    Executor,
    process::{Finished, until},
    topology::REGISTRY_ADDRESS,
};

use crate::rig::{Job, LIMIT, binary};

/// The programs of guests are attached nowhere: what is outside of the attached cgroups is not
/// redirected.
pub(crate) const ONLY_CGROUPS: &str = "[attach]\ninterfaces = \"off\"\n";

/// A route that works, and several that fail in different ways.
pub(crate) const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
ports = [\"443\", \"80\", \"8443:8080\"]
[[routes]]
source = \"nowhere.internal.company.net\"
destination = \"nowhere.public.company.net\"
[[routes]]
source = \"refusing.internal.company.net\"
destination = \"203.0.113.1\"
[[routes]]
source = \"unreachable.internal.company.net\"
destination = \"203.0.113.99\"
[[routes]]
source = \"silent.internal.company.net\"
destination = \"203.0.113.8\"
source_ips = [\"198.51.100.2\"]
";

/// The behaviour of a server without TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plain {
    /// Closes each connection.
    Closes,
    /// Sends nothing.
    Silent,
    /// Sends a text before any request.
    Sends(&'static str),
}

/// A certificate, and the response over TLS.
pub(crate) struct Tls {
    pub(crate) names: Vec<String>,
    pub(crate) expired: bool,
    pub(crate) wants_client: bool,
    pub(crate) answer: Option<&'static str>,
}

impl Tls {
    pub(crate) fn of(name: &str) -> Self {
        Self {
            names: vec![name.to_owned()],
            expired: false,
            wants_client: false,
            answer: Some("HTTP/1.1 200 OK\r\n\r\n"),
        }
    }
}

/// A server in place of the registry; stopped when dropped.
pub(crate) struct Server {
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn plain(job: &Job, behaviour: Plain) -> Self {
        Self::start(job, move |mut stream| match behaviour {
            Plain::Closes => {}
            Plain::Silent => thread::sleep(Duration::from_secs(6)),
            Plain::Sends(text) => {
                let _ = stream.write_all(text.as_bytes());
                let _ = stream.read(&mut [0; 512]);
            }
        })
    }

    /// Also returns the file of the authority's certificate.
    pub(crate) fn tls(job: &Job, tls: Tls) -> (Self, PathBuf) {
        let (config, authority) = certified(&tls);
        let path = job.rig.node.sandbox().home().join("authority.pem");
        std::fs::write(&path, authority).unwrap();
        let server = Self::start(job, move |mut stream| {
            let mut session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut secured = rustls::Stream::new(&mut session, &mut stream);
            let _ = secured.read(&mut [0; 4096]);
            match tls.answer {
                Some(answer) => drop(secured.write_all(answer.as_bytes())),
                None => thread::sleep(Duration::from_secs(6)),
            }
            session.send_close_notify();
            let _ = session.write_tls(&mut stream);
        });
        (server, path)
    }

    fn start(job: &Job, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let namespaces = job.rig.customer.sandbox().namespaces();
        // Another test's process holds a copy of the last listener between its fork and its exec.
        let mut listener = None;
        until("the registry's port to be free", LIMIT, || {
            match namespaces.run(|| TcpListener::bind((REGISTRY_ADDRESS, 443)))? {
                Ok(bound) => listener = Some(bound),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(error.into()),
            }
            Ok(listener.is_some())
        })
        .unwrap();
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let serve = Arc::new(serve);
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(10));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The configuration of a server with this certificate, and its authority as PEM.
pub(crate) fn certified(tls: &Tls) -> (Arc<ServerConfig>, String) {
    let mut authority = CertificateParams::new(Vec::default()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "staged authority");
    let authority_key = KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let mut server = CertificateParams::new(tls.names.clone()).unwrap();
    server.distinguished_name.push(DnType::CommonName, tls.names[0].as_str());
    if tls.expired {
        server.not_before = rcgen::date_time_ymd(2020, 1, 1);
        server.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let certificate = server.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if tls.wants_client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(authority_certificate.der().to_vec())).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (Arc::new(config), authority_certificate.pem())
}

/// A process of a job that sleeps; killed when dropped.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    pub(crate) fn start(executor: &Executor, variables: &[(&str, &str)]) -> Self {
        Self::run("/bin/sleep".as_ref(), executor, variables)
    }

    /// The same with another command name: the kernel uses the executed file's name, or a link's.
    pub(crate) fn with_name(name: &str, executor: &Executor, variables: &[(&str, &str)]) -> Self {
        let program = executor.sandbox().home().join(name);
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        Self::run(&program, executor, variables)
    }

    fn run(program: &Path, executor: &Executor, variables: &[(&str, &str)]) -> Self {
        let mut command = executor.command(program);
        command.arg("300").envs(variables.iter().copied());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `redirector verify` or `explain` with `-o json`. Returns the JSON and the finished process.
pub(crate) fn ask(job: &Job, arguments: &[&str]) -> (serde_json::Value, Finished) {
    let finished = job.rig.node.cli(binary(), &[arguments, &["-o", "json"]].concat()).unwrap();
    let json = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", finished.text()));
    (json, finished)
}

/// The page that names the commands with which each cause is staged here.
const CAUSES: &str = include_str!("../../../docs/reference/causes.md");

/// Asserts the code of the first finding, a fitting exit code, and that its texts contain these
/// words. The page of causes must list the command for this code.
#[track_caller]
pub(crate) fn assert_cause(job: &Job, arguments: &[&str], code: &str, words: &[&str]) {
    let row = CAUSES.lines().find(|line| line.starts_with(&format!("| `{code}` |")));
    assert!(
        row.is_some_and(|row| row.contains(&format!("`{}`", arguments[0]))),
        "docs/reference/causes.md does not list {} for {code}",
        arguments[0]
    );
    let (json, finished) = ask(job, arguments);
    let finding = &json["findings"][0];
    assert_eq!(finding["code"], code, "{arguments:?}: {}", finished.text());
    let prevents = finding["prevents"].as_bool().unwrap();
    assert_eq!(
        finished.status.code(),
        Some(i32::from(prevents)),
        "{arguments:?}: {}",
        finished.text()
    );
    let texts = format!(
        "{} {}",
        finding["cause"].as_str().unwrap(),
        finding["next"].as_str().unwrap_or_default()
    );
    for word in words {
        assert!(texts.contains(word), "{arguments:?}: `{word}` is missing: {texts}");
    }
}
