//! What happens beside the moves of a batch, which is most of them: whose lists change, who is told.
//!
//! Members are read for all of it at once, before those of what is deleted are removed.

use std::{collections::HashMap, sync::Arc};

use sea_orm::DatabaseTransaction;

use super::{grant::pair_payer, notices};
use crate::{
    domain::{
        access::{Caller, Payer},
        event::{Event, ListChange},
        id::{LocationId, UserId},
        location::Location,
        notification::{Activity, ActivityKind},
        time::Timestamp,
    },
    storage::{error::DbResult, pool::Store},
};

/// The caller on whose account an act is, and the same unless it may concern anybody.
#[derive(Clone, Copy)]
pub struct Account {
    payer: Option<Payer>,
    pair_payer: Option<Payer>,
}

impl Account {
    /// That of a caller.
    pub fn new(by: &Caller, payer: Option<Payer>) -> Self {
        Self { payer, pair_payer: pair_payer(by, payer) }
    }
}

/// What some acts have done besides.
#[derive(Default)]
pub struct Beside {
    /// By the number of the act: whose it is, the location, its owner, what becomes of it in lists.
    listed: Vec<(usize, Account, LocationId, UserId, ListChange)>,
    news: Vec<(usize, Activity)>,
}

impl Beside {
    /// Did nothing but moves happen?
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.news.is_empty()
    }

    /// An act changes lists.
    pub fn listed(&mut self, number: usize, account: Account, location: &Location, change: ListChange) {
        self.listed.push((number, account, location.id, location.owner, change));
    }

    /// An act is one of which people may have to be told.
    pub fn happened(
        &mut self,
        number: usize,
        (by, account): (&Caller, Account),
        location: &Location,
        name: Option<String>,
        kind: ActivityKind,
        at: Timestamp,
    ) {
        let Location { id, owner, .. } = *location;
        let (by, pair_payer) = (by.user(), account.pair_payer);
        self.news
            .push((number, Activity { by, location: id, owner, name, kind, at, pair_payer, except: None }));
    }
}

impl Store {
    /// Stores what people are told of some changes; returns it, and whose lists they change.
    pub(in crate::storage) async fn spread_beside(
        &self,
        tx: &DatabaseTransaction,
        beside: Beside,
    ) -> DbResult<Vec<(usize, Event)>> {
        let Beside { listed, news } = beside;
        let ids = listed.iter().map(|(_, _, id, ..)| *id).chain(news.iter().map(|(_, news)| news.location));
        let members = notices::members(tx, &ids.collect()).await?;
        let mut lists: HashMap<LocationId, Arc<[UserId]>> = HashMap::new();
        let mut events = Vec::with_capacity(listed.len() + news.len());
        for (number, Account { payer, pair_payer }, id, owner, change) in listed {
            let members = members.get(&id).into_iter().flatten().copied();
            let to = lists.entry(id).or_insert_with(|| [owner].into_iter().chain(members).collect()).clone();
            let is_bounded = pair_payer.is_some();
            events.push((number, Event::ListChanged { change, to, and_admins: true, payer, is_bounded }));
        }
        let (numbers, news): (Vec<_>, Vec<_>) = news.into_iter().unzip();
        let told = self.tell(tx, &news, &members).await?;
        events.extend(told.into_iter().map(|(at, told)| (numbers[at], Event::Notified(told))));
        events.sort_by_key(|(number, _)| *number);
        Ok(events)
    }
}
