//! Recovery of rooms. The sweep compares all of them with the database now and then, so that a room recovers also from
//! an update or a change of rights that never reached it. After a panic over a room it is read again, or given up.
//!
//! Panics are caught where the work is done (here, `versions.rs`, `gateway/event_loop.rs`, `gateway/announcer.rs`).

use std::{collections::HashMap, time::Instant};

use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::registry::{Member, Rooms};
use crate::{domain::id::LocationId, gateway::wire::end_reason::EndReason, service::locations::Head};

/// Limits the rooms of one read.
const MAX_ROOMS_PER_READ: usize = 1_024;

/// The newest version of each live room's location; `None`: the location does not exist.
type Heads = HashMap<LocationId, Option<u64>>;

impl Rooms {
    /// Sweeps for ever. A version that the database has in one sweep and a room lacks in the next one was lost; what is
    /// still on its way is not read in vain.
    pub async fn sweep(&self) {
        let mut before = Heads::new();
        loop {
            sleep(self.timings.sweep_interval).await;
            let heads = self.read_heads().await;
            for (id, seen) in std::mem::take(&mut before) {
                self.sweep.catch(|| match seen {
                    None if heads.get(&id) == Some(&None) => self.close_deleted(id),
                    Some(version) if self.record_committed(id, version) => {
                        info!(room = %id, version, "a room missed a commit; the sweep found it");
                        self.behind.lock().insert(id);
                    }
                    _ => {}
                });
            }
            before = heads;
        }
    }

    /// Reads the heads of all live rooms, and the rights of those that have not been told of a change.
    async fn read_heads(&self) -> Heads {
        let live: Vec<_> = self.rooms.lock().values().cloned().collect();
        for room in &live {
            self.sweep.catch(|| room.state.lock().forget_unneeded(Instant::now()));
        }
        let live: Vec<_> = live.iter().map(|room| room.id).collect();
        let mut heads = Heads::new();
        for ids in live.chunks(MAX_ROOMS_PER_READ) {
            // Without the database there is nothing to compare with.
            let Ok(found) = self.service.versions(ids).await else { continue };
            heads.extend(ids.iter().map(|id| (*id, None)));
            heads.extend(found.iter().map(|head| (head.id, Some(head.version))));
            let has_old_rights = |head: &&Head| {
                self.room(head.id).is_some_and(|room| room.rights.lock().are_older_than(head.grants))
            };
            for head in found.iter().filter(has_old_rights) {
                let refreshed = self.sweep.catch_async(self.refresh_rights(head.id)).await;
                if let Some(Err(error)) = refreshed {
                    debug!(room = %head.id, %error, "rights could not be read for a room");
                }
            }
        }
        heads
    }

    /// Records that a version is committed. It returns `true` if the room lacks it.
    fn record_committed(&self, id: LocationId, version: u64) -> bool {
        let Some(room) = self.room(id) else { return false };
        let mut state = room.state.lock();
        let had_gap = state.has_gap();
        let has_gap = state.record_committed(version);
        if has_gap && !had_gap {
            self.metrics.healed.inc();
        }
        has_gap
    }

    /// Removes a room that cannot be brought up to date. Its members are to connect again, and will find another room
    /// of that name.
    pub(super) fn give_up(&self, id: LocationId) {
        let Some(room) = self.rooms.lock().remove(&id) else { return };
        let members: Vec<_> = room.state.lock().close().collect();
        warn!(room = %id, members = members.len(), "a room was given up after a panic; its members have to reconnect");
        for (Member { subscriber, .. }, _) in members {
            subscriber.session.leave(id);
            subscriber.handle.outbox.abort(EndReason::StalledInReplay);
        }
    }

    /// Mends a room after a panic over an event for it: reads again who may be in it, and the versions that it may have
    /// missed, up to this one.
    pub async fn heal(&self, id: LocationId, version: Option<u64>) {
        let Some(room) = self.room(id) else { return };
        // If the read below fails, the next sweep reads rights again.
        room.rights.lock().distrust();
        if let Some(version) = version {
            room.state.lock().record_committed(version);
        }
        drop(room);
        self.behind.lock().insert(id);
        if let Err(error) = self.refresh_rights(id).await {
            debug!(room = %id, %error, "rights could not be read for a room");
        }
        self.backfill(id).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{env, path::PathBuf, process, sync::Arc, time::Duration};

    use tokio::time::timeout;

    use super::{super::registry::Entrant, *};
    use crate::{
        config::{Config, Timings},
        domain::{
            access::Payer,
            event::Event,
            id::UserId,
            location::{NewLocation, Update},
        },
        gateway::Gateway,
        service::Service,
        storage::Store,
    };

    /// Starts a service on a database of its own, and returns its configuration.
    async fn service(name: &str) -> (Arc<Service>, tokio::sync::mpsc::Receiver<Event>, Config, PathBuf) {
        let folder = env::temp_dir().join(format!("georoom_{name}_{}", process::id()));
        let url = format!("sqlite://{}/georoom.db?mode=rwc", folder.display());
        let config = Config::from_variables(|name| (name == "DATABASE_URL").then(|| url.clone()));
        let config = config.unwrap();
        let store = Store::connect(&url).await.unwrap();
        store.migrate().await.unwrap();
        let (service, events) =
            Service::start(store, config.history, config.notifications, None, &config.limits);
        (service, events, config, folder)
    }

    fn panics_of(service: &Service, task: &str) -> String {
        let name = format!("georoom_task_panics_total{{task=\"{task}\"}} ");
        let text = service.metrics.text();
        text.lines().find_map(|line| line.strip_prefix(&name)).expect("the counter").to_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_event_that_panics_is_counted_and_the_next_is_forwarded() {
        let (service, events, config, folder) = service("bomb").await;
        let (mut gateway, _) = Gateway::start(
            service.clone(),
            events,
            config.heartbeat,
            &config.auth.origins,
            config.auth.trusted_proxies,
            &config.limits,
            config.timings,
        );
        service.events.send(Event::Panic).await;
        service.events.wait_until_settled().await;
        // To print a panic with its backtrace may take longer than that on a busy machine.
        let counted = async {
            while panics_of(&service, "forwarder") != "1" {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), counted).await.expect("the panic is counted");
        assert_eq!(service.tasks.failure(), None);
        service.tasks.stop();
        gateway.flush().await;
        assert_eq!(service.tasks.failure(), None, "its end is no failure then");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_room_is_healed_of_what_it_did_not_hear() {
        let (service, _events, _, folder) = service("healed").await;
        let body = br#"{"geometry":{"type":"Point","coordinates":[1,2]}}"#;
        let payer = Payer::User(UserId::DEFAULT);
        let id =
            service.create_location(NewLocation::from_body(body, None).unwrap(), payer).await.unwrap().id;
        let rooms = Rooms::start(service.clone(), Arc::default(), Timings::default());
        let entrant = Entrant::new(&rooms, id, None);
        rooms.read_missing(&entrant.room, None).await.unwrap();
        assert_eq!(entrant.room.state.lock().head(), Some(1));
        for _ in 0..2 {
            service
                .update_location(Update::from_body(body, Some(id), None).unwrap(), payer, Instant::now())
                .await
                .unwrap();
        }
        rooms.heal(id, Some(3)).await;
        assert_eq!(entrant.room.state.lock().head(), Some(3));
        // A room that cannot be healed is given up, and the next one of that name begins anew.
        rooms.give_up(id);
        assert_eq!(rooms.rooms.lock().len(), 0);
        drop(entrant);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
