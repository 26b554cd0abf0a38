//! The bodies of long-polling requests and answers: several packets, framed as their version of Engine.IO has it.
//!
//! Version 4 separates packets. Version 3 gives before each its length, in one of two framings: text, or bytes, in which
//! Python's and C#'s older clients send. The library and everything else here see the text alone.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Between packets of one body, in version 4.
const SEPARATOR: char = '\u{1e}';
/// A packet that means nothing, for which the library would refuse the body.
pub const NOOP: &str = "6";
/// In a body framed as bytes, what follows is text, or what follows is binary; and the end of a length.
const TEXT: u8 = 0;
const BINARY: u8 = 1;
const LENGTH_END: u8 = 0xff;
/// Digits of the longest length that a body can have.
const MAX_DIGITS: usize = 9;

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

/// Returns a well-framed body as version 4 has it, without packets that mean nothing. So the library is given each body:
/// its reader of version 3 takes time with the square of the number of packets. `None`: a packet has the separator in it,
/// which JSON would escape.
pub fn as_version_4(body: &str, has_lengths: bool) -> Option<String> {
    let mut given = String::with_capacity(body.len());
    each_packet(body, has_lengths, |packet| {
        if has_lengths && packet.contains(SEPARATOR) {
            return Err(());
        }
        // Version 3 has the type of a binary packet behind the mark, too.
        match packet.strip_prefix("b4").filter(|_| has_lengths) {
            Some(data) => push_packet(&mut given, false, &format!("b{data}")),
            None if packet != NOOP => push_packet(&mut given, false, packet),
            None => {}
        }
        Ok(())
    })
    .is_ok_and(|is_framed| is_framed)
    .then_some(given)
}

/// Is it a body of version 3 whose packets are framed as bytes? One framed as text begins with a digit. Not all clients
/// say so by their `Content-Type`.
pub fn is_framed_as_bytes(body: &[u8]) -> bool {
    matches!(body.first(), Some(&(TEXT | BINARY)))
}

/// Turns a body framed as bytes into the same packets framed as text. Each packet is `0` for text or `1` for binary, the
/// decimal digits of its length in bytes, each a byte from 0 to 9, then 255, then the packet. `None`: it is not framed
/// so.
pub fn framed_as_text(body: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(body.len());
    let mut rest = body;
    while let [kind, after @ ..] = rest {
        let digits = after.iter().take(MAX_DIGITS + 1).position(|byte| *byte == LENGTH_END)?;
        let (digits, after) = after.split_at_checked(digits).filter(|(digits, _)| !digits.is_empty())?;
        let length = digits
            .iter()
            .try_fold(0, |length: usize, digit| (*digit < 10).then_some(length * 10 + usize::from(*digit)))?;
        let (packet, next) = after.get(1..)?.split_at_checked(length)?;
        match *kind {
            TEXT => push_packet(&mut text, true, str::from_utf8(packet).ok()?),
            BINARY => {
                // Its type is a byte too, and no digit.
                let (kind, data) = packet.split_first()?;
                push_packet(&mut text, true, &format!("b{kind}{}", STANDARD.encode(data)));
            }
            _ => return None,
        }
        rest = next;
    }
    Some(text)
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
            assert_eq!(packets(&as_version_4(&body, has_lengths).unwrap(), false).unwrap(), all);
        }
    }

    #[test]
    fn a_body_of_version_3_becomes_one_of_version_4() {
        assert_eq!(as_version_4("6:b4AQID1:2", true).unwrap(), "bAQID\u{1e}2");
        assert_eq!(as_version_4("1:6", true).unwrap(), "");
        assert_eq!(as_version_4("8:42\u{1e}40/x", true), None, "two packets in one");
        assert_eq!(as_version_4("9:2", true), None);
    }

    #[test]
    fn a_body_framed_as_bytes_has_the_same_packets_as_text() {
        let event = "42[\"chat\",{\"message\":\"Zoë 🚲\"}]".as_bytes();
        let [tens, ones] = [event.len() as u8 / 10, event.len() as u8 % 10];
        let body = [&[0, tens, ones, 255], event, &[0, 1, 255, b'2'], &[1, 4, 255, 4, 1, 2, 3]].concat();
        assert!(is_framed_as_bytes(&body));
        let text = framed_as_text(&body).unwrap();
        assert!(!is_framed_as_bytes(text.as_bytes()));
        let expected = [str::from_utf8(event).unwrap(), "2", "b4AQID"];
        assert_eq!(packets(&text, true).unwrap(), expected);
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
            assert_eq!(framed_as_text(body), None, "{}", body.escape_ascii());
        }
    }
}
