//! Disconnecting: a socket's client is ended once, and a line of the log says why.

use std::{collections::HashSet, sync::Arc};

use socketioxide::{extract::SocketRef, socket::DisconnectReason};
use tracing::info;

use super::{
    client::Client,
    socket::session::{address, log_name},
    wire::end_reason::EndReason,
};
use crate::domain::id::LocationId;

/// Limits the rooms in one line of the log.
const MAX_LOGGED_ROOMS: usize = 20;

/// Ends the client of a socket that is gone.
pub fn disconnected(socket: &SocketRef, client: &Client, reason: DisconnectReason) {
    let is_for_good = reason == DisconnectReason::ClientNSDisconnect;
    let Some(rooms) = client.end(socket, is_for_good) else { return };
    info!(
        socket = log_name(socket),
        user = %client.log_user(),
        reason = client.connection().end_reason().map_or_else(|| reason_code(reason), end_code),
        client = %address(socket),
        connected_s = client.connected_for().as_secs(),
        rooms = %room_names(&rooms),
        "disconnect"
    );
}

/// Ends the clients of sockets that the server has closed: the library does not call their handlers.
pub fn closed(sockets: &[SocketRef]) {
    for socket in sockets {
        if let Some(client) = socket.extensions.get::<Arc<Client>>() {
            disconnected(socket, &client, DisconnectReason::ClosingServer);
        }
    }
}

/// Lists rooms for the log. If there are many, only some are named.
fn room_names(rooms: &HashSet<LocationId>) -> String {
    let mut rooms: Vec<_> = rooms.iter().copied().collect();
    rooms.sort_unstable();
    let rest = rooms.len().saturating_sub(MAX_LOGGED_ROOMS);
    let named: Vec<_> = rooms.iter().take(MAX_LOGGED_ROOMS).map(LocationId::to_string).collect();
    named.join(" ") + &if rest > 0 { format!(" and {rest} more") } else { String::new() }
}

/// Returns the word for the log if the server ended the connection.
fn end_code(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Unread => "unread",
        EndReason::AnswerLost => "answer_lost",
        EndReason::TooMuchWaits => "too_much_waits",
        EndReason::StalledInReplay => "stalled_in_replay",
        EndReason::Withdrawn => "withdrawn",
        EndReason::TokenEnded => "token_ended",
        EndReason::Malformed => "parse_error",
    }
}

/// Returns the word for the log otherwise, as Socket.IO's own servers name the reasons.
fn reason_code(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose => "transport_close",
        DisconnectReason::MultipleHttpPollingError => "multiple_polls",
        DisconnectReason::PacketParsingError => "parse_error",
        DisconnectReason::TransportError => "transport_error",
        DisconnectReason::HeartbeatTimeout => "ping_timeout",
        DisconnectReason::ClientNSDisconnect => "client_disconnect",
        // The gateway disconnects a socket from its namespace only at the end of its token.
        DisconnectReason::ServerNSDisconnect => "token_ended",
        DisconnectReason::ClosingServer => "server_closing",
    }
}
