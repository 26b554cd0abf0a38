//! The bodies of polling requests: read within bounds of size, time and memory, and checked packet by packet.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::{
    connection::Connection,
    payload::{
        ATTACHMENT, MESSAGE, NOOP, OTHER_NAMESPACE, announces_attachments, each_packet, from_version_3,
        without_noops,
    },
    request::has_lengths,
    unidentified::UNIDENTIFIED_BYTES,
};
use crate::{
    config,
    domain::{
        access::Payer,
        error::{Code, Error},
    },
    net::client::Client,
    service::{Service, limits::payer},
};

/// Bytes by which the buffer of a body grows at least.
const BUFFER_STEP: usize = 64 * 1024;

/// Reads bodies within their bounds.
#[derive(Clone)]
pub struct Bodies {
    /// Largest body.
    max_body: usize,
    /// Largest message in a body.
    max_message: usize,
    /// Time for a body of a session whose client is not identified yet.
    handshake_timeout: Duration,
    service: Arc<Service>,
}

/// The status and the text of an answer that refuses a body.
pub type Refusal = (StatusCode, &'static str);

impl Bodies {
    pub fn new(limits: &config::Limits, service: &Arc<Service>) -> Self {
        Self {
            max_body: limits.poll_bytes,
            max_message: limits.message_bytes,
            handshake_timeout: limits.handshake_timeout,
            service: service.clone(),
        }
    }

    /// Reads the body of a request that sends packets, and returns it framed as version 4 of Engine.IO requires.
    ///
    /// # Errors
    /// The answer that refuses it.
    pub async fn read(
        &self,
        request: &Request<()>,
        connection: &Connection,
        body: Incoming,
    ) -> Result<Bytes, Refusal> {
        let body = self.read_bytes(request, connection, body).await?;
        let body = match has_lengths(request) {
            true => from_version_3(&body)
                .ok_or((StatusCode::BAD_REQUEST, "the body is not framed as its protocol has it"))?
                .into(),
            false => body,
        };
        let text = str::from_utf8(&body).map_err(|_| (StatusCode::BAD_REQUEST, "the body is not text"))?;
        let mut has_noop = false;
        each_packet(text, false, |packet| {
            has_noop |= packet == NOOP;
            self.check_packet(packet, connection)
        })?;
        Ok(if has_noop { without_noops(text).into() } else { body })
    }

    /// Checks one packet, and holds the room of attachments that the library will keep.
    fn check_packet(&self, packet: &str, connection: &Connection) -> Result<(), Refusal> {
        if packet.len() > self.max_message {
            return Err(self.too_large());
        }
        if packet.starts_with(MESSAGE) {
            connection.release_attachments();
        }
        if packet.starts_with(ATTACHMENT) || announces_attachments(packet.as_bytes()) {
            connection.record_attachment(packet.len());
        }
        match packet.starts_with(OTHER_NAMESPACE) && !connection.record_other_namespace() {
            true => Err((StatusCode::BAD_REQUEST, "there is no such namespace")),
            false => Ok(()),
        }
    }

    async fn read_bytes(
        &self,
        request: &Request<()>,
        connection: &Connection,
        body: Incoming,
    ) -> Result<Bytes, Refusal> {
        let address = || payer(None, Client::address(request.extensions().get()));
        let limits = &self.service.limits;
        let (max_bytes, time) = match connection.is_unidentified() {
            true => (self.max_body.min(UNIDENTIFIED_BYTES), limits.body_timeout.min(self.handshake_timeout)),
            false => (self.max_body, limits.body_timeout),
        };
        let payer = connection.payer().unwrap_or_else(address);
        match timeout(time, self.collect(payer, body, max_bytes)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(Unread::TooLarge)) => Err(self.too_large()),
            Ok(Err(Unread::NoRoom(error))) => {
                let status = match error.code {
                    Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                Err((status, "too much is being sent at once; try again"))
            }
            Ok(Err(Unread::BrokenOff)) => {
                // The client's network ended the body. The end is given no reason, because the client is not at fault.
                connection.abort();
                Err((StatusCode::BAD_REQUEST, "the body ended before its end"))
            }
            Err(_) => {
                limits.too_slow.inc();
                Err((StatusCode::REQUEST_TIMEOUT, "the body took too long to come"))
            }
        }
    }

    /// Collects the bytes of a body. A body that comes at once is passed on without a copy; other bodies are held
    /// against the budget of their caller while they come.
    async fn collect(&self, payer: Payer, mut body: Incoming, max_bytes: usize) -> Result<Bytes, Unread> {
        if body.size_hint().lower() > max_bytes as u64 {
            return Err(Unread::TooLarge);
        }
        let budget = &self.service.memory.bodies;
        let mut held = budget.reserve(payer, 0).map_err(Unread::NoRoom)?;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.map_err(|_| Unread::BrokenOff)?.into_data() else { continue };
            let length = bytes.len() + chunk.len();
            if length > max_bytes {
                return Err(Unread::TooLarge);
            }
            if bytes.is_empty() && body.is_end_stream() {
                return Ok(chunk);
            }
            if bytes.capacity() < length {
                let more = BUFFER_STEP.max(chunk.len()).min(max_bytes - bytes.len());
                let new = bytes.len() + more - bytes.capacity();
                budget.grow(payer, &mut held, new).map_err(Unread::NoRoom)?;
                bytes.reserve_exact(more);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    fn too_large(&self) -> Refusal {
        self.service.limits.too_large.inc();
        (StatusCode::PAYLOAD_TOO_LARGE, "the body, or a message in it, is too large")
    }
}

/// The reason why a body was not read.
enum Unread {
    TooLarge,
    /// Too many bytes of this caller, or of others, are coming in.
    NoRoom(Error),
    /// The connection ended before the body did.
    BrokenOff,
}
