//! The packets of Engine.IO, and the bodies of long-polling requests and answers, which hold several of them.
//!
//! Version 4 separates packets. Version 3 writes the length before each packet, in one of two framings: as text, or as
//! bytes, as Python's and C#'s older clients do. The library is given bodies of version 4 alone: its reader of version 3
//! takes time with the square of the number of packets.

use base64::{Engine, engine::general_purpose::STANDARD};

/// A message of Socket.IO begins with this.
pub const MESSAGE: &str = "4";
/// A connection to another namespace than the main one begins with this. There is none, and the library would repeat its
/// name in a refusal that no limit counts.
pub const ELSEWHERE: &str = "40/";
/// This packet means nothing. The library ends the session of a client that sends it.
pub const NOOP: &str = "6";
/// An event or an ack with attachments begins with one of these.
const BINARY_MESSAGES: [&str; 2] = ["45", "46"];
/// In a body, an attachment begins with this.
pub const ATTACHMENT: &str = "b";
/// The same in version 3, which repeats that an attachment belongs to a message.
const ATTACHMENT_3: &str = "b4";
/// Bytes of a packet by which [`announces_attachments`] decides.
pub const DECISIVE_BYTES: usize = 2;

/// This character separates the packets of a body of version 4.
const SEPARATOR: char = '\u{1e}';
/// In a body framed as bytes, a text packet begins with this byte.
const TEXT: u8 = 0;
/// In a body framed as bytes, a binary packet begins with this byte.
const BINARY: u8 = 1;
/// In a body framed as bytes, this byte ends the length of a packet.
const LENGTH_END: u8 = 0xff;
/// Digits of the longest length that a body can have.
const MAX_DIGITS: usize = 9;

/// Do attachments follow this packet, until the last of which the library keeps it?
pub fn announces_attachments(start: &[u8]) -> bool {
    BINARY_MESSAGES.iter().any(|kind| start.starts_with(kind.as_bytes()))
}

/// Passes over the packets of a body; `false`: it is not framed as it should be, which the library may never
/// get over.
pub fn each_packet<E>(
    body: &str,
    has_lengths: bool,
    mut see: impl FnMut(&str) -> Result<(), E>,
) -> Result<bool, E> {
    if !has_lengths {
        body.split(SEPARATOR).try_for_each(see)?;
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
        see(packet)?;
        rest = next;
    }
    Ok(true)
}

/// Appends a packet to a body.
pub fn push_packet(body: &mut String, has_lengths: bool, packet: &str) {
    if has_lengths {
        // In UTF-16 units, because the first client was JavaScript's.
        body.push_str(&packet.encode_utf16().count().to_string());
        body.push(':');
    } else if !body.is_empty() {
        body.push(SEPARATOR);
    }
    body.push_str(packet);
}

/// Returns a body of version 4 without the packets that mean nothing.
pub fn without_noops(body: &str) -> String {
    let mut rest = String::with_capacity(body.len());
    for packet in body.split(SEPARATOR).filter(|packet| *packet != NOOP) {
        push_packet(&mut rest, false, packet);
    }
    rest
}

/// Turns a body of version 3 into one of version 4. `None`: it is not framed as version 3 has it, or a packet contains the
/// separator, which JSON would escape.
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
    // Not all clients say by their `Content-Type` which framing they use. As text, a length begins with a digit.
    match body.first() {
        Some(&(TEXT | BINARY)) => each_packet_as_bytes(body, push)?,
        _ => each_packet(str::from_utf8(body).ok()?, true, push).ok()?.then_some(())?,
    }
    Some(given)
}

/// Passes over the packets of a body framed as bytes, binary ones as text in base64. Each is 0 for text or 1 for binary,
/// the decimal digits of its length in bytes, each a byte from 0 to 9, then 255, then the packet. `None`: it is not framed
/// so.
fn each_packet_as_bytes(body: &[u8], mut see: impl FnMut(&str) -> Result<(), ()>) -> Option<()> {
    let mut rest = body;
    while let [kind, after @ ..] = rest {
        let digits = after.iter().take(MAX_DIGITS + 1).position(|byte| *byte == LENGTH_END)?;
        let (digits, after) = after.split_at_checked(digits).filter(|(digits, _)| !digits.is_empty())?;
        let length = digits
            .iter()
            .try_fold(0, |length: usize, digit| (*digit < 10).then_some(length * 10 + usize::from(*digit)))?;
        let (packet, next) = after.get(1..)?.split_at_checked(length)?;
        match *kind {
            TEXT => see(str::from_utf8(packet).ok()?).ok()?,
            BINARY => {
                // The type of a binary packet is a byte too, and no digit.
                let (kind, data) = packet.split_first()?;
                see(&format!("{ATTACHMENT}{kind}{}", STANDARD.encode(data))).ok()?;
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
