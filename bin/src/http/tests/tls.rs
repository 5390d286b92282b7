//! TCP: who has a certificate of the right authority comes in, and nobody else.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::super::{ApiListener, EngineProxy, ListenAddr, ServeOptions, TlsFiles, serve};
use super::fake::Fake;
use super::harness::reply;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(ca: &CertifiedIssuer<'static, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

async fn ask(
    port: u16,
    ca: &str,
    client: Option<&(String, String)>,
) -> Result<u16, Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match client {
        Some((cert, key)) => config.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes())?],
            PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        )?,
        None => config.with_no_client_auth(),
    };
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").await?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await?;
    Ok(reply(&raw).status)
}

fn write(folder: &Path, name: &str, content: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn only_certificates_of_the_given_authority_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (authority(), authority());
    let (cert, key) = issue(&ours);
    let files = TlsFiles {
        ca: write(folder.path(), "ca.pem", &ours.pem()),
        cert: write(folder.path(), "cert.pem", &cert),
        key: write(folder.path(), "key.pem", &key),
    };
    let addr: ListenAddr = "tcp://127.0.0.1:0".parse().unwrap();
    let listener = ApiListener::bind(&addr, Some(&files)).await.unwrap();
    let ListenAddr::Tcp(at) = *listener.addr() else { unreachable!() };
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(
        vec![listener],
        Fake::manager(),
        EngineProxy::default(),
        ServeOptions::default(),
        stopped,
    ));
    assert_eq!(ask(at.port(), &ours.pem(), Some(&issue(&ours))).await.unwrap(), 200);
    assert!(ask(at.port(), &ours.pem(), None).await.is_err());
    assert!(ask(at.port(), &ours.pem(), Some(&issue(&other))).await.is_err());
    // The refused ones have not harmed it.
    assert_eq!(ask(at.port(), &ours.pem(), Some(&issue(&ours))).await.unwrap(), 200);

    let missing = TlsFiles { key: folder.path().join("none"), ..files.clone() };
    assert!(ApiListener::bind(&addr, Some(&missing)).await.is_err());
    let swapped = TlsFiles { key: write(folder.path(), "other.pem", &issue(&ours).1), ..files };
    assert!(ApiListener::bind(&addr, Some(&swapped)).await.is_err());
}
