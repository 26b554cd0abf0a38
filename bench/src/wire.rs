//! The parts of WebSocket, Engine.IO, Socket.IO and HTTP that both ends of a loopback connection need.

use std::ops::Range;

use memchr::memmem;

/// A whole WebSocket frame in a buffer.
pub struct Frame {
    /// The opcode; messages are not fragmented here.
    pub opcode: u8,
    /// The key a client has masked the payload with.
    pub mask: Option<[u8; 4]>,
    /// The place of the payload in the buffer. The frame ends with it.
    pub payload: Range<usize>,
}

/// The opcode of a text.
pub const TEXT: u8 = 1;
/// The opcode with which the other end closes.
pub const CLOSE: u8 = 8;
/// The opcode of a ping, which is answered by a pong with the same payload.
pub const PING: u8 = 9;
/// The opcode of a pong.
pub const PONG: u8 = 10;

/// Reads the frame at the beginning of `bytes`, if it is whole.
pub fn frame(bytes: &[u8]) -> Option<Frame> {
    let [first, second, ..] = *bytes else { return None };
    let (length, mut at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        mask = Some(bytes.get(at..at + 4)?.try_into().ok()?);
        at += 4;
    }
    let payload = at..at + length;
    (bytes.len() >= payload.end).then_some(Frame { opcode: first & 0x0f, mask, payload })
}

/// Writes a frame as a server sends it.
pub fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    framed(opcode, payload, 0)
}

/// Writes a frame as a client sends it: masked, with a key of zeros, which leaves the payload as it is.
pub fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    framed(opcode, payload, 0x80)
}

fn framed(opcode: u8, payload: &[u8], masked: u8) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(masked | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(masked | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(masked | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    if masked != 0 {
        frame.extend([0; 4]);
    }
    frame.extend(payload);
    frame
}

/// The request for a WebSocket.
pub const UPGRADE: &[u8] = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\n\
    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Writes an HTTP request with keep-alive.
pub fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Finds the body of an HTTP message, if the message is whole.
pub fn http_body(bytes: &[u8]) -> Option<Range<usize>> {
    let start = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let length = header(&bytes[..start], b"content-length:").and_then(number).unwrap_or(0) as usize;
    (bytes.len() >= start + length).then_some(start..start + length)
}

/// Returns the value of a header, whose name is given in lower case with its colon.
fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (start, value) = line.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

/// Reads the status of an answer.
pub fn status(answer: &[u8]) -> u16 {
    answer.get(9..12).and_then(number).unwrap_or(0) as u16
}

/// Reads the digits at the beginning.
pub fn number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |sum, digit| Some(sum.unwrap_or(0) * 10 + u64::from(digit - b'0')))
}

/// Reads the number behind the first `"name":`. It is looked for at `hint` first, because messages are much alike.
pub fn member(text: &[u8], name: &[u8], hint: &mut usize) -> Option<u64> {
    let end = *hint + name.len();
    if text.get(*hint..end) != Some(name) {
        *hint = memmem::find(text, name)?;
    }
    number(text[*hint + name.len()..].trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let written = client_frame(TEXT, &payload);
            let read = frame(&written).expect("whole");
            assert_eq!((read.opcode, read.mask, read.payload.len()), (TEXT, Some([0; 4]), length));
            assert_eq!(read.payload.end, written.len());
            assert!(frame(&written[..written.len() - 1]).is_none());
            assert_eq!(&written[read.payload], payload);
        }
    }

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 13\r\n\r\n{\"version\":7}HTTP/1.1";
        let body = http_body(answer).expect("whole");
        assert_eq!(status(answer), 201);
        assert_eq!(member(&answer[body.clone()], b"\"version\":", &mut 3), Some(7));
        assert!(http_body(&answer[..body.end - 1]).is_none());
    }
}
