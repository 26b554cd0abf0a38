//! Connecting and disconnecting. Open mode: whoever reaches the port may connect.

use std::{convert::Infallible, sync::Arc};

use socketioxide::{
    ProtocolVersion, SocketIo, TransportType,
    extract::{Extension, SocketRef},
    handler::ConnectHandler,
    socket::DisconnectReason,
};
use tracing::info;

use super::{
    link::{Link, Links},
    messages::Client,
    rooms::Rooms,
    session::log_name,
};
use crate::net::{accept::Peer, client::TrustedProxies};

/// Takes sockets on the main namespace.
pub fn install(io: &SocketIo, rooms: Arc<Rooms>, links: Arc<Links>, proxies: TrustedProxies) {
    // In the middleware, before the client hears that it is connected: an event it sends the moment
    // after would find no handler.
    let on_connecting = async move |socket: SocketRef| {
        // A WebSocket's from the start is in its request; one that begins by polling has a session first.
        let session = socket.id.as_str();
        let link = match socket.req_parts().extensions.get::<Arc<Link>>() {
            Some(link) => {
                links.insert(session, link);
                link.clone()
            }
            None => links.of(session),
        };
        let client = Client::install(&socket, link, rooms.clone());
        socket.extensions.insert(client.clone());
        let links = links.clone();
        socket.on_disconnect(async move |socket: SocketRef, reason: DisconnectReason| {
            links.remove(socket.id.as_str());
            let user = client.disconnected(&socket);
            info!(socket = log_name(&socket), %user, reason = reason_code(reason), "disconnect");
        });
        Ok::<(), Infallible>(())
    };
    let on_connected = async move |socket: SocketRef, Extension(client): Extension<Arc<Client>>| {
        let request = socket.req_parts();
        let peer = request.extensions.get::<Peer>().map(|peer| peer.0.ip());
        info!(
            socket = log_name(&socket),
            client = peer.map(|peer| tracing::field::display(proxies.client(peer, &request.headers))),
            transport = match socket.transport_type() {
                TransportType::Websocket => "websocket",
                TransportType::Polling => "polling",
            },
            protocol = match socket.protocol() {
                ProtocolVersion::V4 => 4,
                ProtocolVersion::V5 => 5,
            },
            "connect"
        );
        client.work(&socket).await;
    };
    io.ns("/", on_connected.with(on_connecting));
}

/// One word for the log, as Socket.IO's own servers name them.
fn reason_code(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose => "transport_close",
        DisconnectReason::MultipleHttpPollingError => "multiple_polls",
        DisconnectReason::PacketParsingError => "parse_error",
        DisconnectReason::TransportError => "transport_error",
        DisconnectReason::HeartbeatTimeout => "ping_timeout",
        DisconnectReason::ClientNSDisconnect => "client_disconnect",
        DisconnectReason::ServerNSDisconnect => "server_disconnect",
        DisconnectReason::ClosingServer => "server_closing",
    }
}
