//! The events of the model, and how often each is tried.

use proptest::prelude::*;

/// The number of clients.
pub const CLIENTS: usize = 4;

/// The `since` of a join.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    Absent,
    /// The last version that the client has seen.
    Seen,
    /// This many versions before the head.
    Behind(u64),
    /// This many versions after the head.
    Ahead(u64),
}

/// An event of the model. A `usize` that comes first is a client.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// This many versions are committed.
    Commit(u64),
    /// This many updates reach the room, in order.
    Deliver(usize),
    /// The next update is lost.
    Lose,
    /// A client joins.
    Join(usize, Since),
    /// A client leaves.
    Leave(usize),
    /// The database begins to read for the room.
    BeginRead,
    /// The answer of the database arrives.
    EndRead,
    /// The read fails.
    FailRead,
    /// A client reads this many entries of its queue.
    Receive(usize, usize),
    /// The room tries again to send what it could not send before.
    Tick,
    /// The room has a turn.
    Serve,
    /// Retention removes history, except for this many versions before the head.
    Remove(u64),
    /// This many seconds pass.
    Wait(u64),
    /// The location is deleted. From now on the model is about another one.
    Delete,
}

/// Makes random events, more of those that are frequent.
pub fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    let since = prop_oneof![
        2 => Just(Since::Absent),
        5 => Just(Since::Seen),
        2 => (0..1_200_u64).prop_map(Since::Behind),
        1 => (1..3_u64).prop_map(Since::Ahead),
    ];
    prop_oneof![
        8 => (1..4_u64).prop_map(Step::Commit),
        1 => (100..700_u64).prop_map(Step::Commit),
        8 => (1..6_usize).prop_map(Step::Deliver),
        1 => Just(Step::Deliver(1_000)),
        2 => Just(Step::Lose),
        6 => (client(), since).prop_map(|(client, since)| Step::Join(client, since)),
        2 => client().prop_map(Step::Leave),
        6 => Just(Step::BeginRead),
        6 => Just(Step::EndRead),
        1 => Just(Step::FailRead),
        8 => (client(), 1..10_usize).prop_map(|(client, count)| Step::Receive(client, count)),
        4 => client().prop_map(|client| Step::Receive(client, usize::MAX)),
        3 => Just(Step::Tick),
        6 => Just(Step::Serve),
        1 => (1..1_100_u64).prop_map(Step::Remove),
        2 => prop_oneof![1..4_u64, 10..13_u64].prop_map(Step::Wait),
        1 => Just(Step::Delete),
    ]
}
