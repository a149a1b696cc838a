//! The customer's registry: docker-registry and pypiserver behind one nginx that ends TLS for the
//! internal name, as an Artifactory does.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::certificates::Certificates;
use crate::isolation::sandbox::Sandbox;
use crate::service::Service;
use crate::topology::{INTERNAL_NAME, REGISTRY_ADDRESS};
use crate::{packages, sample_artifacts};

/// Longest time until each server accepts connections, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// docker-registry, inside the customer's namespace only.
const IMAGES: &str = "127.0.0.1:5000";
/// pypiserver, inside the customer's namespace only.
const PACKAGES: &str = "127.0.0.1:5001";

/// The answer to a request for `/`.
const GREETING: &str = "registry of company.net, requested as $ssl_server_name";

/// A running registry: `/v2/` for images, `/simple/` for Python packages, and `/` for a greeting.
#[derive(Debug)]
pub struct Registry {
    _services: [Service; 3],
    folder: PathBuf,
}

impl Registry {
    pub(crate) fn start(sandbox: &Sandbox, certificates: &Certificates) -> Result<Self> {
        let folder = sandbox.folder("registry")?;
        let mut images = start_docker_registry(sandbox, &folder)?;
        let mut packages = start_pypiserver(sandbox, &folder)?;
        let mut nginx = start_nginx(sandbox, &folder, certificates)?;
        for (service, address) in [
            (&mut images, IMAGES),
            (&mut packages, PACKAGES),
            (&mut nginx, &format!("{REGISTRY_ADDRESS}:443")),
        ] {
            let address: SocketAddr =
                address.parse().context("failed to parse an address of the registry")?;
            service.wait_ready(LIMIT, || sandbox.accepts_connections(address))?;
        }
        Ok(Self { _services: [nginx, packages, images], folder })
    }

    /// The requests it has answered: server name of the TLS handshake, request line and status.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

fn start_docker_registry(sandbox: &Sandbox, folder: &Path) -> Result<Service> {
    let data = folder.join("images");
    let config = write(
        &folder.join("docker-registry.yml"),
        &format!(
            "version: 0.1\nlog: {{level: warn}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http:\n  addr: {IMAGES}\n  secret: rig\n",
            data.display()
        ),
    )?;
    let mut command = sandbox.command(packages::path_of("docker-registry")?);
    command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
    Service::start("docker-registry", &folder.join("docker-registry.log"), command)
}

fn start_pypiserver(sandbox: &Sandbox, folder: &Path) -> Result<Service> {
    let wheels = folder.join("wheels");
    sample_artifacts::wheel(&wheels)?;
    let (host, port) = PACKAGES.split_once(':').context("failed to split pypiserver's address")?;
    let mut command = sandbox.command(packages::python_tool("python")?);
    command
        .args([
            "-m",
            "pypiserver",
            "run",
            "-i",
            host,
            "-p",
            port,
            "--disable-fallback",
            "-a",
            ".",
            "-P",
            ".",
        ])
        .arg(&wheels);
    Service::start("pypiserver", &folder.join("pypiserver.log"), command)
}

fn start_nginx(sandbox: &Sandbox, folder: &Path, certificates: &Certificates) -> Result<Service> {
    let text = format!(
        "user root; daemon off; master_process off;\n\
         pid {folder}/nginx.pid; error_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           log_format rig '$ssl_server_name \"$request\" $status';\n\
           access_log {folder}/access.log rig;\n\
           client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;\n\
           fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4;\n\
           scgi_temp_path {folder}/t5;\n\
           client_max_body_size 0;\n\
           server {{\n\
             listen {REGISTRY_ADDRESS}:443 ssl; server_name {INTERNAL_NAME};\n\
             ssl_certificate {certificate}; ssl_certificate_key {key};\n\
             proxy_set_header Host $http_host;\n\
             proxy_set_header X-Forwarded-Proto https;\n\
             proxy_set_header X-Forwarded-For $remote_addr;\n\
             location = / {{ default_type text/plain; return 200 \"{GREETING}\\n\"; }}\n\
             location /v2/ {{ proxy_pass http://{IMAGES}; }}\n\
             location / {{ proxy_pass http://{PACKAGES}; }}\n\
           }}\n\
         }}\n",
        folder = folder.display(),
        certificate = certificates.chain_path.display(),
        key = certificates.key_path.display(),
    );
    let config = write(&folder.join("nginx.conf"), &text)?;
    let mut command = sandbox.command(packages::path_of("nginx")?);
    command.arg("-e").arg("stderr").arg("-c").arg(config);
    Service::start("nginx", &folder.join("nginx.log"), command)
}

fn write(path: &Path, text: &str) -> Result<PathBuf> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path.to_owned())
}
