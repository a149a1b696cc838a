//! One TLS handshake with the internal name. The certificate is reported whether it is valid or
//! not.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{io_failure::IoFailure, timed_stream::TimedStream};

/// Bytes that are kept of what is no TLS.
const MAX_RECORDED: usize = 255;

/// The outcome of the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TlsResult {
    /// It is done, and the certificate is good for the name.
    Done { version: String, certificate: Option<CertificateInfo> },
    /// It is not.
    Failed { why: TlsFailure, message: String, certificate: Option<CertificateInfo> },
}

/// Why a handshake failed, as far as it leads to different causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TlsFailure {
    /// The certificate is another name's.
    WrongName,
    /// Its issuer is not trusted.
    UnknownIssuer,
    /// It has expired.
    Expired,
    /// It is not valid yet: a clock is wrong.
    NotYetValid,
    /// It is wrong otherwise.
    BadCertificate,
    /// The server sent this alert.
    Alert(String),
    /// The server wants the client's certificate.
    ClientCertificate,
    /// What came is not TLS, and begins like this.
    NotTls { begins: String },
    /// The two have no version or cipher in common.
    Incompatible,
    /// No authority is known here.
    NoRoots,
    /// The connection failed.
    Io(IoFailure),
    /// Anything else.
    Other,
}

/// The parts of a certificate that operators read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateInfo {
    /// Its subject.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
    /// The names and addresses it is good for.
    pub names: Vec<String>,
    /// When it ends, RFC 3339.
    pub not_after: String,
}

/// Does the handshake over `stream`, whose step bounds it.
pub(super) fn handshake(
    stream: &mut TimedStream,
    name: &str,
    roots: &str,
) -> (Option<ClientConnection>, TlsResult) {
    let seen = Arc::new(Mutex::new(None));
    let certificate = || seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut session = match session(name, roots, Arc::clone(&seen)) {
        Ok(session) => session,
        Err((why, message)) => {
            return (None, TlsResult::Failed { why, message, certificate: None });
        }
    };
    let mut transport = Recorder { stream, begins: Vec::new() };
    while session.is_handshaking() {
        if let Err(error) = session.complete_io(&mut transport) {
            let (mut why, message) = failure(&error);
            if let TlsFailure::NotTls { begins } = &mut why {
                *begins = transport.first_line();
            }
            return (None, TlsResult::Failed { why, message, certificate: certificate() });
        }
    }
    let version = session
        .protocol_version()
        .map_or_else(String::new, |version| format!("{version:?}").replace("TLSv1_", "TLS 1."));
    (Some(session), TlsResult::Done { version, certificate: certificate() })
}

/// A stream that keeps the first bytes received.
struct Recorder<'s> {
    stream: &'s mut TimedStream,
    begins: Vec<u8>,
}

impl Recorder<'_> {
    fn first_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.begins);
        text.lines().next().unwrap_or_default().to_owned()
    }
}

impl Read for Recorder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        let room = MAX_RECORDED.saturating_sub(self.begins.len());
        self.begins.extend_from_slice(&buffer[..length.min(room)]);
        Ok(length)
    }
}

impl Write for Recorder<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

type Failure = (TlsFailure, String);

fn session(
    name: &str,
    roots: &str,
    seen: Arc<Mutex<Option<CertificateInfo>>>,
) -> Result<ClientConnection, Failure> {
    let other = |error: &dyn std::fmt::Display| (TlsFailure::Other, error.to_string());
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(roots.as_bytes()).flatten());
    if store.is_empty() {
        return Err((TlsFailure::NoRoots, "no certificate authority is known".into()));
    }
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider)).build();
    let verifier =
        Arc::new(RecordingVerifier { inner: verifier.map_err(|error| other(&error))?, seen });
    let config = ClientConfig::builder_with_provider(provider as Arc<CryptoProvider>)
        .with_safe_default_protocol_versions()
        .map_err(|error| other(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).map_err(|error| other(&error))?;
    ClientConnection::new(Arc::new(config), name).map_err(|error| other(&error))
}

/// Why TLS failed, from the error of the input or output that it was part of.
pub(super) fn failure(error: &io::Error) -> Failure {
    let message = error.to_string();
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return (TlsFailure::Io(IoFailure::from_error(error)), message);
    };
    let why = match tls {
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsFailure::WrongName
            }
            CertificateError::UnknownIssuer => TlsFailure::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                TlsFailure::Expired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsFailure::NotYetValid
            }
            _ => TlsFailure::BadCertificate,
        },
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            TlsFailure::ClientCertificate
        }
        Error::AlertReceived(
            AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity,
        )
        | Error::PeerIncompatible(_) => TlsFailure::Incompatible,
        Error::AlertReceived(alert) => TlsFailure::Alert(format!("{alert:?}")),
        Error::InvalidMessage(_) | Error::DecryptError => {
            TlsFailure::NotTls { begins: String::new() }
        }
        _ => TlsFailure::Other,
    };
    (why, tls.to_string())
}

/// Notes the server's certificate, and leaves the judgement to webpki.
#[derive(Debug)]
struct RecordingVerifier {
    inner: Arc<WebPkiServerVerifier>,
    seen: Arc<Mutex<Option<CertificateInfo>>>,
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = describe(end_entity);
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn describe(certificate: &CertificateDer<'_>) -> Option<CertificateInfo> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let names = alternatives
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match **bytes {
                [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
                _ => <[u8; 16]>::try_from(*bytes)
                    .ok()
                    .map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
            },
            _ => None,
        });
    let not_after = jiff::Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
    Some(CertificateInfo {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        names: names.collect(),
        not_after: not_after.to_string(),
    })
}
