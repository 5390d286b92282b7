//! The client's side of a TCP API: which authority to trust, and which certificate to show.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::error::{CliError, Outcome};

/// Files of the client's TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsFiles {
    /// Authority of the server's certificate.
    pub(crate) ca: Option<PathBuf>,
    /// Our certificate.
    pub(crate) cert: Option<PathBuf>,
    /// Its key.
    pub(crate) key: Option<PathBuf>,
}

impl TlsFiles {
    /// Read the files.
    pub(crate) fn load(&self) -> Outcome<Arc<ClientConfig>> {
        let need = |file: &Option<PathBuf>, flag: &str| {
            file.clone().ok_or_else(|| {
                CliError::Usage(format!("a tcp:// host is spoken to with TLS: name a file with {flag}"))
            })
        };
        let (ca, cert, key) =
            (need(&self.ca, "--tls-ca")?, need(&self.cert, "--tls-cert")?, need(&self.key, "--tls-key")?);
        let mut roots = RootCertStore::empty();
        for root in certificates(&ca)? {
            roots.add(root).map_err(|e| unusable(&ca, e))?;
        }
        let key_der = PrivateKeyDer::from_pem_file(&key).map_err(|e| unusable(&key, e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(CliError::failed)?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&cert)?, key_der)
            .map(Arc::new)
            .map_err(|e| unusable(&cert, e))
    }
}

fn certificates(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|e| unusable(path, e))?.collect();
    match found {
        Ok(found) if found.is_empty() => Err(unusable(path, "no certificate is in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(path, error)),
    }
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!("cannot use {}: {why}", path.display()))
}
