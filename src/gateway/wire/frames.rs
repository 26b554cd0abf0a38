//! WebSocket frames (RFC 6455 §5.2): the ones this gateway makes, and a tracker of frames in a stream of bytes.
//!
//! The library parses and builds frames of its own. The gateway tracks the same bytes to know where frames begin and
//! end, because that is where it may insert frames.

/// Opcodes (RFC 6455 §11.8).
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const PING: u8 = 9;
pub const PONG: u8 = 0xA;
/// Length of the payload of our pings.
pub const NONCE_BYTES: usize = 8;

/// Makes a ping frame, whose pong has to repeat the payload (RFC 6455 §5.5.3). It is unmasked, as a server's frames
/// are.
pub fn ping(nonce: [u8; NONCE_BYTES]) -> [u8; 2 + NONCE_BYTES] {
    let mut frame = [0; 2 + NONCE_BYTES];
    frame[..2].copy_from_slice(&[0x80 | PING, NONCE_BYTES as u8]);
    frame[2..].copy_from_slice(&nonce);
    frame
}

/// Makes the header of a server's text frame that holds a whole message of this length.
pub fn text_header(length: usize) -> Vec<u8> {
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

/// A frame that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The first byte of its header.
    first: u8,
    /// The first bytes of its payload, unmasked; [`NONCE_BYTES`] at most.
    pub start: &'a [u8],
    /// Length of its payload.
    pub length: u64,
    /// Offset behind its last byte, in the bytes given to [`FrameTracker::advance`].
    pub end: usize,
}

impl Frame<'_> {
    /// Returns its opcode.
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// Returns whether it is the last frame of its message.
    pub fn is_final(&self) -> bool {
        self.first & 0x80 != 0
    }

    /// Returns whether it is a control frame, which may come between the frames of a message (RFC 6455 §5.5).
    pub fn is_control(&self) -> bool {
        self.opcode() >= 8
    }
}

/// Tracks the frames in the bytes of one direction, which may come in pieces of any length.
#[derive(Debug, Default)]
pub struct FrameTracker {
    header: [u8; 14],
    /// Bytes of `header` that have come; 0 inside a payload.
    header_len: u8,
    /// Bytes of the payload that are still to come.
    payload_left: u64,
    /// The first bytes of the payload, and their number.
    start: [u8; NONCE_BYTES],
    start_len: u8,
}

impl FrameTracker {
    /// Takes the next bytes, and calls `on_end` for each frame that ends in them.
    pub fn advance(&mut self, mut bytes: &[u8], mut on_end: impl FnMut(Frame<'_>)) {
        let total = bytes.len();
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                bytes = self.take_payload(bytes);
            } else {
                self.header[usize::from(self.header_len)] = bytes[0];
                self.header_len += 1;
                bytes = &bytes[1..];
                let Some(length) = self.payload_length(self.header_len) else { continue };
                self.payload_left = length;
                self.header_len = 0;
            }
            if self.is_at_boundary() {
                self.unmask_start();
                on_end(Frame {
                    first: self.header[0],
                    start: &self.start[..usize::from(self.start_len)],
                    length: self.payload_length(self.header.len() as u8).unwrap_or_default(),
                    end: total - bytes.len(),
                });
                self.start_len = 0;
            }
        }
    }

    /// Returns whether the next byte is the first of a frame.
    pub fn is_at_boundary(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0
    }

    /// Returns the number of payload bytes that have come of a frame that has not ended.
    pub fn unfinished_bytes(&self) -> u64 {
        if self.payload_left == 0 {
            return 0;
        }
        let length = self.payload_length(self.header.len() as u8).unwrap_or_default();
        length.saturating_sub(self.payload_left)
    }

    /// Takes bytes of the payload, and returns the bytes behind it.
    fn take_payload<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let length = bytes.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
        let (payload, rest) = bytes.split_at(length);
        let free = &mut self.start[usize::from(self.start_len)..];
        let copied = length.min(free.len());
        free[..copied].copy_from_slice(&payload[..copied]);
        self.start_len += copied as u8;
        self.payload_left -= length as u64;
        rest
    }

    /// Undoes the mask of a client's frame, which is the last four bytes of its header.
    fn unmask_start(&mut self) {
        if self.header[1] & 0x80 == 0 {
            return;
        }
        let at = 2 + match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = [0, 1, 2, 3].map(|byte| self.header[at + byte]);
        self.start.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }

    /// Returns the length of the payload, if the first `header_len` bytes hold the whole header.
    fn payload_length(&self, header_len: u8) -> Option<u64> {
        let header = &self.header[..usize::from(header_len)];
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Makes a frame (RFC 6455 §5.2).
    fn frame(opcode: u8, length: usize, is_masked: bool) -> Vec<u8> {
        let mut bytes = text_header(length);
        bytes[0] = 0x80 | opcode;
        bytes[1] |= if is_masked { 0x80 } else { 0 };
        // These bytes would be headers if the tracker took them for headers.
        bytes.resize(bytes.len() + length + if is_masked { 4 } else { 0 }, 0x8a);
        bytes
    }

    #[test]
    fn the_start_of_a_masked_payload_is_unmasked() {
        let mut frame = vec![0x80 | PONG, 0x80 | 10, 1, 2, 3, 4];
        frame.extend((0..10_u8).map(|at| (b'a' + at) ^ [1, 2, 3, 4][usize::from(at) % 4]));
        let mut starts = Vec::new();
        FrameTracker::default().advance(&frame, |ended| starts.push(ended.start.to_vec()));
        assert_eq!(starts, [b"abcdefgh"]);
    }

    #[test]
    fn bytes_of_an_unfinished_frame_are_counted_until_its_end() {
        let mut tracker = FrameTracker::default();
        let mut unfinished = |bytes: &[u8]| {
            tracker.advance(bytes, |ended| assert_eq!(ended.length, 200));
            tracker.unfinished_bytes()
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
        fn frames_are_tracked_through_pieces_of_any_length(
            frames in vec((0..16_u8, prop_oneof![0..300_usize, 65_530..65_540_usize], any::<bool>()), 1..6),
            pieces in vec(prop_oneof![1..5_usize, 1..40_000_usize], 1..50),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (opcode, length, is_masked) in &frames {
                bytes.extend(frame(*opcode, *length, *is_masked));
                ends.push(bytes.len());
            }
            let (mut tracker, mut ended, mut at) = (FrameTracker::default(), Vec::new(), 0);
            let mut pieces = pieces.iter().cycle();
            while at < bytes.len() {
                let to = bytes.len().min(at + pieces.next().unwrap());
                tracker.advance(&bytes[at..to], |frame| {
                    assert!(ends.contains(&(at + frame.end)));
                    ended.push((frame.opcode(), frame.start.len()));
                });
                at = to;
                prop_assert_eq!(tracker.is_at_boundary(), ends.contains(&at));
            }
            let all = frames.iter().map(|(opcode, length, _)| (*opcode, (*length).min(NONCE_BYTES)));
            prop_assert_eq!(ended, all.collect::<Vec<_>>());
        }
    }
}
