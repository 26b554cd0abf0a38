//! A socket that is being opened, read step by step and with waiting; afterwards epoll reads it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use memchr::memmem;

use super::{Result, VERSION};
use crate::wire::{PING, PONG, TEXT, UPGRADE, client_frame, frame, member, number};

/// A socket on its way to be a member of a room.
pub struct Opening {
    /// The connection.
    pub stream: TcpStream,
    /// Bytes that have come and belong to no step yet.
    pub rest: Vec<u8>,
}

impl Opening {
    /// Connects, and asks for a WebSocket.
    pub fn begin(gateway: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(gateway)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(UPGRADE)?;
        Ok(Self { stream, rest: Vec::new() })
    }

    /// Waits for the WebSocket and the session, and asks for the namespace.
    pub fn connect(&mut self) -> Result<()> {
        self.wait_for_upgrade()?;
        self.wait_for(b"0{")?;
        self.send(b"40")
    }

    /// Waits for the namespace, and asks for a room if there is one.
    pub fn join(&mut self, location: Option<u64>) -> Result<()> {
        self.wait_for(b"40{")?;
        match location {
            Some(id) => self.send(format!(r#"420["join_room",{{"locationId":{id}}}]"#).as_bytes()),
            None => Ok(()),
        }
    }

    /// Waits until the socket is in the room. Returns the version that it was sent.
    pub fn wait_for_snapshot(&mut self) -> Result<u64> {
        self.wait_for(b"430[")?;
        let chat = self.wait_for(b"42[\"chat\"")?;
        Ok(member(&chat, VERSION, &mut 0).ok_or("a snapshot without version")?)
    }

    /// Reads what else has come, and hands the connection over to epoll.
    pub fn finish(&mut self) -> Result<()> {
        while self.next()?.is_some() {}
        Ok(self.stream.set_nonblocking(true)?)
    }

    fn send(&mut self, text: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(&client_frame(TEXT, text))?)
    }

    fn read_more(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        let n = self.stream.read(&mut buffer)?;
        if n == 0 {
            return Err("a socket was closed while it was opened".into());
        }
        self.rest.extend_from_slice(&buffer[..n]);
        Ok(())
    }

    fn wait_for_upgrade(&mut self) -> Result<()> {
        loop {
            if let Some(end) = memmem::find(&self.rest, b"\r\n\r\n") {
                let status = number(self.rest.get(9..12).unwrap_or_default());
                if status != Some(101) {
                    return Err(format!("a WebSocket was refused: {status:?}").into());
                }
                self.rest.drain(..end + 4);
                return Ok(());
            }
            self.read_more()?;
        }
    }

    /// Waits for a packet with this beginning. Others are dropped.
    fn wait_for(&mut self, prefix: &[u8]) -> Result<Vec<u8>> {
        loop {
            match self.next()? {
                Some(packet) if packet.starts_with(prefix) => return Ok(packet),
                Some(_) => {}
                None => self.read_more()?,
            }
        }
    }

    /// Returns the next packet that has come. Heartbeats, which may come at once, are answered.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(frame) = frame(&self.rest) else { return Ok(None) };
        let end = frame.payload.end;
        let payload = self.rest[frame.payload].to_vec();
        self.rest.drain(..end);
        if frame.opcode == PING {
            self.stream.write_all(&client_frame(PONG, &payload))?;
        } else if payload == b"2" {
            self.send(b"3")?;
        }
        Ok(Some(payload))
    }
}
