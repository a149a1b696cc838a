//! The customer's own certificate authority, and the registry's certificate from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority and one server certificate.
#[derive(Debug)]
pub struct Certificates {
    /// The authority's certificate, PEM.
    pub ca_pem: String,
    /// The same, as a file.
    pub ca_path: PathBuf,
    /// The server's certificate chain, PEM file.
    pub chain_path: PathBuf,
    /// The server's key, PEM file.
    pub key_path: PathBuf,
}

impl Certificates {
    /// Creates both for `names` and writes `ca.crt`, `server.crt` and `server.key` into `folder`.
    pub fn create(folder: &Path, names: &[&str]) -> Result<Self> {
        let (ca_pem, issuer) = authority().context("failed to make a certificate authority")?;
        let (server_pem, key) = server(&issuer, names)
            .with_context(|| format!("failed to make a certificate for {names:?}"))?;
        let certificates = Self {
            ca_path: folder.join("ca.crt"),
            chain_path: folder.join("server.crt"),
            key_path: folder.join("server.key"),
            ca_pem,
        };
        for (path, text) in [
            (&certificates.ca_path, &certificates.ca_pem),
            (&certificates.chain_path, &server_pem),
            (&certificates.key_path, &key),
        ] {
            fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(certificates)
    }
}

fn authority() -> Result<(String, Issuer<'static, KeyPair>)> {
    let mut params = CertificateParams::new(Vec::default())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "company.net internal CA");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Issuer::new(params, key)))
}

fn server(issuer: &Issuer<'static, KeyPair>, names: &[&str]) -> Result<(String, String)> {
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, names[0]);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}
