//! The packets of Engine.IO, and the bodies of long-polling requests and answers, which hold several packets.
//!
//! Version 4 of the protocol separates packets. Version 3 writes the length before each packet, in one of two framings:
//! as text, or as bytes, as older clients in Python and C# do. The library is given only bodies of version 4, because
//! the time its reader of version 3 takes grows with the square of the number of packets.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Prefix of a Socket.IO message.
pub const MESSAGE: &str = "4";
/// Prefix of a request to connect to another namespace than the main one. There is no other, and the library would
/// repeat its name in a refusal that no limit counts.
pub const OTHER_NAMESPACE: &str = "40/";
/// A packet without a meaning. The library ends the session of a client that sends it.
pub const NOOP: &str = "6";
/// Prefixes of an event and of an ack with binary attachments.
const BINARY_MESSAGES: [&str; 2] = ["45", "46"];
/// Number of bytes by which [`announces_attachments`] decides.
pub const KIND_BYTES: usize = 2;
/// Prefix of an attachment in a body of version 4.
pub const ATTACHMENT: &str = "b";
/// Prefix of an attachment in version 3, which repeats that it belongs to a message.
const ATTACHMENT_3: &str = "b4";

/// The character that separates the packets of a body of version 4.
const SEPARATOR: char = '\u{1e}';
/// First byte of a text packet in a body framed as bytes.
const TEXT: u8 = 0;
/// First byte of a binary packet in a body framed as bytes.
const BINARY: u8 = 1;
/// The byte that ends the length of a packet in a body framed as bytes.
const LENGTH_END: u8 = 0xff;
/// Number of digits of the longest length that a body can have.
const MAX_DIGITS: usize = 9;

/// Returns whether binary attachments follow this packet. The library keeps the packet until the last of them has come.
pub fn announces_attachments(start: &[u8]) -> bool {
    BINARY_MESSAGES.iter().any(|kind| start.starts_with(kind.as_bytes()))
}

/// Calls `visit` with each packet of a body. Returns `false` if the body is not framed as its version requires.
///
/// # Errors
/// The first error of `visit`.
pub fn each_packet<E>(
    body: &str,
    has_lengths: bool,
    mut visit: impl FnMut(&str) -> Result<(), E>,
) -> Result<bool, E> {
    if !has_lengths {
        body.split(SEPARATOR).try_for_each(visit)?;
        return Ok(true);
    }
    let mut rest = body;
    while !rest.is_empty() {
        let Some((length, after)) = rest.split_once(':') else { return Ok(false) };
        let Ok(mut left) = length.parse::<usize>() else { return Ok(false) };
        let mut chars = after.chars();
        while left > 0 {
            match chars.next().and_then(|char| left.checked_sub(char.len_utf16())) {
                Some(less) => left = less,
                None => return Ok(false),
            }
        }
        let (packet, next) = after.split_at(after.len() - chars.as_str().len());
        visit(packet)?;
        rest = next;
    }
    Ok(true)
}

/// Appends a packet to a body.
pub fn push_packet(body: &mut String, has_lengths: bool, packet: &str) {
    if has_lengths {
        // The length counts UTF-16 units, because the first client was written in JavaScript.
        body.push_str(&packet.encode_utf16().count().to_string());
        body.push(':');
    } else if !body.is_empty() {
        body.push(SEPARATOR);
    }
    body.push_str(packet);
}

/// Returns a body of version 4 without its [`NOOP`] packets.
pub fn without_noops(body: &str) -> String {
    let mut rest = String::with_capacity(body.len());
    for packet in body.split(SEPARATOR).filter(|packet| *packet != NOOP) {
        push_packet(&mut rest, false, packet);
    }
    rest
}

/// Turns a body of version 3 into one of version 4. Returns `None` if it is not framed as version 3 requires, or if a
/// packet contains the separator of version 4, which JSON would escape.
pub fn from_version_3(body: &[u8]) -> Option<String> {
    let mut given = String::with_capacity(body.len());
    let push = |packet: &str| {
        if packet.contains(SEPARATOR) {
            return Err(());
        }
        match packet.strip_prefix(ATTACHMENT_3) {
            Some(data) => push_packet(&mut given, false, &[ATTACHMENT, data].concat()),
            None => push_packet(&mut given, false, packet),
        }
        Ok(())
    };
    // Not all clients name their framing by the `Content-Type`. In the text framing a body begins with a digit.
    match body.first() {
        Some(&(TEXT | BINARY)) => each_packet_as_bytes(body, push)?,
        _ => each_packet(str::from_utf8(body).ok()?, true, push).ok()?.then_some(())?,
    }
    Some(given)
}

