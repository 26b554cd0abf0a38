//! Carrying out the acts of one transaction, one after the other, most by the file of their kind.

use super::{
    act::{Act, Done, Failure, Outcome},
    lanes::Passage,
    locations,
    locked::Locking,
    proof::Proof,
    rights, shares,
    transaction::{Transaction, Written},
};
use crate::{
    domain::{event::Event, id::UserId},
    storage::{
        error::DbResult,
        pool::Store,
        sql::{Cell, Rows},
    },
};

/// The results of the acts of a transaction, if it is committed.
#[derive(Debug)]
pub struct Outcomes {
    pub each: Vec<Outcome>,
    /// Further events, each after the act with this number; in order.
    pub events: Vec<(usize, Event)>,
    /// Passages of locations that they have made: the caller holds them.
    pub created: Vec<Passage>,
}

/// Carries out acts in their order, everything but the COMMIT. An act that is refused does not keep the others from
/// being carried out.
pub async fn carry_out(
    store: &Store,
    acts: &mut [Act],
    locking: Locking,
    last_proof: &mut Proof,
) -> DbResult<(Written, Outcomes)> {
    let mut tx = Transaction::begin(store, acts, locking).await?;
    let mut each = Vec::with_capacity(acts.len());
    for (number, act) in acts.iter_mut().enumerate() {
        each.push(match apply(&mut tx, number, act).await {
            Ok(done) => Ok(done),
            Err(Failure::Refused(refused)) => Err(refused),
            Err(Failure::Database(error)) => return Err(error),
        });
    }
    let (written, events) = tx.write(last_proof).await?;
    Ok((written, Outcomes { each, events, created: Vec::new() }))
}

async fn apply(tx: &mut Transaction<'_>, number: usize, act: &mut Act) -> Result<Done, Failure> {
    match act {
        Act::Create { new, .. } => Ok(Done::Location(tx.versions.create(&tx.tx, new).await?)),
        Act::Update { update, payer, received_at } => {
            locations::update(tx, number, update, *payer, *received_at)
        }
        Act::Delete { id, by, payer } => locations::delete(tx, number, *id, by, *payer),
        // Rare, and their futures are large.
        Act::Rights(rights) => Box::pin(rights::apply(tx, number, rights)).await,
        Act::CountUses(used) => Box::pin(shares::count_uses(tx, used)).await,
        Act::NameUsers(users) => Box::pin(store_names(tx, users)).await,
    }
}

/// Stores users' names instead of those they had.
async fn store_names(tx: &mut Transaction<'_>, users: &[(UserId, String)]) -> Result<Done, Failure> {
    let updates = "name = excluded.name, updated_at = excluded.updated_at";
    let mut rows = Rows::upsert(tx.dialect, "INSERT INTO account (id, name, updated_at)", updates);
    let now = Cell::number(tx.now);
    for (id, name) in users {
        rows.push([Cell::number(*id), Cell::Text(name), now]);
    }
    Rows::send([rows], &tx.tx).await?;
    tx.has_written = true;
    Ok(Done::Recorded)
}
