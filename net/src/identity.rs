//! Who a node is: its certificate and its key.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use shoal_core::model::{ClusterId, NodeId, Role, Timestamp};

use crate::ca::CLOCK_SKEW;

/// What a certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Common name.
    pub node_id: NodeId,
    /// Organisational unit.
    pub role: Role,
    /// Organisation.
    pub cluster_id: ClusterId,
    /// Index of the state that the certificate was made from, in its serial number. A state that is older says nothing
    /// against the role.
    pub as_of: u64,
}

/// A certificate or key is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate cannot be read, or names no node, role or cluster.
    #[error("the certificate is malformed: {0}")]
    Certificate(&'static str),
    /// The key cannot be made or read.
    #[error("the node's key: {0}")]
    Key(String),
}

/// The name of a role in certificates.
#[must_use]
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Manager => "swarm-manager",
        Role::Worker => "swarm-worker",
    }
}

/// The name that every node of a cluster answers to.
pub const ANY_NODE: &str = "swarm-node";

/// The name under which a node is dialled. Not its bare id: one of digits alone would be no host name.
#[must_use]
pub fn node_name(node: NodeId) -> String {
    format!("{node}.node")
}

impl Identity {
    /// What this certificate says. That it is genuine must have been verified.
    ///
    /// # Errors
    /// If it names no node, role or cluster.
    pub fn of(cert: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        parse(cert).map(|(identity, _, _)| identity)
    }
}

/// First byte of every serial number: positive, and no zero that would be left out.
const SERIAL_FORM: u8 = 1;

/// A serial number that carries the index of the state, and is another one for every key.
pub(crate) fn serial(as_of: u64, csr_der: &[u8]) -> Vec<u8> {
    let mut serial = vec![SERIAL_FORM];
    serial.extend(as_of.to_be_bytes());
    serial.extend(&digest(&SHA256, csr_der).as_ref()[..8]);
    serial
}

fn as_of_serial(serial: &[u8]) -> Option<u64> {
    match serial {
        [SERIAL_FORM, rest @ ..] if rest.len() == 16 => Some(u64::from_be_bytes(*rest.first_chunk()?)),
        _ => None,
    }
}

fn parse(cert: &[u8]) -> Result<(Identity, Timestamp, Timestamp), IdentityError> {
    let bad = IdentityError::Certificate;
    let (_, cert) = x509_parser::parse_x509_certificate(cert).map_err(|_| bad("not X.509"))?;
    let subject = cert.subject();
    let one = |mut values: Box<dyn Iterator<Item = &x509_parser::x509::AttributeTypeAndValue<'_>> + '_>,
               what| {
        let first = values.next().and_then(|v| v.as_str().ok()).ok_or_else(|| bad(what))?;
        if values.next().is_some() { Err(bad(what)) } else { Ok(first.to_owned()) }
    };
    let node = one(Box::new(subject.iter_common_name()), "common name")?;
    let role = one(Box::new(subject.iter_organizational_unit()), "organisational unit")?;
    let cluster = one(Box::new(subject.iter_organization()), "organisation")?;
    let identity = Identity {
        node_id: node.parse().map_err(|_| bad("the common name is no node id"))?,
        role: match role.as_str() {
            "swarm-manager" => Role::Manager,
            "swarm-worker" => Role::Worker,
            _ => return Err(bad("the organisational unit is no role")),
        },
        cluster_id: cluster.parse().map_err(|_| bad("the organisation is no cluster id"))?,
        as_of: as_of_serial(cert.raw_serial()).ok_or_else(|| bad("the serial number has another form"))?,
    };
    let millis = |t: i64| Timestamp(u64::try_from(t).unwrap_or(0).saturating_mul(1000));
    let validity = cert.validity();
    Ok((identity, millis(validity.not_before.timestamp()), millis(validity.not_after.timestamp())))
}

