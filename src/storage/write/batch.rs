//! Carrying out the acts of one transaction, one after the other, each by the file of its kind.

use super::{
    act::{Act, Failure, Outcome},
    locations,
    locked::Locking,
    names,
    proof::ProofRow,
    rights, shares,
    transaction::{Transaction, Written},
};
use crate::{
    domain::event::Event,
    storage::{error::DbResult, pool::Store},
};

/// The results of the acts of a transaction, if it is committed.
#[derive(Debug)]
pub struct Outcomes {
    /// The outcome of each act.
    pub each: Vec<Outcome>,
    /// Further events, each after the act with this number; in order.
    pub events: Vec<(usize, Event)>,
}

/// Carries out acts in their order, everything but the COMMIT. An act that is refused does not keep the others from
/// being carried out.
pub async fn carry_out(
    store: &Store,
    acts: &mut [Act],
    locking: Locking,
    row: &mut ProofRow,
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
    let (written, events) = tx.write(row).await?;
    Ok((written, Outcomes { each, events }))
}

async fn apply(tx: &mut Transaction<'_>, number: usize, act: &mut Act) -> Result<super::act::Done, Failure> {
    match act {
        Act::Create(act) => locations::create(tx, &act.new).await,
        Act::Update(act) => locations::update(tx, number, act),
        Act::Delete(delete) => locations::delete(tx, number, delete),
        // Rare, and their futures are large.
        Act::Rights(rights) => Box::pin(rights::apply(tx, number, rights)).await,
        Act::CountUses(used) => Box::pin(shares::count_uses(tx, used)).await,
        Act::NameUsers(users) => Box::pin(names::store(tx, users)).await,
    }
}
