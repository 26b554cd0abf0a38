//! Decodes a packet and writes the result as JSON, for `tests/fuzz`, which has no socket.

use serde_json::json;

use super::*;

/// Decodes an event as the handlers do. A `chat` becomes the body that others are sent.
///
/// # Errors
/// `invalid_payload`, `message_too_large`, `unknown_event`.
pub fn read(packet: &mut Packet) -> Result<String> {
    let name = CommonParser.read_event(packet).map_err(|error| invalid_payload(&error))?.to_owned();
    let event = match decode(&name, packet)? {
        ClientEvent::JoinRoom(JoinRoom { location_id, user_id, since }) => {
            json!({"locationId": location_id, "userId": user_id, "since": since})
        }
        ClientEvent::LeaveRoom(OneRoom { location_id }) | ClientEvent::Presence(OneRoom { location_id }) => {
            json!({"locationId": location_id})
        }
        ClientEvent::Chat(chat) => return Ok(chat.relayed(UserId::DEFAULT)?.get().to_owned()),
        ClientEvent::Join(Join { user_id, user_name }) => json!({"userId": user_id, "userName": user_name}),
        ClientEvent::Authenticate(Authenticate { token }) => json!({"token": token}),
    };
    Ok(event.to_string())
}