/// A node's private key.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new key. Ed25519: its signatures have one length, so that simulated runs repeat.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        KeyPair::generate_for(&PKCS_ED25519).map(Self).map_err(|e| IdentityError::Key(e.to_string()))
    }

    /// A certificate signing request, DER: the key and nothing else, since the authority decides the rest.
    ///
    /// # Errors
    /// If signing fails.
    pub fn csr(&self) -> Result<Vec<u8>, IdentityError> {
        let key_error = |e: rcgen::Error| IdentityError::Key(e.to_string());
        let mut params = CertificateParams::new(Vec::new()).map_err(key_error)?;
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0).map_err(key_error)?.der().to_vec())
    }
}

/// A node's certificate and key, and the root to verify others by.
pub struct Credentials {
    identity: Identity,
    key_der: Vec<u8>,
    cert_der: Vec<u8>,
    ca_der: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, until {:?})", self.identity, self.not_after)
    }
}

/// The file of the key, with the certificate behind it: a crash never leaves one without the other.
pub const KEY_FILE: &str = "node.key";
/// The file of the certificate alone, for people.
pub const CERT_FILE: &str = "node.crt";
/// The file of the root certificate.
pub const CA_FILE: &str = "ca.crt";

impl Credentials {
    /// What a node needs to speak to the others.
    ///
    /// # Errors
    /// If the certificate names no node, role or cluster, or belongs to another key.
    pub fn new(key: NodeKey, cert_der: Vec<u8>, ca_der: Vec<u8>) -> Result<Self, IdentityError> {
        Self::from_parts(key.0.serialize_der(), cert_der, ca_der)
    }

    fn from_parts(key_der: Vec<u8>, cert_der: Vec<u8>, ca_der: Vec<u8>) -> Result<Self, IdentityError> {
        let (identity, not_before, not_after) = parse(&cert_der)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key_der.clone()));
        let key = KeyPair::from_der_and_sign_algo(&der, &PKCS_ED25519)
            .map_err(|e| IdentityError::Key(e.to_string()))?;
        let (_, cert) = x509_parser::parse_x509_certificate(&cert_der)
            .map_err(|_| IdentityError::Certificate("not X.509"))?;
        if cert.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(IdentityError::Certificate("it belongs to another key"));
        }
        Ok(Self { identity, key_der, cert_der, ca_der, not_before, not_after })
    }

    /// Who this is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When the certificate ends.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// When to renew: at 50–80 % of the certificate's life, which begins when it is made and not when it is valid. Which is drawn from the certificate itself, so that
    /// nodes that joined together do not renew together, and a restart changes nothing.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let drawn = digest(&SHA256, &self.cert_der);
        let share = u64::from(u16::from_be_bytes([drawn.as_ref()[0], drawn.as_ref()[1]]));
        renewal(self.not_before.plus(CLOCK_SKEW), self.not_after, share)
    }

    /// The certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.cert_der
    }

    /// The root certificate, DER.
    #[must_use]
    pub fn root(&self) -> &[u8] {
        &self.ca_der
    }

    /// Whether the certificate has begun and has not ended.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from(self.cert_der.clone()), self.ca()]
    }

    pub(crate) fn ca(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.ca_der.clone())
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key_der.clone()).into()
    }

    /// What is to be kept, by the names of its files, in this order: once the last is there the node has a certificate.
    #[must_use]
    pub fn files(&self) -> [(&'static str, Vec<u8>); 3] {
        let mut both = u32::try_from(self.key_der.len()).unwrap_or(0).to_be_bytes().to_vec();
        both.extend(&self.key_der);
        both.extend(&self.cert_der);
        [(CA_FILE, self.ca_der.clone()), (CERT_FILE, self.cert_der.clone()), (KEY_FILE, both)]
    }

    /// What was kept, from the file of the key and that of the root.
    ///
    /// # Errors
    /// If they are malformed.
    pub fn from_files(both: &[u8], ca_der: Vec<u8>) -> Result<Self, IdentityError> {
        let cut = || IdentityError::Key("node.key is cut short".into());
        let (len, rest) = both.split_first_chunk::<4>().ok_or_else(cut)?;
        let (key, cert) = rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(cut)?;
        Self::from_parts(key.to_vec(), cert.to_vec(), ca_der)
    }
}

