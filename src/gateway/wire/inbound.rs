//! The bytes that a client sends over a WebSocket, inspected on their way to the library.
//!
//! The inspection decides by the bytes alone, so it is tested as a value; `stream/` acts on the findings.

use super::{
    frames::{BINARY, Frame, FrameTracker, PONG, TEXT},
    payload::{KIND_BYTES, MESSAGE, NOOP, OTHER_NAMESPACE, announces_attachments},
};

/// A packet that every client may send at any time. It replaces a [`NOOP`], which Swift's client sends after an upgrade
/// and for which the library would end the session.
const HEARTBEAT: u8 = b'2';

/// Inspects the frames of one client.
#[derive(Debug, Default)]
pub struct Inbound {
    frames: FrameTracker,
    /// Payload bytes of the ended frames of a message that goes on in another frame.
    message_bytes: u64,
    /// The library will keep the current message until its event is complete, because it is a binary attachment or the
    /// text that announces one.
    is_kept: bool,
}

/// A finding in the bytes of a client.
#[derive(Debug, PartialEq)]
pub enum Found<'a> {
    /// A pong with this payload.
    Pong(&'a [u8]),
    /// A text message begins. It is a message of Socket.IO, or another packet of Engine.IO.
    Text { is_socket_io: bool, wants_other_namespace: bool },
    /// A message of this many bytes has ended that the library keeps.
    Kept(usize),
}

impl Inbound {
    /// Inspects the next bytes, and returns how many frames have ended in them. A [`NOOP`] becomes a [`HEARTBEAT`].
    pub fn inspect(&mut self, bytes: &mut [u8], mut on_found: impl FnMut(Found<'_>)) -> usize {
        let (mut frame_count, mut noops) = (0, Vec::new());
        let Self { frames, message_bytes, is_kept } = self;
        frames.advance(bytes, |frame| {
            frame_count += 1;
            match frame.opcode() {
                PONG => on_found(Found::Pong(frame.start)),
                BINARY => *is_kept = true,
                TEXT => {
                    // A message in fragments too small to tell its kind counts as one that is kept.
                    let is_unclear = !frame.is_final() && frame.start.len() < KIND_BYTES;
                    *is_kept = is_unclear || announces_attachments(frame.start);
                    on_found(inspect_text(&frame));
                    if frame.is_final()
                        && *message_bytes == 0
                        && frame.length == 1
                        && frame.start == NOOP.as_bytes()
                    {
                        noops.push(frame.end - 1);
                    }
                }
                _ => {}
            }
            if !frame.is_control() {
                *message_bytes = message_bytes.saturating_add(frame.length);
                if frame.is_final() {
                    let length = std::mem::take(message_bytes);
                    if *is_kept {
                        on_found(Found::Kept(length as usize));
                    }
                }
            }
        });
        for at in noops {
            // The byte is masked, and XOR changes it in the same way under any mask.
            bytes[at] ^= NOOP.as_bytes()[0] ^ HEARTBEAT;
        }
        frame_count
    }

    /// Returns the number of bytes that have come of a message that has not ended.
    pub fn unfinished_bytes(&self) -> usize {
        self.message_bytes.saturating_add(self.frames.unfinished_bytes()) as usize
    }
}

fn inspect_text(frame: &Frame<'_>) -> Found<'static> {
    // A first fragment too small to tell the namespace counts as a request for another one.
    let is_hidden = !frame.is_final() && frame.start.len() < OTHER_NAMESPACE.len();
    Found::Text {
        is_socket_io: frame.start.starts_with(MESSAGE.as_bytes()),
        wants_other_namespace: is_hidden || frame.start.starts_with(OTHER_NAMESPACE.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINAL: u8 = 0x80;

    /// Makes a client's frame, masked with a key.
    fn frame(first: u8, payload: &str) -> Vec<u8> {
        let key = [7, 8, 9, 10];
        let masked = payload.bytes().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        [first, 0x80 | payload.len() as u8].into_iter().chain(key).chain(masked).collect()
    }

    fn inspect(inbound: &mut Inbound, bytes: &mut [u8]) -> Vec<String> {
        let mut found = Vec::new();
        inbound.inspect(bytes, |one| found.push(format!("{one:?}")));
        found
    }

    #[test]
    fn a_packet_without_a_meaning_becomes_a_heartbeat() {
        for (payload, wanted) in [("6", "2"), ("66", "66"), ("2", "2")] {
            let mut bytes = frame(FINAL | TEXT, payload);
            inspect(&mut Inbound::default(), &mut bytes);
            assert_eq!(bytes, frame(FINAL | TEXT, wanted));
        }
        let mut bytes = frame(TEXT, "6");
        inspect(&mut Inbound::default(), &mut bytes);
        assert_eq!(bytes, frame(TEXT, "6"), "a fragment");
    }

    #[test]
    fn messages_that_the_library_keeps_are_counted_at_their_end() {
        let text = "Text { is_socket_io: true, wants_other_namespace: false }";
        let mut inbound = Inbound::default();
        assert_eq!(inspect(&mut inbound, &mut frame(FINAL | TEXT, "42[]")), [text]);
        assert_eq!(inspect(&mut inbound, &mut frame(FINAL | TEXT, "451-[]")), [text, "Kept(6)"]);
        assert_eq!(inspect(&mut inbound, &mut frame(BINARY, "abc")), [""; 0]);
        assert_eq!(inbound.unfinished_bytes(), 3);
        assert_eq!(inspect(&mut inbound, &mut frame(FINAL | PONG, "x")), ["Pong([120])"]);
        assert_eq!(inspect(&mut inbound, &mut frame(FINAL, "de")), ["Kept(5)"]);
        assert_eq!(inbound.unfinished_bytes(), 0);
    }

    #[test]
    fn a_message_in_tiny_fragments_counts_as_kept_and_as_a_request_for_another_namespace() {
        let hidden = "Text { is_socket_io: true, wants_other_namespace: true }";
        let mut inbound = Inbound::default();
        assert_eq!(inspect(&mut inbound, &mut frame(TEXT, "4")), [hidden]);
        assert_eq!(inspect(&mut inbound, &mut frame(FINAL, "2[]")), ["Kept(4)"]);
        assert_eq!(inspect(&mut inbound, &mut frame(FINAL | TEXT, "40/x,")), [hidden]);
    }
}
