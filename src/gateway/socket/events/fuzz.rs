//! What a packet comes to, told as JSON: for `tests/fuzz`, which has no socket.

use serde_json::json;
use socketioxide_core::{Value as Packet, parser::Parse};

use super::*;

/// Reads an event as the handlers do; what `chat` comes to is what others are sent.
///
/// # Errors
/// `invalid_payload`, `message_too_large`, `unknown_event`.
pub fn read(parser: impl Parse, packet: &mut Packet) -> Result<String> {
    let payload = |error: ParserError| invalid_payload(&error);
    let name = parser.read_event(packet).map_err(payload)?.to_owned();
    let read = match name.as_str() {
        "join_room" => {
            let Object(JoinRoom { location_id, user_id, since }) =
                parser.decode_value(packet, true).map_err(payload)?;
            json!({"locationId": location_id, "userId": user_id, "since": since})
        }
        "leave_room" => {
            let Object(LeaveRoom { location_id }) = parser.decode_value(packet, true).map_err(payload)?;
            json!({"locationId": location_id})
        }
        "chat" => {
            let Object(Chat { message, room_name }) = parser.decode_value(packet, true).map_err(payload)?;
            return Ok(relayed(UserId::DEFAULT, &message_text(&message.0)?, room_name)?.get().to_owned());
        }
        "join" => {
            let Object(Join { user_id, user_name }) = parser.decode_value(packet, true).map_err(payload)?;
            json!({"userId": user_id, "userName": user_name})
        }
        "presence" => {
            let Object(Presence { location_id }) = parser.decode_value(packet, true).map_err(payload)?;
            json!({"locationId": location_id})
        }
        "authenticate" => {
            let Object(Authenticate { token }) = parser.decode_value(packet, true).map_err(payload)?;
            json!({"token": token})
        }
        _ => return Err(Error::new(Code::UnknownEvent, "there is no such event")),
    };
    Ok(read.to_string())
}
