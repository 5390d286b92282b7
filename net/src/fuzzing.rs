//! What the fuzz targets reach into: decoders of bytes that come from a socket.

use chitchat::{ChitchatMessage, Deserializable as _};
use rustls::pki_types::CertificateDer;
use shoal_core::names::NameTable;

use crate::frame::Decoder;
use crate::identity::Identity;

/// Frames, however the bytes are cut: the pieces are as long as the first byte says.
pub fn frames(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let mut whole = Decoder::default();
    whole.push(bytes);
    let at_once = drain(&mut whole);
    let mut decoder = Decoder::default();
    let mut piecewise = Vec::new();
    for piece in bytes.chunks(usize::from(*cut).max(1)) {
        decoder.push(piece);
        piecewise.extend(drain(&mut decoder));
    }
    assert_eq!(at_once, piecewise, "the cuts decide what is read");
}

/// Frames up to the first error.
fn drain(decoder: &mut Decoder) -> Vec<(u16, Vec<u8>)> {
    std::iter::from_fn(|| decoder.next().ok().flatten())
        .map(|frame| (frame.kind as u16, frame.body))
        .collect()
}

/// A certificate.
pub fn certificate(data: &[u8]) {
    let _ = Identity::of(&CertificateDer::from(data));
}

/// A message of gossip.
pub fn gossip(data: &[u8]) {
    let _ = ChitchatMessage::deserialize(&mut &data[..]);
}

/// A connection of the mesh that may be HTTP: the first byte says where the client's bytes end, the second how they are cut.
pub fn exchanges(data: &[u8]) {
    let [at, cut, bytes @ ..] = data else { return };
    let (asked, answered) = bytes.split_at(bytes.len() * usize::from(*at) / 256);
    crate::mesh::http::fuzz(asked, answered, usize::from(*cut));
}

/// A message to the name server.
pub fn names(data: &[u8], table: &NameTable) {
    crate::names::fuzz(data, table);
}
