//! Connecting to the main namespace: who may, and as which user.
//!
//! Everything is installed in the middleware, before the client is told that it is connected: an event that it sends
//! the moment after would find no handler.

use std::sync::Arc;

use serde_json::Value;
use socketioxide::{
    ProtocolVersion, SocketIo, TransportType,
    extract::{Extension, SocketRef, TryData},
    handler::ConnectHandler,
    socket::DisconnectReason,
};
use tracing::info;

use super::{
    client::{Client, Clients},
    disconnect::disconnected,
    socket::session::{address, log_name},
    wire::{connection::Connection, connections::Connections, refusal},
};
use crate::{
    domain::{
        error::{Code, Error, Result},
        json::Plain,
    },
    net::bearer::bearer,
    service::{
        access::{Credentials, Identity},
        limits::{SocketPermit, payer},
    },
};

/// Takes sockets on the main namespace.
pub fn install(io: &SocketIo, clients: Arc<Clients>, connections: Arc<Connections>) {
    let on_connecting = async move |socket: SocketRef, TryData(auth): TryData<Plain>| {
        let connection = socket
            .req_parts()
            .extensions
            .get::<Arc<Connection>>()
            .cloned()
            .unwrap_or_else(|| connections.create());
        connections.insert(socket.id, &connection);
        let admitted = admit(&clients, &socket, &connection, || auth.unwrap_or_default().0).await;
        let (identity, permit) = admitted.map_err(|error| {
            let client = address(&socket);
            info!(socket = log_name(&socket), %client, code = error.code.as_str(), "refused");
            clients.refusals.count(error.code);
            // Clients 2.x would stay connected to nothing, and others could.
            connections.abort_soon(&connection);
            refusal::text(&error, socket.protocol())
        })?;
        let client = Client::install(&clients, &socket, identity, permit, connection.clone());
        socket.extensions.insert(client.clone());
        let connections = connections.clone();
        socket.on_disconnect(async move |socket: SocketRef, reason: DisconnectReason| {
            // A connection without a socket would belong to nobody, and count against no limit.
            connections.abort_soon(&connection);
            disconnected(&socket, &client, reason);
        });
        Ok::<(), String>(())
    };
    let on_connected = async move |socket: SocketRef, Extension(client): Extension<Arc<Client>>| {
        log_connect(&socket, &client);
        client.begin(socket).await;
    };
    io.ns("/", on_connected.with(on_connecting));
}

/// Finds out which user a socket belongs to, and whether it may connect. From then on, what waits for it is held
/// against that user's budget.
async fn admit(
    clients: &Clients,
    socket: &SocketRef,
    connection: &Arc<Connection>,
    auth: impl FnOnce() -> Value,
) -> Result<(Option<Identity>, SocketPermit)> {
    if connection.is_closing() {
        return Err(Error::new(Code::Unauthorized, "this connection is ending"));
    }
    let (service, address) = (&clients.service, address(socket));
    let identity = service.identify(address, || credentials(socket, &auth())).await?;
    let user = identity.as_ref().and_then(|identity| identity.caller.account());
    let permit = service.limits.admit_socket(user, address)?;
    connection.identify(payer(user, address));
    Ok((identity, permit))
}

fn log_connect(socket: &SocketRef, client: &Client) {
    info!(
        socket = log_name(socket),
        client = %address(socket),
        transport = match socket.transport_type() {
            TransportType::Websocket => "websocket",
            TransportType::Polling => "polling",
        },
        protocol = match socket.protocol() {
            ProtocolVersion::V4 => 4,
            ProtocolVersion::V5 => 5,
        },
        user = %client.log_user(),
        "connect"
    );
}

/// Reads what a socket shows: in the handshake's `auth`, in the query (clients 2.x, Postman), or as a header.
///
/// # Errors
/// `invalid_token`, `invalid_share`, `invalid_share_password`, `unauthorized`.
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
