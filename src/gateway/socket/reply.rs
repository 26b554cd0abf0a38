//! The way back to the sender of an event: its ack, or the event `exception`.

use std::{convert::Infallible, sync::Arc};

use serde::Serialize;
use serde_json::{json, value::RawValue};
use socketioxide::{adapter::LocalAdapter, extract::AckSender, handler::FromMessageParts, socket::Socket};
use tracing::error;

use super::outbox::{Ack, Kind, Outbox, SocketHandle, body};
use crate::domain::error::{Error, Result};

/// Answers one event. The first answer counts; the event may have asked for none.
pub struct Reply {
    socket: SocketHandle,
    ack: Option<Ack>,
}

impl Reply {
    pub fn ack<T: Serialize + ?Sized>(&mut self, answer: &T) {
        if let Some(ack) = self.ack.take() {
            self.socket.send(Kind::Ack(ack), body(answer));
        }
    }

    pub fn refuse(&mut self, error: &Error) {
        if error.is_failure() {
            let cause = std::error::Error::source(error);
            error!(socket = self.socket.log_name(), code = error.code.as_str(), cause, "failed");
        }
        let kind = self.ack.take().map_or(Kind::Event("exception"), Kind::Ack);
        self.socket.send(kind, failure(error));
    }
}

/// Returns the body of a failure, as an ack or as the event `exception`.
pub fn failure(error: &Error) -> Arc<RawValue> {
    body(&json!({"status": "error", "code": error.code.as_str(), "message": error.detail}))
}

impl FromMessageParts<LocalAdapter> for Reply {
    type Error = Infallible;

    fn from_message_parts(
        socket: &Arc<Socket>,
        value: &mut socketioxide_core::Value,
        ack: &Option<i64>,
    ) -> Result<Self, Infallible> {
        // The library's `AckSender` cannot say whether anybody waits for it.
        let sender = AckSender::from_message_parts(socket, value, ack)?;
        let outbox = socket.extensions.get::<Arc<Outbox>>().expect("inserted before the first event");
        let socket = SocketHandle { socket: socket.clone().into(), outbox };
        Ok(Self { socket, ack: ack.map(|id| Ack { id, sender }) })
    }
}
