//! The certificate authority in the managers, and join tokens.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SerialNumber,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use shoal_core::model::{ClusterId, RootCa, Secret, Timestamp};
use time::OffsetDateTime;

use crate::identity::{ANY_NODE, Identity, node_name, role_name, serial};

const TOKEN_PREFIX: &str = "SWMTKN-1-";
const DIGEST_CHARS: usize = 50;
const SECRET_CHARS: usize = 25;
const SECRET_BYTES: usize = 16;

/// Certificates are valid from so long before they are made: clocks differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Key or parameters are wrong.
    #[error("{0}")]
    Generate(#[from] rcgen::Error),
    /// The key cannot be read.
    #[error("the root key cannot be read")]
    Key,
    /// A time that certificates cannot carry.
    #[error("time {0:?} is out of range")]
    Time(Timestamp),
}

/// From when on a certificate is valid that is made now.
fn backdated(now: Timestamp) -> Timestamp {
    Timestamp(now.0.saturating_sub(u64::try_from(CLOCK_SKEW.as_millis()).unwrap_or(u64::MAX)))
}

fn date(at: Timestamp) -> Result<OffsetDateTime, CaError> {
    let seconds = i64::try_from(at.0 / 1000).map_err(|_| CaError::Time(at))?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CaError::Time(at))
}

/// Signs the certificates of a cluster's nodes.
pub struct CertificateAuthority {
    cert_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// A new root certificate with a new key.
    ///
    /// # Errors
    /// If no key can be made or a time is out of range.
    pub fn create(cluster: ClusterId, now: Timestamp, until: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "swarm-ca");
        params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date(backdated(now))?;
        params.not_after = date(until)?;
        let cert = params.self_signed(&key)?;
        Ok(Self { cert_der: cert.der().to_vec(), issuer: Issuer::new(params, key) })
    }

    /// The authority from what the state holds.
    ///
    /// # Errors
    /// If certificate or key are malformed.
    pub fn load(root: &RootCa) -> Result<Self, CaError> {
        let der = PrivateKeyDer::try_from(root.key_der.0.clone()).map_err(|_| CaError::Key)?;
        let key = KeyPair::from_der_and_sign_algo(&der, &PKCS_ED25519).map_err(|_| CaError::Key)?;
        let cert = CertificateDer::from(root.cert_der.clone());
        Ok(Self { issuer: Issuer::from_ca_cert_der(&cert, key)?, cert_der: root.cert_der.clone() })
    }

    /// What the state shall hold.
    #[must_use]
    pub fn to_root_ca(&self) -> RootCa {
        RootCa { cert_der: self.cert_der.clone(), key_der: Secret(self.issuer.key().serialize_der()) }
    }

    /// Sign a request. Only its key is taken from it (its signature proves that the caller has that key):
    /// name, role and use are decided here.
    ///
    /// # Errors
    /// If the request is malformed or a time is out of range.
    pub fn sign(
        &self,
        csr_der: &[u8],
        identity: &Identity,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<u8>, CaError> {
        let csr_der = CertificateSigningRequestDer::from(csr_der.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&csr_der)?;
        let (node, role) = (identity.node_id.to_string(), role_name(identity.role));
        let mut params =
            CertificateParams::new(vec![node_name(identity.node_id), role.to_owned(), ANY_NODE.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node);
        params.distinguished_name.push(DnType::OrganizationalUnitName, role);
        params.distinguished_name.push(DnType::OrganizationName, identity.cluster_id.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from(serial(identity.as_of, &csr_der)));
        params.not_before = date(backdated(now))?;
        params.not_after = date(until)?;
        request.params = params;
        Ok(request.signed_by(&self.issuer)?.der().to_vec())
    }
}

/// SHA-256 of a root certificate: what a join token pins.
#[must_use]
pub fn ca_digest(cert_der: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, cert_der).as_ref());
    out
}

/// `SWMTKN-1-<digest of the root certificate>-<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    digest: [u8; 32],
    secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

