//! Frames on a stream: length, kind, body. An unknown kind is skipped, so that a newer peer may say more.

use bytes::{Buf as _, Bytes, BytesMut};
use shoal_wire::Kind;
use shoal_wire::codec::MESSAGE_BYTES_MAX;

use crate::line::{Rx, Tx};

const HEAD_BYTES: usize = 6;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its content.
    pub body: Vec<u8>,
}

/// A stream broke, or what came over it is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Too long to be taken or sent.
    #[error("a frame of {0} bytes, and at most {MESSAGE_BYTES_MAX} are taken")]
    TooLong(usize),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    CutShort,
    /// The connection failed.
    #[error("{0}")]
    Lost(String),
}

/// Takes frames out of bytes as they come. Pure.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    /// Bytes of an unknown frame that are still to be dropped.
    skip: usize,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let dropped = self.skip.min(bytes.len());
        self.skip -= dropped;
        self.buffer.extend_from_slice(&bytes[dropped..]);
    }

    /// The next frame, if it is there whole.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let Some(head) = self.buffer.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
            let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let tag = u16::from_be_bytes([head[4], head[5]]);
            if len > MESSAGE_BYTES_MAX {
                return Err(FrameError::TooLong(len));
            }
            let Some(kind) = Kind::from_tag(tag) else {
                self.buffer.advance(HEAD_BYTES);
                let there = len.min(self.buffer.len());
                self.buffer.advance(there);
                self.skip = len - there;
                continue;
            };
            if self.buffer.len() < HEAD_BYTES + len {
                return Ok(None);
            }
            self.buffer.advance(HEAD_BYTES);
            let body = self.buffer.split_to(len).to_vec();
            return Ok(Some(Frame { kind, body }));
        }
    }

    fn is_between_frames(&self) -> bool {
        self.buffer.is_empty() && self.skip == 0
    }
}

/// A frame as bytes.
pub(crate) fn encode(kind: Kind, body: &[u8]) -> Result<Vec<u8>, FrameError> {
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(FrameError::TooLong(body.len()));
    }
    let len = u32::try_from(body.len()).map_err(|_| FrameError::TooLong(body.len()))?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend(len.to_be_bytes());
    bytes.extend((kind as u16).to_be_bytes());
    bytes.extend(body);
    Ok(bytes)
}

/// The sending end of a stream.
#[derive(Debug)]
pub struct FrameSender {
    stream: Box<dyn Tx>,
    /// Goes out with what is sent first: one packet instead of two.
    before: Vec<u8>,
}

impl FrameSender {
    /// Of a stream.
    #[must_use]
    pub fn new(stream: Box<dyn Tx>) -> Self {
        Self::with(stream, Vec::new())
    }

    /// Of a stream on which this is to be said first.
    pub(crate) fn with(stream: Box<dyn Tx>, before: Vec<u8>) -> Self {
        Self { stream, before }
    }

    /// Send a frame. Waits while the peer does not read.
    ///
    /// # Errors
    /// If the frame is too long or the stream is closed.
    pub async fn send(&mut self, kind: Kind, body: Vec<u8>) -> Result<(), FrameError> {
        let mut bytes = std::mem::take(&mut self.before);
        bytes.extend(encode(kind, &body)?);
        self.stream.write(bytes.into()).await.map_err(FrameError::Lost)
    }

    /// Send what is to be said first, with no frame.
    ///
    /// # Errors
    /// If the stream is closed.
    pub async fn begin(&mut self) -> Result<(), FrameError> {
        let before = std::mem::take(&mut self.before);
        if before.is_empty() {
            Ok(())
        } else {
            self.stream.write(before.into()).await.map_err(FrameError::Lost)
        }
    }

    /// The stream itself, for what is no frames, and what is to be said on it first.
    #[must_use]
    pub fn into_raw(self) -> (Vec<u8>, Box<dyn Tx>) {
        (self.before, self.stream)
    }

    /// Nothing more will be sent.
    ///
    /// # Errors
    /// If the stream is closed already.
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        self.stream.finish().map_err(FrameError::Lost)
    }
}

/// The receiving end of a stream.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: Box<dyn Rx>,
    decoder: Decoder,
}

impl FrameReceiver {
    pub(crate) fn new(stream: Box<dyn Rx>) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    /// Of whose stream this much was read already.
    pub(crate) fn with(stream: Box<dyn Rx>, first: &[u8]) -> Self {
        let mut receiver = Self::new(stream);
        receiver.decoder.push(first);
        receiver
    }

    /// The stream itself, for what is no frames, and what was read of it already.
    #[must_use]
    pub fn into_raw(self) -> (Bytes, Box<dyn Rx>) {
        (self.decoder.buffer.freeze(), self.stream)
    }

    /// The next frame; none once the peer has finished. May be dropped while it waits without losing anything.
    ///
    /// # Errors
    /// If the stream breaks or what comes is no frame.
    pub async fn recv(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(Some(frame));
            }
            match self.stream.read().await.map_err(FrameError::Lost)? {
                Some(bytes) => self.decoder.push(&bytes),
                None if self.decoder.is_between_frames() => return Ok(None),
                None => return Err(FrameError::CutShort),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10),
            cuts in prop::collection::vec(1usize..20, 1..50),
            unknown: bool,
        ) {
            let mut bytes = Vec::new();
            for body in &bodies {
                if unknown {
                    bytes.extend(3u32.to_be_bytes());
                    bytes.extend(60_000u16.to_be_bytes());
                    bytes.extend([1, 2, 3]);
                }
                bytes.extend(encode(Kind::Gossip, body).unwrap());
            }
            let (mut decoder, mut out, mut rest) = (Decoder::default(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                decoder.push(now);
                rest = later;
                while let Some(frame) = decoder.next().unwrap() {
                    out.push(frame.body);
                }
            }
            prop_assert_eq!(out, bodies);
            prop_assert!(decoder.is_between_frames());
        }

        #[test]
        fn arbitrary_bytes_never_panic_nor_grow(chunks: Vec<Vec<u8>>) {
            let mut decoder = Decoder::default();
            for chunk in chunks {
                decoder.push(&chunk);
                while let Ok(Some(_)) = decoder.next() {}
            }
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_at_its_head() {
        let mut decoder = Decoder::default();
        decoder.push(&[0xff, 0xff, 0xff, 0xff, 0, 1]);
        assert!(matches!(decoder.next(), Err(FrameError::TooLong(_))));
    }
}