/// Calls `visit` with each packet of a body framed as bytes; a binary packet comes as text in base64.
///
/// A packet is a byte 0 for text or 1 for binary, then the decimal digits of its length as bytes from 0 to 9, then 255,
/// then its bytes. Returns `None` if the body is not framed in this way.
fn each_packet_as_bytes(body: &[u8], mut visit: impl FnMut(&str) -> Result<(), ()>) -> Option<()> {
    let mut rest = body;
    while let [kind, after @ ..] = rest {
        let digits = after.iter().take(MAX_DIGITS + 1).position(|byte| *byte == LENGTH_END)?;
        let (digits, after) = after.split_at_checked(digits).filter(|(digits, _)| !digits.is_empty())?;
        let length = digits
            .iter()
            .try_fold(0, |length: usize, digit| (*digit < 10).then_some(length * 10 + usize::from(*digit)))?;
        let (packet, next) = after.get(1..)?.split_at_checked(length)?;
        match *kind {
            TEXT => visit(str::from_utf8(packet).ok()?).ok()?,
            BINARY => {
                // The type of a binary packet is a byte too, not a digit.
                let (kind, data) = packet.split_first()?;
                visit(&format!("{ATTACHMENT}{kind}{}", STANDARD.encode(data))).ok()?;
            }
            _ => return None,
        }
        rest = next;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn packets(body: &str, has_lengths: bool) -> Option<Vec<String>> {
        let mut packets = Vec::new();
        let Ok(is_framed) = each_packet(body, has_lengths, |packet| {
            packets.push(packet.to_owned());
            Ok::<_, Infallible>(())
        });
        is_framed.then_some(packets)
    }

    #[test]
    fn packets_that_are_put_together_come_apart_again() {
        let all = ["2", "42[\"chat\",\"🚲\"]", "44{}"];
        for has_lengths in [false, true] {
            let mut body = String::new();
            all.iter().for_each(|packet| push_packet(&mut body, has_lengths, packet));
            assert_eq!(packets(&body, has_lengths).unwrap(), all);
            push_packet(&mut body, has_lengths, NOOP);
            let given = if has_lengths { from_version_3(body.as_bytes()).unwrap() } else { body };
            assert_eq!(packets(&without_noops(&given), false).unwrap(), all);
        }
    }

    #[test]
    fn a_body_of_version_3_becomes_one_of_version_4() {
        assert_eq!(from_version_3(b"6:b4AQID1:2").unwrap(), "bAQID\u{1e}2");
        assert_eq!(without_noops(&from_version_3(b"1:6").unwrap()), "");
        assert_eq!(from_version_3("8:42\u{1e}40/x".as_bytes()), None, "two packets in one");
        assert_eq!(from_version_3(b"9:2"), None);
        assert_eq!(from_version_3(b"1:\xff"), None);
    }

    #[test]
    fn a_body_framed_as_bytes_has_the_same_packets_as_text() {
        let event = "42[\"chat\",{\"message\":\"Zoë 🚲\"}]";
        let [tens, ones] = [event.len() as u8 / 10, event.len() as u8 % 10];
        let body =
            [&[0, tens, ones, 255], event.as_bytes(), &[0, 1, 255, b'2'], &[1, 4, 255, 4, 1, 2, 3]].concat();
        let mut text = String::new();
        [event, "2", "b4AQID"].iter().for_each(|packet| push_packet(&mut text, true, packet));
        let given = from_version_3(&body).unwrap();
        assert_eq!(packets(&given, false).unwrap(), [event, "2", "bAQID"]);
        assert_eq!(given, from_version_3(text.as_bytes()).unwrap());
    }

    #[test]
    fn a_body_that_is_not_framed_as_bytes_is_refused() {
        for body in [
            &b"\x00"[..],
            b"\x00\xff",
            b"\x00\x01",
            b"\x00\x01\xff",
            b"\x00\x02\xff2",
            b"\x00\x0a\xff2",
            b"\x02\x01\xff2",
            b"\x01\x00\xff",
            b"\x00\x01\xff\xff",
            b"\x00\x01\xff2\x00",
            b"\x00\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\xff2",
        ] {
            assert_eq!(from_version_3(body), None, "{}", body.escape_ascii());
        }
    }
}
