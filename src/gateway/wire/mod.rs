//! The wing between HTTP or TCP and the library's socket: one client's connection, and the registry of all.
//!
//! The library (socketioxide on engineioxide) does the Engine.IO handshake, heartbeats, transports and packets. This
//! wing stands under it, and does what the library cannot be left to do:
//!
//! | what | why | where |
//! |---|---|---|
//! | send finished frames straight to the kernel | the library copies each packet and hands it through a queue and a task; a room with thousands of members cannot afford that | [`outbound`], [`stream`] |
//! | know what a client has read | the library and the kernel take whatever is sent; only a pong with our payload, or the next poll, proves that the client has read it | [`flow`], [`connection`] |
//! | stop sending to a client that does not read, and end its connection | the library's queue would grow, and its disconnect would wait in that queue and tell the client to stay away | [`connection`] |
//! | keep order between its frames and ours | a frame of ours must not pass a packet that the library was given earlier, nor split one of its frames | [`outbound`], [`frames`] |
//! | follow the answers to polls | the library forgets packets when it hands out an answer, so a lost answer would lose them silently | [`polls`], [`polling`] |
//! | confirm a change to a WebSocket | the library ends a session whose WebSocket opens and then carries nothing | [`upgrade`] |
//! | bound what a client may send | the library keeps unfinished messages, attachments and bodies for as long as the client likes, whoever it is | [`bodies`], [`inbound`], [`unidentified`] |
//! | frame bodies of protocol version 3 | the time of the library's reader grows with the square of the number of packets | [`payload`] |
//! | let callers read in turns | the library would serve all sockets of one caller before other work | [`read_turns`] |
//! | say why a socket is refused | the library sends a single text | [`refusal`] |
//! | choose what a session keeps of its first request | the library keeps the request with the buffer that it was read into | [`request`] |
//!
//! [`transport`] is the entrance: it answers each HTTP request or hands it to the library, and gives the library a
//! [`stream`] for each WebSocket. Nothing here knows of rooms, events or rights.

mod bodies;
mod common;
mod flow;
mod inbound;
mod outbound;
mod payload;
mod polling;
mod polls;
mod read_turns;
mod request;
mod stream;
mod unidentified;
mod upgrade;
mod websocket;

pub mod connection;
pub mod connections;
pub mod end_reason;
pub mod frames;
pub mod metrics;
pub mod pages;
pub mod refusal;
pub mod response;
pub mod transport;