/// `share` of 65536ths of the way from 50 % to 80 % of a life.
fn renewal(from: Timestamp, until: Timestamp, share: u64) -> Timestamp {
    let life = until.0.saturating_sub(from.0);
    let least = life / 2;
    let most = life / 10 * 8;
    Timestamp(from.0 + least + (most - least) / 65_536 * share)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::ca::CertificateAuthority;

    fn credentials() -> Credentials {
        let (now, later) = (Timestamp(1_800_000_000_000), Timestamp(1_900_000_000_000));
        let cluster_id = ClusterId::from_u128(5);
        let ca = CertificateAuthority::create(cluster_id, now, later).unwrap();
        let key = NodeKey::generate().unwrap();
        let identity = Identity { node_id: NodeId::from_u128(7), role: Role::Worker, cluster_id, as_of: 9 };
        let cert = ca.sign(&key.csr().unwrap(), &identity, now, later).unwrap();
        Credentials::new(key, cert, ca.to_root_ca().cert_der).unwrap()
    }

    #[test]
    fn credentials_read_back_as_they_are_kept_and_damage_is_told() {
        let kept = credentials();
        let [(_, ca), _, (_, both)] = kept.files();
        let read = Credentials::from_files(&both, ca.clone()).unwrap();
        assert_eq!(read.identity(), kept.identity());
        assert_eq!(read.not_after(), kept.not_after());
        for len in [0, 3, 10] {
            assert!(matches!(Credentials::from_files(&both[..len], ca.clone()), Err(IdentityError::Key(_))));
        }
        assert!(Credentials::from_files(&both[..both.len() - 1], ca).is_err());
    }

    #[test]
    fn the_shortest_certificate_is_not_renewed_as_soon_as_it_is_made() {
        let (now, hour) = (Timestamp(1_800_000_000_000), Duration::from_secs(3600));
        let cluster_id = ClusterId::from_u128(5);
        let ca = CertificateAuthority::create(cluster_id, now, now.plus(hour * 24)).unwrap();
        let identity = Identity { node_id: NodeId::from_u128(7), role: Role::Worker, cluster_id, as_of: 9 };
        for _ in 0..20 {
            let key = NodeKey::generate().unwrap();
            let cert = ca.sign(&key.csr().unwrap(), &identity, now, now.plus(hour)).unwrap();
            let due = Credentials::new(key, cert, ca.to_root_ca().cert_der).unwrap().renew_at();
            assert!(due >= now.plus(hour / 2) && due <= now.plus(hour / 10 * 8), "{due:?}");
        }
    }

    #[test]
    fn the_authority_decides_name_and_role_not_the_request() {
        let identity = *credentials().identity();
        assert_eq!(
            (identity.node_id, identity.role, identity.as_of),
            (NodeId::from_u128(7), Role::Worker, 9)
        );
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let mine = credentials();
        let other = NodeKey::generate().unwrap();
        assert!(Credentials::new(other, mine.cert_der.clone(), mine.ca_der.clone()).is_err());
    }

    #[test]
    fn the_key_is_not_shown() {
        let shown = format!("{:?}", credentials());
        assert!(shown.len() < 400 && !shown.contains("key"), "{shown}");
    }

    proptest! {
        #[test]
        fn renewal_lies_between_half_and_four_fifths_of_the_life(from in 0u64..1 << 42, life in 1u64..1 << 42, share in 0u64..65_536) {
            let at = renewal(Timestamp(from), Timestamp(from + life), share).0;
            prop_assert!(at >= from + life / 2 && at <= from + life / 10 * 8 + 1 + life / 2 % 10, "{at}");
        }

        #[test]
        fn arbitrary_certificates_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
