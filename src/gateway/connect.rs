//! Connecting and disconnecting: who may, and as whom.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use serde_json::Value;
use socketioxide::{
    ProtocolVersion, SocketIo, TransportType,
    extract::{Extension, SocketRef, TryData},
    handler::ConnectHandler,
    socket::DisconnectReason,
};
use tracing::info;

use super::{
    client,
    rooms::Rooms,
    socket::session::log_name,
    wire::{connection::Connection, connections::Connections, end_reason::EndReason, refusal},
};
use crate::{
    domain::{
        error::{Code, Error, Result},
        id::LocationId,
        json::Plain,
    },
    net::{bearer::bearer, client::Client},
    service::{access::Credentials, limits::payer},
};

/// Rooms of one line of the log.
const LISTED: usize = 20;

/// Takes sockets on the main namespace.
pub fn install(io: &SocketIo, rooms: Arc<Rooms>, connections: Arc<Connections>) {
    // In the middleware, before the client hears that it is connected: an event it sends the moment
    // after would find no handler.
    let on_connecting = async move |socket: SocketRef, TryData(auth): TryData<Plain>| {
        let connection = socket
            .req_parts()
            .extensions
            .get::<Arc<Connection>>()
            .cloned()
            .unwrap_or_else(|| connections.create());
        connections.insert(socket.id, &connection);
        let admitted = async {
            if connection.is_closing() {
                return Err(Error::new(Code::Unauthorized, "this connection is ending"));
            }
            let shown = || credentials(&socket, &auth.unwrap_or_default().0);
            let identity = rooms.service.identify(from(&socket), shown).await?;
            let user = identity.as_ref().and_then(|identity| identity.caller.account());
            let permit = rooms.service.limits.admit_socket(user, from(&socket))?;
            connection.identify(payer(user, from(&socket)));
            Ok((identity, permit))
        };
        let (identity, permit) = admitted.await.map_err(|error: Error| {
            info!(socket = log_name(&socket), client = %from(&socket), code = error.code.as_str(), "refused");
            rooms.counts.refusals.count(error.code);
            // Clients 2.x would stay connected to nothing, and others could.
            connections.abort_soon(&connection);
            refusal::text(&error, socket.protocol())
        })?;
        let client = client::Client::install(&socket, identity, permit, connection.clone(), rooms.clone());
        socket.extensions.insert(client.clone());
        let connections = connections.clone();
        socket.on_disconnect(async move |socket: SocketRef, reason: DisconnectReason| {
            // A connection without a socket would be nobody's, and count for nobody.
            connections.abort_soon(&connection);
            ended(&socket, &client, reason);
        });
        Ok::<(), String>(())
    };
    let on_connected = async move |socket: SocketRef, Extension(client): Extension<Arc<client::Client>>| {
        info!(
            socket = log_name(&socket),
            client = %from(&socket),
            transport = match socket.transport_type() {
                TransportType::Websocket => "websocket",
                TransportType::Polling => "polling",
            },
            protocol = match socket.protocol() {
                ProtocolVersion::V4 => 4,
                ProtocolVersion::V5 => 5,
            },
            user = %client.session.name(),
            "connect"
        );
        client.place(&socket);
        client.register(&socket);
        client.expire(&socket);
        client.work(&socket).await;
    };
    io.ns("/", on_connected.with(on_connecting));
}

/// A socket is gone.
fn ended(socket: &SocketRef, client: &client::Client, reason: DisconnectReason) {
    let for_good = reason == DisconnectReason::ClientNSDisconnect;
    let Some(rooms) = client.disconnected(socket, for_good) else { return };
    info!(
        socket = log_name(socket),
        user = %client.session.name(),
        reason = client.outbox.connection().end_reason().map_or_else(|| reason_code(reason), why_code),
        client = %from(socket),
        connected_s = client.session.since.elapsed().as_secs(),
        rooms = %listed(&rooms),
        "disconnect"
    );
}

/// The server has closed these: their handlers are not told.
pub fn closed(sockets: &[SocketRef]) {
    for socket in sockets {
        if let Some(client) = socket.extensions.get::<Arc<client::Client>>() {
            ended(socket, &client, DisconnectReason::ClosingServer);
        }
    }
}

/// The address it came from.
fn from(socket: &SocketRef) -> IpAddr {
    Client::address(socket.req_parts().extensions.get())
}

/// What a socket shows: in the handshake's `auth`, in the query (clients 2.x, Postman), or as a header.
///
/// # Errors
/// `invalid_token`, `invalid_share`, `invalid_share_password`.
fn credentials(socket: &SocketRef, auth: &Value) -> Result<Credentials> {
    let request = socket.req_parts();
    let query = request.uri.query().unwrap_or_default();
    let shown = |name: &str, code: Code| match auth.get(name) {
        None | Some(Value::Null) => {
            let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
            Ok(found.map(|(_, value)| value.into_owned()))
        }
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::new(code, format!("{name} must be text"))),
    };
    let token = match shown("token", Code::InvalidToken)? {
        Some(token) => Some(token),
        None => bearer(&request.headers).map_err(|why| Error::new(Code::InvalidToken, why))?,
    };
    let share = shown("share", Code::InvalidShare)?;
    if token.is_none() && share.is_none() && !auth.is_null() && !auth.is_object() {
        return Err(Error::new(Code::Unauthorized, "auth must be an object, such as {\"token\": \"…\"}"));
    }
    Ok(Credentials { token, share, password: shown("password", Code::InvalidSharePassword)? })
}

/// Rooms for the log: not all, where they are many.
fn listed(rooms: &HashSet<LocationId>) -> String {
    let mut rooms: Vec<_> = rooms.iter().copied().collect();
    rooms.sort_unstable();
    let rest = rooms.len().saturating_sub(LISTED);
    let listed: Vec<_> = rooms.iter().take(LISTED).map(LocationId::to_string).collect();
    listed.join(" ") + &if rest > 0 { format!(" and {rest} more") } else { String::new() }
}

/// One word for the log, where the end was our doing.
fn why_code(why: EndReason) -> &'static str {
    match why {
        EndReason::Unread => "unread",
        EndReason::AnswerLost => "answer_lost",
        EndReason::TooMuchWaits => "too_much_waits",
        EndReason::StalledInReplay => "stalled_in_replay",
        EndReason::Withdrawn => "withdrawn",
        EndReason::TokenEnded => "token_ended",
        EndReason::Malformed => "parse_error",
    }
}

/// The same where it was not, as Socket.IO's own servers name them.
fn reason_code(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose => "transport_close",
        DisconnectReason::MultipleHttpPollingError => "multiple_polls",
        DisconnectReason::PacketParsingError => "parse_error",
        DisconnectReason::TransportError => "transport_error",
        DisconnectReason::HeartbeatTimeout => "ping_timeout",
        DisconnectReason::ClientNSDisconnect => "client_disconnect",
        // Said to nobody else.
        DisconnectReason::ServerNSDisconnect => "token_ended",
        DisconnectReason::ClosingServer => "server_closing",
    }
}