/// The text is not a join token. Does not repeat it: it may be one with a slip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "SWMTKN-1-DIGEST-SECRET is wanted, with 50 and 25 characters of 0-9 and a-z: copy it whole from `swarm join-token`"
)]
pub struct ParseTokenError;

impl JoinToken {
    /// A token with a fresh secret from the system's generator.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate(ca_cert_der: &[u8]) -> Result<Self, CaError> {
        let mut secret = [0; SECRET_BYTES];
        let rng = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&rng, &mut secret).map_err(|_| CaError::Key)?;
        Ok(Self { digest: ca_digest(ca_cert_der), secret })
    }

    /// Digest of the root certificate.
    #[must_use]
    pub const fn ca_digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = to_base36(&self.digest, DIGEST_CHARS);
        write!(f, "{TOKEN_PREFIX}{digest}-{}", to_base36(&self.secret, SECRET_CHARS))
    }
}

impl FromStr for JoinToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let rest = text.strip_prefix(TOKEN_PREFIX).ok_or(ParseTokenError)?;
        let (digest, secret) = rest.split_once('-').ok_or(ParseTokenError)?;
        if digest.len() != DIGEST_CHARS || secret.len() != SECRET_CHARS {
            return Err(ParseTokenError);
        }
        Ok(Self {
            digest: from_base36(digest).ok_or(ParseTokenError)?,
            secret: from_base36(secret).ok_or(ParseTokenError)?,
        })
    }
}

/// Whether two tokens are the same, in a time that does not tell where they differ.
#[must_use]
pub fn tokens_equal(a: &str, b: &str) -> bool {
    // Comparing digests hides the length too; empty ones are never equal, lest a missing token open the door.
    let (a_sum, b_sum) = (ca_digest(a.as_bytes()), ca_digest(b.as_bytes()));
    let differ = a_sum.iter().zip(b_sum.iter()).fold(0u8, |acc, (x, y)| acc | (x ^ y));
    differ == 0 && !a.is_empty()
}

fn to_base36(bytes: &[u8], chars: usize) -> String {
    let mut number = bytes.to_vec();
    let mut out = vec![b'0'; chars];
    for place in out.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 36).unwrap_or(u8::MAX);
            rest = value % 36;
        }
        *place = b"0123456789abcdefghijklmnopqrstuvwxyz"[rest as usize];
    }
    String::from_utf8(out).unwrap_or_default()
}

fn from_base36<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut number = [0u8; N];
    for c in text.bytes() {
        let mut carry = match c {
            b'0'..=b'9' => u32::from(c - b'0'),
            b'a'..=b'z' => u32::from(c - b'a') + 10,
            _ => return None,
        };
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_reads_back_as_written(digest: [u8; 32], secret: [u8; 16]) {
            let token = JoinToken { digest, secret };
            let text = token.to_string();
            prop_assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
            prop_assert_eq!(text.parse::<JoinToken>(), Ok(token));
        }

        #[test]
        fn parsing_never_panics(text: String) {
            let _ = text.parse::<JoinToken>();
            let _ = format!("SWMTKN-1-{text}").parse::<JoinToken>();
        }

        #[test]
        fn only_equal_tokens_are_equal(a in "[a-z]{0,4}", b in "[a-z]{0,4}") {
            prop_assert_eq!(tokens_equal(&a, &b), a == b && !a.is_empty());
        }
    }

    #[test]
    fn a_malformed_token_is_refused_without_repeating_it() {
        let error = "SWMTKN-1-supersecret".parse::<JoinToken>().unwrap_err().to_string();
        assert!(!error.contains("supersecret"), "{error}");
    }

    #[test]
    fn two_tokens_differ() {
        let (a, b) = (JoinToken::generate(b"x").unwrap(), JoinToken::generate(b"x").unwrap());
        assert_ne!(a, b);
        assert!(!format!("{a:?}").contains(&a.to_string()[60..]));
    }
}
