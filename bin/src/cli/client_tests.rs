//! The HTTP client against small servers: a unix socket and mutual TLS.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use super::client::{encode, filters};
use super::tls::TlsFiles;
use super::{CliError, Client, ClientError, Host};

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match request.uri().path() {
        "/echo" => (
            200,
            json!({"query": request.uri().query(), "type": request.headers().get("content-type").is_some()})
                .to_string(),
        ),
        "/empty" => (200, String::new()),
        "/refused" => (409, json!({"message": "name conflicts with an existing object"}).to_string()),
        "/bare" => (502, "bad gateway".to_owned()),
        "/garbled" => (200, "<html>".to_owned()),
        "/slow" => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            (200, String::new())
        }
        _ => (404, json!({"message": "no such thing"}).to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("status");
    Ok(response)
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

/// A client of a server on a unix socket, which lives as long as the folder.
fn unix() -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x.sock");
    let listener = UnixListener::bind(&path).expect("binds");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    (dir, Client::new(Host::Unix(path), None))
}

#[tokio::test]
async fn the_nodes_words_are_shown_when_it_refuses() {
    let (_dir, client) = unix();
    let error = client.post("/refused", &json!({})).await.expect_err("refused");
    assert_eq!(error.to_string(), "name conflicts with an existing object");
    assert_eq!(CliError::from(error).code(), 1);
    assert_eq!(client.get("/bare").await.expect_err("refused").to_string(), "bad gateway");
    assert!(client.delete("/none").await.expect_err("missing").is_missing());
}

#[tokio::test]
async fn an_empty_answer_is_null_and_a_garbled_one_an_error() {
    let (_dir, client) = unix();
    assert_eq!(client.post("/empty", &Value::Null).await.expect("fine"), Value::Null);
    assert!(matches!(client.get("/garbled").await, Err(ClientError::Garbled { .. })));
}

#[tokio::test]
async fn filters_arrive_as_they_were_meant() {
    let (_dir, client) = unix();
    let answer =
        client.get(&format!("/echo?{}", filters(&[("label", &["a=b c", "é"])]))).await.expect("fine");
    let query = answer["query"].as_str().expect("query");
    assert_eq!(query, format!("filters={}", encode(r#"{"label":["a=b c","é"]}"#)));
    assert!(query.is_ascii() && !query.contains([' ', '"', '{']), "{query}");
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_given_up() {
    let (_dir, client) = unix();
    let client = client.patience(Duration::from_millis(50));
    let error = client.get("/slow").await.expect_err("slow").to_string();
    assert!(error.contains("no answer within"), "{error}");
}

#[tokio::test]
async fn a_missing_node_is_named_with_what_to_do() {
    let client = Client::new(Host::Unix("/nowhere/x.sock".into()), None);
    let error = client.get("/info").await.expect_err("missing");
    assert!(error.is_unreachable());
    let words = error.to_string();
    assert!(words.contains("unix:///nowhere/x.sock") && words.contains("--host"), "{words}");
}

/// Writes CA, certificate and key for a name as `NAME.ca`, `NAME.cert` and `NAME.key`.
fn certificates(dir: &Path, issuer: &CertifiedIssuer<'_, KeyPair>, name: &str) -> TlsFiles {
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("params");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let cert = params.signed_by(&key, issuer).expect("signed");
    let path = |kind: &str| dir.join(format!("{name}.{kind}"));
    std::fs::write(path("ca"), issuer.pem()).expect("write");
    std::fs::write(path("cert"), cert.pem()).expect("write");
    std::fs::write(path("key"), key.serialize_pem()).expect("write");
    TlsFiles { ca: Some(path("ca")), cert: Some(path("cert")), key: Some(path("key")) }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("self-signed")
}

/// A server that wants client certificates of the authority; returns its address.
async fn tls_server(issuer: &CertifiedIssuer<'_, KeyPair>) -> String {
    let key = KeyPair::generate().expect("key");
    let params = CertificateParams::new(vec!["127.0.0.1".into()]).expect("params");
    let cert = params.signed_by(&key, issuer).expect("signed");
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).expect("root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .expect("verifier");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("config");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let addr = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(serve(stream));
            }
        }
    });
    addr
}

#[tokio::test]
async fn both_sides_show_certificates_over_tcp() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let addr = tls_server(&ours).await;
    let good = certificates(dir.path(), &ours, "good");
    let stranger = certificates(dir.path(), &theirs, "stranger");

    let ask = async |files: &TlsFiles| {
        let client = Client::new(Host::Tls(addr.clone()), Some(files.load().expect("loads")));
        client.get("/echo").await
    };
    ask(&good).await.expect("both certificates fit");
    ask(&TlsFiles { ca: stranger.ca.clone(), ..good.clone() }).await.expect_err("another authority's server");
    let refused = TlsFiles { ca: good.ca.clone(), ..stranger.clone() };
    assert!(ask(&refused).await.expect_err("another authority's client").is_unreachable());
}

#[tokio::test]
async fn unusable_certificate_files_are_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let files = certificates(dir.path(), &authority("a"), "x");
    let missing = TlsFiles { key: None, ..files.clone() };
    let error = missing.load().expect_err("missing");
    assert!(error.to_string().contains("--tls-key") && error.code() == 2);
    std::fs::write(dir.path().join("x.cert"), "not PEM").expect("write");
    assert!(files.load().expect_err("broken").to_string().contains("x.cert"));
}
