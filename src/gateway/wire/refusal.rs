//! Rewrites the library's refusal of a socket so that it carries a code and a sentence.
//!
//! The library sends a refusal as a packet `44{"message":"…"}` with one text. Clients 3.x and 4.x also read `data`, and
//! clients 2.x expect the text alone. So the text given to the library holds the code and the sentence with a mark
//! between them, and the packet is rewritten on its way out: in a frame of a WebSocket (`stream/`) or in the answer to
//! a poll (`transport.rs`).

use std::convert::Infallible;

use bytes::Bytes;
use socketioxide::ProtocolVersion;

use super::{
    frames,
    payload::{each_packet, push_packet},
};
use crate::domain::error::Error;

/// Separates the code and the sentence, for clients 3.x and 4.x.
const DETAIL: char = '\u{1f}';
/// [`DETAIL`] as JSON escapes it.
const DETAIL_JSON: &str = r"\u001f";
/// Ends a code that is sent alone, to clients 2.x.
const ALONE: char = '\u{1d}';
/// [`ALONE`] as JSON escapes it.
const ALONE_JSON: &str = r"\u001d";

const START: &str = r#"44{"message":""#;
const END: &str = r#""}"#;

/// Returns the text that the library is given for a refusal.
pub fn text(error: &Error, version: ProtocolVersion) -> String {
    let code = error.code.as_str();
    match version {
        ProtocolVersion::V4 => format!("{code}{ALONE}"),
        ProtocolVersion::V5 => format!("{code}{DETAIL}{}", error.detail),
    }
}

/// Returns the packet that the client is sent instead of the library's. Returns `None` for a packet that is not one of
/// our refusals.
fn rewrite(packet: &str) -> Option<String> {
    let text = packet.strip_prefix(START)?.strip_suffix(END)?;
    match text.split_once(DETAIL_JSON) {
        Some((code, detail)) => Some(format!(r#"{START}{code}","data":{{"detail":"{detail}"}}}}"#)),
        None => text.strip_suffix(ALONE_JSON).map(|code| format!(r#"44"{code}""#)),
    }
}

/// Rewrites the refusals in the answer to a poll.
pub fn rewrite_answer(body: Bytes, has_lengths: bool) -> Bytes {
    let Ok(text) = str::from_utf8(&body) else { return body };
    let mut answer = String::new();
    let Ok(is_framed) = each_packet(text, has_lengths, |packet| {
        push_packet(&mut answer, has_lengths, rewrite(packet).as_deref().unwrap_or(packet));
        Ok::<_, Infallible>(())
    });
    if is_framed { answer.into() } else { body }
}

/// A frame to be replaced in bytes that the library writes.
#[derive(Debug, PartialEq)]
pub struct Replacement {
    /// Offset of the library's frame.
    pub start: usize,
    /// Length of the library's frame, with its header.
    pub length: usize,
    /// The frame to be written instead.
    pub frame: Bytes,
}

/// Finds a refusal among frames that the library writes. All of them are whole, except that a part of the first may
/// have been written before.
pub fn find_refusal(bytes: &[u8]) -> Option<Replacement> {
    let at = bytes.windows(START.len()).position(|window| window == START.as_bytes())?;
    let (start, length) = match bytes[..at] {
        [.., 0x81, 126, high, low] => (at - 4, usize::from(u16::from_be_bytes([high, low]))),
        [.., 0x81, length @ ..126] => (at - 2, usize::from(length)),
        _ => return None,
    };
    let packet = rewrite(str::from_utf8(bytes.get(at..at + length)?).ok()?)?;
    let frame = [&frames::text_header(packet.len()), packet.as_bytes()].concat().into();
    Some(Replacement { start, length: at - start + length, frame })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::error::Code;

    /// Makes a packet as the library does.
    fn packet(detail: &str, version: ProtocolVersion) -> String {
        let error = Error::new(Code::InvalidToken, detail.to_owned());
        format!("44{}", json!({"message": text(&error, version)}))
    }

    #[test]
    fn a_refusal_has_a_code_and_a_sentence_or_for_older_clients_the_code_alone() {
        let detail = "what is \"alg\"? \u{1f} \\ é";
        let new = rewrite(&packet(detail, ProtocolVersion::V5)).unwrap();
        let body: Value = serde_json::from_str(new.strip_prefix("44").unwrap()).unwrap();
        assert_eq!(body, json!({"message": "invalid_token", "data": {"detail": detail}}));
        let old = rewrite(&packet(detail, ProtocolVersion::V4)).unwrap();
        assert_eq!(old, r#"44"invalid_token""#);
        assert_eq!(rewrite(r#"44{"message":"Invalid namespace"}"#), None);
    }

    #[test]
    fn a_frame_is_found_among_others_and_replaced_whole() {
        let framed = |packet: &str| [&frames::text_header(packet.len()), packet.as_bytes()].concat();
        for detail in ["short", &"long ".repeat(40)] {
            let (ping, refusal) = (framed("2"), framed(&packet(detail, ProtocolVersion::V5)));
            let replaced = find_refusal(&[&*ping, &refusal, &ping].concat()).unwrap();
            assert_eq!((replaced.start, replaced.length), (ping.len(), refusal.len()));
            assert_eq!(find_refusal(&refusal).unwrap(), Replacement { start: 0, ..replaced });
        }
        assert_eq!(find_refusal(&framed("2")), None);
        assert_eq!(find_refusal(&framed(r#"44{"message":"Invalid namespace"}"#)), None);
    }

    #[test]
    fn a_refusal_in_an_answer_leaves_the_other_packets() {
        let refused = packet("no", ProtocolVersion::V5);
        let answer = rewrite_answer(format!("2\u{1e}{refused}").into(), false);
        assert_eq!(answer, "2\u{1e}44{\"message\":\"invalid_token\",\"data\":{\"detail\":\"no\"}}");
        let refused = packet("no", ProtocolVersion::V4);
        let answer = rewrite_answer(format!("{}:{refused}1:1", refused.len()).into(), true);
        assert_eq!(answer, "17:44\"invalid_token\"1:1");
    }
}
