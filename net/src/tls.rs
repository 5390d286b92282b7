//! rustls configurations: TLS 1.3 with certificates on both sides, and never a resumed session, since that
//! would walk past the client verifier.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use shoal_core::model::Timestamp;
use shoal_wire::Protocol;

use crate::ca::ca_digest;
use crate::identity::Credentials;
use crate::line::Proof;

/// Tells the wall-clock time.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// rustls' word.
    #[error("TLS: {0}")]
    Rustls(#[from] Error),
    /// The verifier cannot be built.
    #[error("TLS verifier: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// No cipher suite for QUIC.
    #[error("TLS: {0}")]
    Suite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

struct WallClock(Clock);

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis((self.0)().0)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(credentials: &Credentials) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(credentials.ca())?;
    Ok(Arc::new(roots))
}

fn alpn(protocols: &[Protocol]) -> Vec<Vec<u8>> {
    protocols.iter().flat_map(|p| p.alpn()).map(|name| name.as_bytes().to_vec()).collect()
}

/// Our end of every connection that others open. A caller may come without a certificate; what it can then
/// do is in the table of access.
pub(crate) fn server(credentials: &Credentials, clock: &Clock) -> Result<QuicServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(credentials)?, provider())
        .allow_unauthenticated()
        .build()?;
    let mut config =
        rustls::ServerConfig::builder_with_details(provider(), Arc::new(WallClock(clock.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(credentials.chain(), credentials.key())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = alpn(&Protocol::ALL);
    Ok(QuicServerConfig::try_from(config)?)
}

/// Our end of connections that we open, with our certificate. The server must prove to be the node (or
/// role) whose name is dialled.
pub(crate) fn client(
    credentials: &Credentials,
    protocol: Protocol,
    clock: &Clock,
) -> Result<QuicClientConfig, TlsError> {
    let mut config =
        rustls::ClientConfig::builder_with_details(provider(), Arc::new(WallClock(clock.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots(credentials)?)
            .with_client_auth_cert(credentials.chain(), credentials.key())?;
    finish(&mut config, protocol);
    Ok(QuicClientConfig::try_from(config)?)
}

/// Our end of a connection to a manager whose root certificate is known by its digest alone.
pub(crate) fn joiner(pin: [u8; 32], clock: &Clock) -> Result<QuicClientConfig, TlsError> {
    let mut config =
        rustls::ClientConfig::builder_with_details(provider(), Arc::new(WallClock(clock.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedRoot { pin, provider: provider() }))
            .with_no_client_auth();
    finish(&mut config, Protocol::Join);
    Ok(QuicClientConfig::try_from(config)?)
}

fn server_name(name: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(name.to_owned()).map_err(|error| Error::General(error.to_string()))
}

fn unix(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(now.0))
}

/// What TLS does with the certificate of a server that we dial, without its handshake.
pub(crate) fn verify_server(
    proof: &Proof,
    name: &str,
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<(), TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match proof {
        Proof::Certificate(credentials) => {
            WebPkiServerVerifier::builder_with_provider(roots(credentials)?, provider()).build()?
        }
        Proof::Pinned(pin) => Arc::new(PinnedRoot { pin: *pin, provider: provider() }),
    };
    let (first, rest) = chain.split_first().ok_or_else(|| Error::General("no certificate".into()))?;
    verifier.verify_server_cert(first, rest, &server_name(name)?, &[], unix(now))?;
    Ok(())
}

/// What TLS does with the certificate of a client that dials us, without its handshake.
pub(crate) fn verify_client(
    server: &Credentials,
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<(), TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(server)?, provider()).build()?;
    let (first, rest) = chain.split_first().ok_or_else(|| Error::General("no certificate".into()))?;
    verifier.verify_client_cert(first, rest, unix(now))?;
    Ok(())
}

fn finish(config: &mut rustls::ClientConfig, protocol: Protocol) {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = alpn(&[protocol]);
}

/// Verifies a chain against the one root in it that has the pinned digest.
#[derive(Debug)]
struct PinnedRoot {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = intermediates.iter().find(|cert| ca_digest(cert) == self.pin);
        let root = root.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
