//! A WebSocket that a polling session opens: held back from the library until it is known to work.
//!
//! The library ends a session whose WebSocket opens and then carries nothing, and on mobile networks many do: a
//! middlebox answers the handshake and swallows the frames. So the first words of a change of transport are spoken
//! here (Engine.IO protocol, "Upgrade"): the client sends `2probe`, is answered `3probe`, and once it has seen that, it
//! sends `5`. Until then nothing has happened to the session. Some clients, such as Arduino's, say `5` at once, and Node's
//! server takes that too.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    frames::{Frames, TEXT, header, is_begun, opcode},
    polling::UpgradeGuard,
};

/// How long a client may take until it has changed over, as in Node's server.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client says until then is a few bytes.
const MAX_BYTES: usize = 1_024;
const PROBE: &[u8] = b"2probe";
/// The same as a client's frame, masked with zeros: the library wants one also from a client that sends none.
const PROBE_FRAME: [u8; 12] = *b"\x81\x86\x00\x00\x00\x002probe";
const UPGRADE: &[u8] = b"5";
const PROBE_ANSWER: &str = "3probe";
/// The library answers the probe too; its answer, a frame of so many bytes, is left out.
pub const LIBRARY_ANSWER_BYTES: usize = 2 + PROBE_ANSWER.len();

/// Waits until the client changes over. Returns what it has sent, for the library to read. `None`: it came to
/// nothing.
pub async fn wait(stream: &mut TcpStream, first: Bytes, guard: &UpgradeGuard) -> Option<Bytes> {
    timeout(UPGRADE_TIMEOUT, negotiate(stream, first, guard)).await.ok().flatten()
}

async fn negotiate(stream: &mut TcpStream, first: Bytes, guard: &UpgradeGuard) -> Option<Bytes> {
    let mut read = BytesMut::from(&first[..]);
    let mut dialogue = Dialogue::default();
    let (mut seen, mut is_answered) = (0, false);
    loop {
        let step = dialogue.read(&read[seen..]);
        seen = read.len();
        if dialogue.has_probed && !is_answered {
            let frame = [&header(PROBE_ANSWER.len()), PROBE_ANSWER.as_bytes()].concat();
            stream.write_all(&frame).await.ok()?;
            guard.record_probe();
            is_answered = true;
        }
        match step {
            Step::Wait if read.len() < MAX_BYTES => {}
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

/// What the client has said so far.
#[derive(Default)]
struct Dialogue {
    frames: Frames,
    has_probed: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Wait,
    Upgrade,
    End,
}

impl Dialogue {
    /// Reads on. Any other frame ends it: the library would take none either.
    fn read(&mut self, bytes: &[u8]) -> Step {
        let mut step = Step::Wait;
        let has_probed = &mut self.has_probed;
        self.frames.pass(bytes, |frame| {
            if step != Step::Wait {
                return;
            }
            let text = (opcode(frame.first) == TEXT && !is_begun(frame.first)).then_some(frame.start);
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

    /// A client's frame, masked with zeros.
    fn frame(opcode: u8, payload: &str) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend(payload.as_bytes());
        frame
    }

    #[test]
    fn a_client_changes_over_by_a_probe_and_a_word() {
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
