//! A WebSocket that a polling session opens is held back from the library until it is known to work.
//!
//! The library ends a session whose WebSocket opens and then carries nothing. On mobile networks that is common: a
//! middlebox answers the handshake and swallows the frames. So the first packets of the change are exchanged here
//! (Engine.IO protocol, "Upgrade"): the client sends `2probe`, is answered `3probe`, and then sends `5`. Until then the
//! session is unchanged. Some clients, such as Arduino's, send `5` at once, which Node's server accepts too.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    frames::{FrameTracker, TEXT, text_header},
    polls::UpgradeGuard,
};

/// Time for a client to send `5`, the same as in Node's server.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that a client may send until then; it needs a few.
const MAX_UPGRADE_BYTES: usize = 1_024;
const PROBE: &[u8] = b"2probe";
/// [`PROBE`] as a client's frame, masked with zeros. The library requires it, also of a client that sends none.
const PROBE_FRAME: [u8; 12] = *b"\x81\x86\x00\x00\x00\x002probe";
const UPGRADE: &[u8] = b"5";
const PROBE_ANSWER: &str = "3probe";
/// Length of the frame with which the library answers the probe too; it is not written.
pub const LIBRARY_ANSWER_BYTES: usize = 2 + PROBE_ANSWER.len();

/// Waits until the client confirms the change. Returns the bytes that it has sent, for the library to read, or `None`
/// if it does not change.
pub async fn wait_for_upgrade(
    stream: &mut TcpStream,
    already_read: Bytes,
    guard: &UpgradeGuard,
) -> Option<Bytes> {
    timeout(UPGRADE_TIMEOUT, negotiate(stream, already_read, guard)).await.ok().flatten()
}

async fn negotiate(stream: &mut TcpStream, already_read: Bytes, guard: &UpgradeGuard) -> Option<Bytes> {
    let mut read = BytesMut::from(&already_read[..]);
    let mut dialogue = Dialogue::default();
    let (mut seen, mut is_answered) = (0, false);
    loop {
        let step = dialogue.read(&read[seen..]);
        seen = read.len();
        if dialogue.has_probed && !is_answered {
            let frame = [&text_header(PROBE_ANSWER.len()), PROBE_ANSWER.as_bytes()].concat();
            stream.write_all(&frame).await.ok()?;
            guard.record_probe();
            is_answered = true;
        }
        match step {
            Step::Wait if read.len() < MAX_UPGRADE_BYTES => {}
            Step::Upgrade if dialogue.has_probed => return Some(read.freeze()),
            Step::Upgrade => {
                guard.record_probe();
                return Some([&PROBE_FRAME[..], &read].concat().into());
            }
            Step::Wait | Step::End => return None,
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

/// The frames that the client has sent so far.
#[derive(Default)]
struct Dialogue {
    frames: FrameTracker,
    has_probed: bool,
}

/// The next step of the server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Wait,
    Upgrade,
    End,
}

impl Dialogue {
    /// Reads the next bytes. A frame that does not belong here ends the attempt, because the library would not accept
    /// it either.
    fn read(&mut self, bytes: &[u8]) -> Step {
        let mut step = Step::Wait;
        let has_probed = &mut self.has_probed;
        self.frames.advance(bytes, |frame| {
            if step != Step::Wait {
                return;
            }
            let text = (frame.opcode() == TEXT && frame.is_final()).then_some(frame.start);
            match text {
                Some(PROBE) if !*has_probed => *has_probed = true,
                Some(UPGRADE) => step = Step::Upgrade,
                _ => step = Step::End,
            }
        });
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a client's frame, masked with zeros.
    fn frame(opcode: u8, payload: &str) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend(payload.as_bytes());
        frame
    }

    #[test]
    fn a_client_changes_by_a_probe_and_a_confirmation() {
        let (probe, upgrade) = (frame(TEXT, "2probe"), frame(TEXT, "5"));
        let run = |pieces: &[&[u8]]| {
            let mut dialogue = Dialogue::default();
            pieces.iter().map(|piece| dialogue.read(piece)).collect::<Vec<_>>()
        };
        assert_eq!(run(&[&probe, &upgrade]), [Step::Wait, Step::Upgrade]);
        assert_eq!(run(&[&probe[..5], &probe[5..], &upgrade]), [Step::Wait, Step::Wait, Step::Upgrade]);
        assert_eq!(run(&[&[&*probe, &upgrade].concat()]), [Step::Upgrade]);
        assert_eq!(run(&[&upgrade]), [Step::Upgrade], "without a probe");
        assert_eq!(run(&[&PROBE_FRAME, &upgrade]), [Step::Wait, Step::Upgrade]);
        assert_eq!(run(&[&probe, &probe]), [Step::Wait, Step::End], "once");
        for other in [frame(TEXT, "42[\"x\"]"), frame(8, ""), frame(9, "x")] {
            assert_eq!(run(&[&probe, &other]), [Step::Wait, Step::End]);
        }
    }
}
