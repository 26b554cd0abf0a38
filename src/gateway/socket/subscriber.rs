//! A socket with its session, as rooms and the directory know it.

use std::sync::Arc;

use super::{outbox::SocketHandle, session::Session};

/// A socket with its session.
#[derive(Clone)]
pub struct Subscriber {
    pub handle: SocketHandle,
    pub session: Arc<Session>,
}
