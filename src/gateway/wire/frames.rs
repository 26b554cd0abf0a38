//! WebSocket frames (RFC 6455 §5.2): followed through bytes that come in any pieces, and made.

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const PING: u8 = 9;
pub const PONG: u8 = 0xA;
/// Bytes of the payload of our pings.
pub const NONCE_BYTES: usize = 8;
/// A ping frame with a payload that its pong has to repeat (RFC 6455 §5.5.3).
pub type Ping = [u8; 2 + NONCE_BYTES];

/// Makes a ping frame, unmasked as a server's frames are.
pub fn ping(nonce: [u8; NONCE_BYTES]) -> Ping {
    let mut frame = [0; 2 + NONCE_BYTES];
    frame[..2].copy_from_slice(&[0x80 | PING, NONCE_BYTES as u8]);
    frame[2..].copy_from_slice(&nonce);
    frame
}

/// Of a frame's first byte.
pub fn opcode(first: u8) -> u8 {
    first & 0x0f
}

/// Does the message go on in another frame?
pub fn is_begun(first: u8) -> bool {
    first & 0x80 == 0
}

/// Is it a frame between those of messages (RFC 6455 §5.5)?
pub fn is_control(first: u8) -> bool {
    opcode(first) >= 8
}

/// A frame that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// Its first byte.
    pub first: u8,
    /// How its payload starts, as it was meant before it was masked.
    pub start: &'a [u8],
    /// Bytes of its payload.
    pub length: u64,
    /// Where it ends in the bytes that were passed over.
    pub end: usize,
}

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; 14],
    /// Bytes of the header so far.
    have: u8,
    /// Bytes of the payload still to come.
    left: u64,
    /// The first bytes of the payload, and how many of them there are.
    start: [u8; NONCE_BYTES],
    started: u8,
}

impl Frames {
    /// Passes over bytes; `ended` is told of each frame that ends in them.
    pub fn pass(&mut self, mut bytes: &[u8], mut ended: impl FnMut(Ended<'_>)) {
        let whole = bytes.len();
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                let (payload, rest) = bytes.split_at(length);
                let free = &mut self.start[usize::from(self.started)..];
                let wanted = length.min(free.len());
                free[..wanted].copy_from_slice(&payload[..wanted]);
                self.started += wanted as u8;
                self.left -= length as u64;
                bytes = rest;
            } else {
                self.header[usize::from(self.have)] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                let Some(length) = self.payload(self.have) else { continue };
                self.left = length;
                self.have = 0;
            }
            if self.left == 0 && self.have == 0 {
                if self.header[1] & 0x80 != 0 {
                    let mask = self.mask();
                    self.start.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
                }
                ended(Ended {
                    first: self.header[0],
                    start: &self.start[..usize::from(self.started)],
                    length: self.payload(self.header.len() as u8).unwrap_or_default(),
                    end: whole - bytes.len(),
                });
                self.started = 0;
            }
        }
    }

    pub fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Bytes of the payload that have come of a frame that has not ended.
    pub fn unfinished(&self) -> u64 {
        let length = if self.left > 0 { self.payload(self.header.len() as u8) } else { None };
        length.map_or(0, |length| length.saturating_sub(self.left))
    }

    /// Of a client's frame, the last four bytes of its header.
    fn mask(&self) -> [u8; 4] {
        let at = 2 + match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        [0, 1, 2, 3].map(|byte| self.header[at + byte])
    }

    /// The length of the payload, once so many bytes are the whole header.
    fn payload(&self, have: u8) -> Option<u64> {
        let header = &self.header[..usize::from(have)];
        let second = *header.get(1)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (extended, length) = match second & 0x7f {
            126 => (2, u64::from(u16::from_be_bytes(header.get(2..4)?.try_into().ok()?))),
            127 => (8, u64::from_be_bytes(header.get(2..10)?.try_into().ok()?)),
            length => (0, u64::from(length)),
        };
        (header.len() >= 2 + extended + mask).then_some(length)
    }
}

/// The header of a whole text frame from a server.
pub fn header(length: usize) -> Vec<u8> {
    let mut header = vec![0x80 | TEXT];
    match length {
        0..126 => header.push(length as u8),
        126..65_536 => {
            header.push(126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend((length as u64).to_be_bytes());
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// A frame as RFC 6455 §5.2 has it.
    fn frame(opcode: u8, length: usize, is_masked: bool) -> Vec<u8> {
        let mut bytes = header(length);
        bytes[0] = 0x80 | opcode;
        bytes[1] |= if is_masked { 0x80 } else { 0 };
        // Bytes that would be headers if they were taken for some.
        bytes.resize(bytes.len() + length + if is_masked { 4 } else { 0 }, 0x8a);
        bytes
    }

    #[test]
    fn the_start_of_a_masked_payload_is_read_as_it_was_meant() {
        let mut frame = vec![0x80 | PONG, 0x80 | 10, 1, 2, 3, 4];
        frame.extend((0..10_u8).map(|at| (b'a' + at) ^ [1, 2, 3, 4][usize::from(at) % 4]));
        let mut starts = Vec::new();
        Frames::default().pass(&frame, |ended| starts.push(ended.start.to_vec()));
        assert_eq!(starts, [b"abcdefgh"]);
    }

    #[test]
    fn what_has_come_of_a_frame_is_counted_until_its_end() {
        let mut follower = Frames::default();
        let mut unfinished = |bytes: &[u8]| {
            follower.pass(bytes, |ended| assert_eq!(ended.length, 200));
            follower.unfinished()
        };
        let whole = frame(TEXT, 200, true);
        assert_eq!((unfinished(&whole[..108]), unfinished(&whole[108..])), (100, 0));
        assert_eq!(
            (unfinished(&whole[..8]), unfinished(&whole[8..207]), unfinished(&whole[207..])),
            (0, 199, 0)
        );
    }

    proptest! {
        #[test]
        fn frames_are_followed_through_pieces_of_any_length(
            frames in vec((0..16_u8, prop_oneof![0..300_usize, 65_530..65_540_usize], any::<bool>()), 1..6),
            pieces in vec(prop_oneof![1..5_usize, 1..40_000_usize], 1..50),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (opcode, length, is_masked) in &frames {
                bytes.extend(frame(*opcode, *length, *is_masked));
                ends.push(bytes.len());
            }
            let (mut follower, mut ended, mut at) = (Frames::default(), Vec::new(), 0);
            let mut pieces = pieces.iter().cycle();
            while at < bytes.len() {
                let to = bytes.len().min(at + pieces.next().unwrap());
                follower.pass(&bytes[at..to], |frame| {
                    assert!(ends.contains(&(at + frame.end)));
                    ended.push((opcode(frame.first), frame.start.len()));
                });
                at = to;
                prop_assert_eq!(follower.is_between(), ends.contains(&at));
            }
            let all = frames.iter().map(|(opcode, length, _)| (*opcode, (*length).min(NONCE_BYTES)));
            prop_assert_eq!(ended, all.collect::<Vec<_>>());
        }
    }
}
