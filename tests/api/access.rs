//! Members, shares and accounts as the database has them, and who may change what.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use georoom::{
    config::{History, Notifications},
    domain::{
        access::{Access, Caller, Guest, Role},
        area::Bbox,
        distance::Near,
        error::{Code, Result},
        event::Event,
        id::{LocationId, ShareId, UserId},
        location::{NewLocation, Update},
        time::Timestamp,
    },
    metrics::Metrics,
    storage::{
        Filter, HistorySweeper, Listing, NewShare, NotificationSweeper, Page, ShareUses, Store, Writer,
    },
    supervise::Supervisor,
};
use sea_orm::ConnectionTrait;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    on_both_databases,
    support::{
        Db, TestDatabase,
        proxy::{Loss, Proxy},
        truth::Random,
    },
};

on_both_databases!(
    each_role_may_do_what_it_may_and_no_more,
    a_change_that_changes_nothing_is_not_counted,
    there_is_an_end_to_members_and_shares,
    a_share_is_found_by_its_hash_until_it_is_revoked,
    a_removed_location_takes_all_along,
    lists_show_what_is_ones_own_or_shared_with_one,
    whoever_is_removed_has_moved_it_for_the_last_time,
    a_caller_who_goes_away_leaves_nothing_half_done,
    a_guest_is_nobody_s_member,
    steps_broken_off_before_they_were_noted_are_run_again,
);

const OWNER: u64 = 10;
const VIEWER: u64 = 11;
const EDITOR: u64 = 12;
const STRANGER: u64 = 13;
const FIRST: Page = Page { offset: 0, limit: 100 };

/// A database with the writer on it, as one process has them.
struct Floor {
    store: Store,
    writer: Writer,
    /// What the writer has published and no test has taken.
    events: Arc<Mutex<Vec<Event>>>,
}

async fn opened(url: &str) -> Store {
    let store = Store::connect(url).await.expect("a database");
    store.migrate().await.expect("tables");
    store
}

impl Floor {
    async fn on(url: &str) -> Self {
        let store = opened(url).await;
        Self::with(store.clone(), store)
    }

    /// The tasks that remove what is old do so over `swept`.
    fn with(store: Store, swept: Store) -> Self {
        let (events, mut happened) = mpsc::channel::<Event>(100);
        let published = Arc::<Mutex<Vec<_>>>::default();
        let taken = published.clone();
        tokio::spawn(async move {
            while let Some(event) = happened.recv().await {
                taken.lock().expect("no panic").push(event);
            }
        });
        let metrics = Metrics::default();
        let tasks = Supervisor::start(&metrics);
        let history = History { versions: 1_000, age: None };
        let retention = HistorySweeper::start(swept.clone(), history, &metrics, &tasks);
        let keep = Notifications { age: Duration::from_secs(3_600), count: 1_000 };
        let expiry = NotificationSweeper::start(swept, keep, &metrics, &tasks);
        let writer = Writer::start(store.clone(), events, retention, expiry, &metrics, &tasks);
        Self { store, writer, events: published }
    }

    async fn create(&self, owner: u64) -> LocationId {
        let body = br#"{"geometry":{"type":"Point","coordinates":[1,2]},"userId":"ignored"}"#;
        let new = NewLocation::from_body(body, Some(&user(owner))).expect("a location");
        self.writer.create(new, None).await.expect("made").id
    }

    /// With a viewer and an editor.
    async fn shared(&self) -> LocationId {
        let id = self.create(OWNER).await;
        for (member, role) in [(VIEWER, Role::Viewer), (EDITOR, Role::Editor)] {
            self.set_member(&user(OWNER), id, uid(member), role).await.expect("a member");
        }
        id
    }

    async fn set_member(&self, by: &Caller, id: LocationId, user: UserId, role: Role) -> Result<()> {
        self.writer.set_member(by.clone(), None, id, (user, role)).await
    }

    async fn remove_member(&self, by: &Caller, id: LocationId, user: UserId) -> Result<()> {
        self.writer.remove_member(by.clone(), None, id, user).await
    }

    async fn revoke_share(&self, by: &Caller, id: LocationId, share: ShareId) -> Result<()> {
        self.writer.revoke_share(by.clone(), id, share).await
    }

    async fn count_use(&self, share: ShareId, count: u64, last_at: Timestamp) {
        self.writer.count_uses(vec![ShareUses { share, count, last_at }]).await.expect("counted");
    }

    async fn name_users(&self, users: &[(u64, &str)]) {
        let users = users.iter().map(|(id, name)| (uid(*id), (*name).to_owned()));
        self.writer.name_users(users.collect()).await.expect("named");
    }

    /// The number of changes of the location's members and shares.
    async fn grants(&self, id: LocationId) -> u64 {
        self.access(id).await.grants
    }

    /// Takes what was published: the counts of changes of rights, and who was notified by which id.
    async fn published(&self) -> (Vec<u64>, Vec<(UserId, u64)>) {
        // It is on its way before a caller has the answer.
        sleep(Duration::from_millis(20)).await;
        let (mut changes, mut notified) = (Vec::new(), Vec::new());
        for event in self.events.lock().expect("no panic").drain(..) {
            match event {
                Event::RightsChanged { grants, .. } => changes.push(grants),
                Event::Notified(notice) => notified.extend(notice.recipients),
                _ => {}
            }
        }
        (changes, notified)
    }

    async fn mv(&self, by: &Caller, id: LocationId) -> Result<u64> {
        let body = br#"{"geometry":{"type":"Point","coordinates":[3,4]},"userId":13}"#;
        let moved = self
            .writer
            .update(Update::from_body(body, Some(id), Some(by)).expect("an update"), None, Instant::now())
            .await?;
        assert_eq!(moved.updated_by, by.user());
        Ok(moved.version)
    }

    async fn access(&self, id: LocationId) -> Access {
        self.store.access(id).await.expect("an answer").expect("a location")
    }

    async fn share(&self, by: &Caller, id: LocationId, hash: u8) -> Result<ShareId> {
        self.writer.create_share(by.clone(), None, id, new_share(hash, 60_000)).await
    }

    /// What a page shows, in its order.
    async fn read(&self, mut page: Listing) -> Vec<LocationId> {
        let shown = self.store.read_piece(&mut page).await.expect("its only piece");
        assert!(page.is_read());
        shown.iter().map(|(location, _)| location.id).collect()
    }

    async fn listed(&self, by: &Caller) -> (Vec<LocationId>, u64) {
        let (found, total) = self.store.locations(by, FIRST).await.expect("a list");
        let found = self.read(found).await;
        let bbox = Some(Bbox::parse("0,0,5,5").expect("a box"));
        let inside = self.store.locations_in(by, Filter { bbox, near: None }, FIRST).await.expect("a list");
        assert_eq!(self.read(inside).await, found);
        let near = Some(Near::parse("1,2", "1000").expect("a circle"));
        let close = self.store.locations_in(by, Filter { bbox: None, near }, FIRST).await.expect("a list");
        let mut close = self.read(close).await;
        close.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(close, found);
        (found, total)
    }
}

fn uid(id: u64) -> UserId {
    UserId::new(id).expect("an id")
}

fn user(id: u64) -> Caller {
    Caller::User { id: uid(id), is_admin: false }
}

fn admin() -> Caller {
    Caller::User { id: uid(99), is_admin: true }
}

fn in_ms(ms: i64) -> Timestamp {
    Timestamp::from_millis(Timestamp::now().as_millis() + ms)
}

fn new_share(hash: u8, ms: i64) -> NewShare {
    NewShare {
        label: Some("für Ömer 🚲".into()),
        expires_at: in_ms(ms),
        password_hash: None,
        token_hash: [hash; 32],
    }
}

fn guest(location: LocationId) -> Caller {
    Caller::Guest(Guest { share: ShareId(1), location, from: 1, expires_at: in_ms(60_000) })
}

fn code<T>(result: Result<T>) -> Option<Code> {
    result.err().map(|error| error.code)
}

async fn each_role_may_do_what_it_may_and_no_more(db: Db) {
    let database = TestDatabase::create(db).await;
    let floor = Floor::on(&database.url).await;
    let Floor { store, writer, .. } = &floor;
    let (no, unknown) = (Some(Code::Forbidden), Some(Code::NotFound));
    let elsewhere = guest(LocationId::new(9_999).expect("an id"));
    for (by, moves, manages) in [
        (&|_| user(STRANGER) as Caller as _, unknown, unknown),
        (&|_| user(VIEWER), no, no),
        (&|_| user(EDITOR), None, no),
        (&|_| user(OWNER), None, None),
        (&|_| admin(), None, None),
        (&|_| Caller::Anyone(uid(STRANGER)), None, None),
        (&guest, no, no),
        (&|_| elsewhere.clone(), unknown, unknown),
    ] as [(&dyn Fn(LocationId) -> Caller, Option<Code>, Option<Code>); 8]
    {
        let id = floor.shared().await;
        let by = &by(id);
        let hash = id.get() as u8;
        let share = floor.share(&user(OWNER), id, hash).await.expect("a share");
        assert_eq!(floor.grants(id).await, 3);
        assert_eq!(code(floor.mv(by, id).await), moves, "{by:?}");
        assert_eq!(code(floor.set_member(by, id, uid(77), Role::Editor).await), manages, "{by:?}");
        assert_eq!(code(floor.remove_member(&user(VIEWER), id, uid(EDITOR)).await), no, "one viewer another");
        assert_eq!(code(floor.share(by, id, 100 + hash).await), manages, "{by:?}");
        assert_eq!(code(floor.revoke_share(by, id, share).await), manages, "{by:?}");
        let done = manages.is_none();
        let access = floor.access(id).await;
        assert_eq!((access.owner, access.members.len()), (uid(OWNER), if done { 3 } else { 2 }), "{by:?}");
        assert_eq!((access.shares.len(), access.shares.contains_key(&share)), (1, !done), "{by:?}");
        assert_eq!(access.grants, 3 + if done { 3 } else { 0 }, "{by:?}");
        // To others, and then to oneself.
        let other = if *by == user(VIEWER) { EDITOR } else { VIEWER };
        assert_eq!(code(floor.remove_member(by, id, uid(other)).await), manages, "{by:?}");
        assert_eq!(code(writer.delete(by.clone(), None, id).await), manages, "{by:?}");
        if *by == user(VIEWER) || *by == user(EDITOR) {
            floor.remove_member(by, id, by.user()).await.expect("one may leave");
            assert_eq!(code(floor.mv(by, id).await), unknown);
            assert_eq!(code(floor.remove_member(by, id, by.user()).await), unknown);
        }
    }
    let nowhere = LocationId::new(9_999).expect("an id");
    assert_eq!(code(floor.set_member(&admin(), nowhere, uid(1), Role::Viewer).await), unknown);
    assert_eq!(code(floor.share(&admin(), nowhere, 0).await), unknown);
    assert_eq!(code(writer.delete(admin(), None, nowhere).await), unknown);
    assert_eq!(store.access(nowhere).await.expect("an answer"), None);
    store.clone().close().await;
    database.drop().await;
}

async fn a_change_that_changes_nothing_is_not_counted(db: Db) {
    let database = TestDatabase::create(db).await;
    let floor = Floor::on(&database.url).await;
    let store = floor.store.clone();
    let (id, owner) = (floor.create(OWNER).await, user(OWNER));
    let grants = async || store.versions(&[id]).await.expect("an answer")[0];
    assert_eq!((grants().await.version, grants().await.grants), (1, 0));
    floor.set_member(&owner, id, uid(VIEWER), Role::Viewer).await.expect("a member");
    assert_eq!(floor.published().await.0, [1]);
    let before = store.members(id).await.expect("members");
    floor.set_member(&owner, id, uid(VIEWER), Role::Viewer).await.expect("again");
    assert_eq!(floor.published().await.0, [1]);
    assert_eq!(store.members(id).await.expect("members"), before);
    sleep(Duration::from_millis(3)).await;
    floor.set_member(&owner, id, uid(VIEWER), Role::Editor).await.expect("more");
    assert_eq!(floor.published().await.0, [2]);
    let after = store.members(id).await.expect("members");
    assert_eq!((after[0].role, after[0].added_at), (Role::Editor, before[0].added_at));
    let standing = async |of| {
        let standing = store.standing(id, uid(of)).await.expect("an answer").expect("a location");
        (standing.owner, standing.member)
    };
    assert_eq!(standing(VIEWER).await, (uid(OWNER), Some(Role::Editor)));
    assert_eq!(standing(OWNER).await, (uid(OWNER), None));
    for (user, role) in [(OWNER, Role::Viewer), (VIEWER, Role::Owner), (VIEWER, Role::Guest)] {
        let refused = floor.set_member(&owner, id, uid(user), role).await;
        assert_eq!(code(refused), Some(Code::InvalidMember));
    }
    assert_eq!(code(floor.remove_member(&owner, id, uid(STRANGER)).await), Some(Code::NotFound));
    assert_eq!(code(floor.revoke_share(&owner, id, ShareId(1)).await), Some(Code::NotFound));
    // The writer rewrites the row and leaves the count alone.
    assert_eq!(floor.mv(&owner, id).await.expect("moved"), 2);
    assert_eq!((grants().await.version, grants().await.grants), (2, 2));
    floor.remove_member(&owner, id, uid(VIEWER)).await.expect("removed");
    assert_eq!((floor.published().await.0, floor.grants(id).await), (vec![3], 3));

    // Longest members first; the last name counts.
    for member in [30, 20, 40] {
        floor.set_member(&owner, id, uid(member), Role::Viewer).await.expect("a member");
        sleep(Duration::from_millis(3)).await;
    }
    let long = "🦀".repeat(255);
    floor.name_users(&[(20, "Zoë"), (30, "old"), (30, long.as_str())]).await;
    floor.name_users(&[(20, "Zoë 2")]).await;
    floor.name_users(&[]).await;
    let members = store.members(id).await.expect("members");
    let named: Vec<_> = members.iter().map(|member| (member.user.get(), member.name.as_deref())).collect();
    assert_eq!(named, [(30, Some(long.as_str())), (20, Some("Zoë 2")), (40, None)]);
    store.close().await;
    database.drop().await;
}

async fn there_is_an_end_to_members_and_shares(db: Db) {
    let database = TestDatabase::create(db).await;
    let floor = Floor::on(&database.url).await;
    let Floor { store, .. } = &floor;
    let (id, owner) = (floor.create(OWNER).await, user(OWNER));
    let raw = database.open().await;
    let members: Vec<_> = (100..10_099).map(|user| format!("({id},{user},1,5)")).collect();
    let sql =
        format!("INSERT INTO member (location_id, user_id, role, added_at) VALUES {}", members.join(","));
    raw.execute_unprepared(&sql).await.expect("members");
    floor.set_member(&owner, id, uid(1), Role::Viewer).await.expect("the last");
    let refused = floor.set_member(&owner, id, uid(2), Role::Viewer).await;
    assert_eq!(code(refused), Some(Code::TooManyMembers));
    floor.set_member(&owner, id, uid(1), Role::Editor).await.expect("no further member");
    assert_eq!(floor.access(id).await.members.len(), 10_000);
    assert_eq!(store.members(id).await.expect("members").len(), 10_000);

    // 999 that have not ended, one that just has, one that did long ago.
    let (now, day) = (Timestamp::now().as_millis(), 24 * 3_600 * 1_000);
    let ends = (0..999).map(|_| now + day).chain([now - 1_000, now - 2 * day]);
    let shares = ends.enumerate().map(|(n, ends)| format!("({id},x'{:064x}',1,{now},{ends})", n + 1));
    let sql = format!(
        "INSERT INTO share (location_id, token_hash, from_version, created_at, expires_at) VALUES {}",
        shares.collect::<Vec<_>>().join(",")
    );
    raw.execute_unprepared(&sql).await.expect("shares");
    assert_eq!(store.shares(id).await.expect("shares").len(), 999);
    floor.share(&owner, id, 1).await.expect("the last");
    assert_eq!(code(floor.share(&owner, id, 2).await), Some(Code::TooManyShares));
    assert_eq!(floor.access(id).await.shares.len(), 1_000);
    let hash = |n: u16| {
        let mut hash = [0; 32];
        hash[30..].copy_from_slice(&n.to_be_bytes());
        hash
    };
    let ended = store.share_by_hash(&hash(1_000)).await.expect("an answer").expect("known to have ended");
    assert!(ended.guest.expires_at < Timestamp::now());
    assert_eq!(store.share_by_hash(&hash(1_001)).await.expect("an answer"), None);
    raw.close().await.expect("close");
    store.clone().close().await;
    database.drop().await;
}

async fn a_share_is_found_by_its_hash_until_it_is_revoked(db: Db) {
    let database = TestDatabase::create(db).await;
    let floor = Floor::on(&database.url).await;
    let Floor { store, .. } = &floor;
    let (id, owner) = (floor.create(OWNER).await, user(OWNER));
    floor.mv(&owner, id).await.expect("moved");
    let with_password = NewShare { password_hash: Some("$2b$…".into()), ..new_share(7, 60_000) };
    let expires_at = with_password.expires_at;
    let first = floor.writer.create_share(owner.clone(), None, id, with_password).await.expect("a share");
    assert_eq!(floor.published().await.0, [1]);
    let second = floor.share(&owner, id, 8).await.expect("a share");
    let found = store.share_by_hash(&[7; 32]).await.expect("an answer").expect("a share");
    let is = Guest { share: first, location: id, from: 2, expires_at };
    assert_eq!((found.guest, found.password_hash), (is, Some("$2b$…".to_owned())));
    assert_eq!(store.share_by_hash(&[9; 32]).await.expect("an answer"), None);
    // What is gone is not counted, and in nobody's way.
    let at = in_ms(-5);
    let uses = [(first, 3, in_ms(-10)), (second, 1, at), (ShareId(999), 1, at)];
    let uses = uses.map(|(share, count, last_at)| ShareUses { share, count, last_at });
    floor.writer.count_uses(uses.to_vec()).await.expect("counted");
    floor.count_use(first, 2, at).await;
    floor.count_use(first, 1, in_ms(-1_000)).await;
    floor.writer.count_uses(Vec::new()).await.expect("nothing");
    let shares = store.shares(id).await.expect("shares");
    let uses: Vec<_> = shares.iter().map(|share| (share.id, share.uses, share.last_used_at)).collect();
    assert_eq!(uses, [(first, 6, Some(at)), (second, 1, Some(at))]);
    assert_eq!((shares[0].has_password, shares[1].has_password), (true, false));
    assert_eq!(shares[1].label.as_deref(), Some("für Ömer 🚲"));

    let other = floor.create(OWNER).await;
    assert_eq!(code(floor.revoke_share(&owner, other, second).await), Some(Code::NotFound));
    floor.revoke_share(&owner, id, second).await.expect("revoked");
    assert_eq!(floor.grants(id).await, 3);
    assert_eq!(code(floor.revoke_share(&owner, id, second).await), Some(Code::NotFound));
    assert_eq!(store.share_by_hash(&[8; 32]).await.expect("an answer"), None);
    let third = floor.share(&owner, id, 8).await.expect("a share");
    assert!(third.0 > second.0, "an id is never another's");
    store.clone().close().await;
    database.drop().await;
}

async fn a_removed_location_takes_all_along(db: Db) {
    let database = TestDatabase::create(db).await;
    let floor = Floor::on(&database.url).await;
    let Floor { store, writer, .. } = &floor;
    let (id, other) = (floor.shared().await, floor.shared().await);
    floor.share(&user(OWNER), id, 1).await.expect("a share");
    floor.share(&user(OWNER), other, 2).await.expect("a share");
    // Among other acts of the same batch, some of them refused.
    let refused = |result: Result<_>| code::<u64>(result);
    let (deleted, ..) = tokio::join!(
        writer.delete(user(OWNER), None, id),
        async { refused(floor.mv(&user(STRANGER), other).await) },
        async { floor.mv(&user(EDITOR), other).await.expect("moved") },
    );
    deleted.expect("removed");
    assert_eq!(store.access(id).await.expect("an answer"), None);
    assert_eq!(store.members(id).await.expect("members"), []);
    assert_eq!(store.shares(id).await.expect("shares"), []);
    assert_eq!(store.share_by_hash(&[1; 32]).await.expect("an answer"), None);
    let (listed, total) = store.locations(&user(VIEWER), FIRST).await.expect("a list");
    assert_eq!((floor.read(listed).await, total), (vec![other], 1));
    let left = floor.access(other).await;
    assert_eq!((left.members.len(), left.shares.len(), left.grants), (2, 1, 3));
    store.clone().close().await;
    database.drop().await;
}

async fn lists_show_what_is_ones_own_or_shared_with_one(db: Db) {
    let database = TestDatabase::create(db).await;
    let floor = Floor::on(&database.url).await;
    let Floor { store, .. } = &floor;
    let mut by_owner: HashMap<u64, Vec<LocationId>> = HashMap::new();
    for n in 0..12 {
        by_owner.entry(OWNER + n % 3).or_default().push(floor.create(OWNER + n % 3).await);
    }
    let theirs = &by_owner[&(OWNER + 1)];
    floor.set_member(&admin(), theirs[1], uid(OWNER), Role::Viewer).await.expect("a member");
    floor.set_member(&admin(), theirs[3], uid(OWNER), Role::Editor).await.expect("a member");
    let mut own: Vec<_> = by_owner[&OWNER].iter().chain([&theirs[1], &theirs[3]]).copied().collect();
    own.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(floor.listed(&user(OWNER)).await, (own.clone(), 6));
    assert_eq!(floor.listed(&user(OWNER + 1)).await.1, 4);
    assert_eq!(floor.listed(&user(STRANGER)).await, (vec![], 0));
    assert_eq!(floor.listed(&guest(own[0])).await, (vec![], 0));
    for by in [admin(), Caller::Anyone(uid(STRANGER))] {
        assert_eq!(floor.listed(&by).await.1, 12);
    }
    for offset in 0..7 {
        let (page, total) = store.locations(&user(OWNER), Page { offset, limit: 2 }).await.expect("a list");
        assert_eq!(
            floor.read(page).await,
            own.iter().skip(offset as usize).take(2).copied().collect::<Vec<_>>()
        );
        assert_eq!(total, 6);
    }
    floor.remove_member(&user(OWNER), theirs[1], uid(OWNER)).await.expect("one may leave");
    assert_eq!(floor.listed(&user(OWNER)).await.1, 5);
    store.clone().close().await;
    database.drop().await;
}

/// Two processes on one database: one has the writer, both change members.
async fn whoever_is_removed_has_moved_it_for_the_last_time(db: Db) {
    const TIMES: u64 = 20;
    let database = TestDatabase::create(db).await;
    let (floor, second) = tokio::join!(Floor::on(&database.url), async {
        sleep(Duration::from_millis(500)).await;
        Floor::on(&database.url).await
    });
    let id = floor.create(OWNER).await;
    let toggled = async |floor: &Floor, other: &Floor, member: u64| {
        for _ in 0..TIMES {
            floor.set_member(&user(OWNER), id, uid(member), Role::Editor).await.expect("a member");
            other.mv(&user(member), id).await.expect("an editor moves it");
            floor.remove_member(&user(OWNER), id, uid(member)).await.expect("removed");
            assert_eq!(code(other.mv(&user(member), id).await), Some(Code::NotFound));
        }
    };
    let others = async || {
        for _ in 0..3 * TIMES {
            floor.mv(&user(OWNER), id).await.expect("moved");
        }
    };
    tokio::join!(
        toggled(&floor, &second, 20),
        toggled(&second, &floor, 21),
        toggled(&second, &second, 22),
        others()
    );
    let head = floor.store.versions(&[id]).await.expect("an answer")[0];
    assert_eq!((head.version, head.grants), (1 + 6 * TIMES, 6 * TIMES));
    floor.store.close().await;
    second.store.close().await;
    database.drop().await;
}

async fn a_caller_who_goes_away_leaves_nothing_half_done(db: Db) {
    let database = TestDatabase::create(db).await;
    let floor = Floor::on(&database.url).await;
    let (id, owner) = (floor.create(OWNER).await, user(OWNER));
    let leave = async || {
        let mut random = Random(3);
        for member in 100..250 {
            let patience = Duration::from_micros(random.below(3_000) as u64);
            let _ = timeout(patience, floor.set_member(&owner, id, uid(member), Role::Viewer)).await;
        }
    };
    let others = async || {
        for _ in 0..50 {
            floor.mv(&owner, id).await.expect("moved");
        }
    };
    tokio::join!(leave(), others());
    // Behind whatever still goes on.
    floor.set_member(&owner, id, uid(1), Role::Viewer).await.expect("a member");
    let access = floor.access(id).await;
    assert_eq!(access.grants as usize, access.members.len());
    assert_eq!(floor.mv(&owner, id).await.expect("moved"), 52);
    floor.store.close().await;
    database.drop().await;
}

/// Who has no account has the id of somebody who may have one.
async fn a_guest_is_nobody_s_member(db: Db) {
    let database = TestDatabase::create(db).await;
    let floor = Floor::on(&database.url).await;
    let id = floor.create(OWNER).await;
    let default = UserId::DEFAULT;
    floor.set_member(&user(OWNER), id, default, Role::Editor).await.expect("a member");
    let Caller::Guest(guest) = guest(id) else { unreachable!() };
    let ended = Caller::Guest(Guest { expires_at: in_ms(-1), ..guest });
    let member = user(default.get());
    let moves = join_all((0..8).map(|n| floor.mv(if n % 2 == 0 { &ended } else { &member }, id))).await;
    for (n, moved) in moves.into_iter().enumerate() {
        assert_eq!(code(moved), (n % 2 == 0).then_some(Code::NotFound));
    }
    let removed = floor.remove_member(&ended, id, default).await;
    assert_eq!(code(removed), Some(Code::NotFound));
    floor.store.close().await;
    database.drop().await;
}

/// The tables are there, and what says so is not.
async fn steps_broken_off_before_they_were_noted_are_run_again(db: Db) {
    let database = TestDatabase::create(db).await;
    let floor = Floor::on(&database.url).await;
    let id = floor.shared().await;
    let before = floor.access(id).await;
    floor.store.close().await;
    let raw = database.open().await;
    let forget = "DELETE FROM seaql_migrations";
    assert!(raw.execute_unprepared(forget).await.expect("forgotten").rows_affected() > 0);
    raw.close().await.expect("close");
    let floor = Floor::on(&database.url).await;
    assert_eq!(floor.access(id).await, before);
    floor.store.close().await;
    database.drop().await;
}

/// Whether MySQL has committed or was never asked: the change is made once.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_commit_is_lost_is_made_once() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let floor = Floor::on(&proxy.url).await;
    let Floor { store, .. } = &floor;
    let owner = user(OWNER);
    for (round, loss) in [Loss::Answer, Loss::Request, Loss::Answer].into_iter().enumerate() {
        let id = floor.create(OWNER).await;
        let lose = || proxy.lose_next(Some(loss));
        let mut pushed = Vec::new();
        floor.published().await;
        lose();
        floor.set_member(&owner, id, uid(VIEWER), Role::Viewer).await.expect("a member");
        let (changes, notified) = floor.published().await;
        assert_eq!(changes, [1]);
        pushed.push(notified);
        lose();
        floor.set_member(&owner, id, uid(VIEWER), Role::Editor).await.expect("more");
        let (changes, notified) = floor.published().await;
        assert_eq!(changes, [2]);
        pushed.push(notified);
        // What people are told of is stored once, and known to whoever tells them.
        let kept = store.notifications(uid(VIEWER), true, FIRST).await.expect("notifications");
        let kept: Vec<_> = kept.page.iter().rev().map(|kept| kept.id as u64).skip(2 * round).collect();
        assert_eq!(pushed, [[(uid(VIEWER), kept[0])], [(uid(VIEWER), kept[1])]]);
        lose();
        floor.remove_member(&user(VIEWER), id, uid(VIEWER)).await.expect("left");
        assert_eq!(floor.published().await.0, [3]);
        lose();
        let share = floor.share(&owner, id, round as u8).await.expect("a share");
        assert_eq!((floor.published().await.0, store.shares(id).await.expect("shares").len()), (vec![4], 1));
        lose();
        floor.name_users(&[(VIEWER, "Zoë")]).await;
        lose();
        floor.count_use(share, 1, Timestamp::now()).await;
        assert_eq!(store.shares(id).await.expect("shares")[0].uses, 1);
        lose();
        floor.revoke_share(&owner, id, share).await.expect("revoked");
        assert_eq!(floor.published().await.0, [5]);
        let access = floor.access(id).await;
        assert_eq!((access.members.len(), access.shares.len(), access.grants), (0, 0, 5));
        // Refusals are not mistaken for something done.
        assert_eq!(code(floor.remove_member(&owner, id, uid(VIEWER)).await), Some(Code::NotFound));
        // Nor is a removal of all of it.
        floor.set_member(&owner, id, uid(EDITOR), Role::Editor).await.expect("a member");
        lose();
        floor.mv(&user(EDITOR), id).await.expect("moved");
        lose();
        floor.writer.delete(owner.clone(), None, id).await.expect("removed");
        assert_eq!(store.members(id).await.expect("members"), []);
        for (of, times) in [(OWNER, 1), (VIEWER, 2), (EDITOR, 2)] {
            let kept = store.notifications(uid(of), true, FIRST).await.expect("notifications");
            assert_eq!((kept.page.len(), kept.unread), (times * (round + 1), (times * (round + 1)) as u64));
        }
    }
    assert_eq!(*proxy.losses().borrow(), 3 * 9);
    store.clone().close().await;
    proxy.cut().await;
    database.drop().await;
}

/// Owners, admins and open mode pay nothing for rights; members one statement a batch.
#[tokio::test(flavor = "multi_thread")]
async fn rights_that_follow_from_the_row_cost_no_statement() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let floor = Floor::with(opened(&proxy.url).await, opened(&database.url).await);
    let id = floor.shared().await;
    let mut costs = Vec::new();
    for by in [Caller::Anyone(uid(STRANGER)), user(OWNER), admin(), user(EDITOR)] {
        // The first time statements are prepared.
        for _ in 0..2 {
            floor.mv(&by, id).await.expect("moved");
        }
        let before = proxy.counts().0;
        floor.mv(&by, id).await.expect("moved");
        costs.push(proxy.counts().0 - before);
    }
    assert_eq!(costs, [costs[0], costs[0], costs[0], costs[0] + 1]);

    // Who is told of what is asked only where something else than a move concerns others.
    let alone = floor.create(OWNER).await;
    let (move_named, named) = (
        r#"{"geometry":{"type":"Point","coordinates":[3,4]},"properties":{"name":"bike"}}"#,
        r#"{"properties":{"name":"bike"}}"#,
    );
    for (id, body, more) in [
        // The name is new: there are no members who would be told.
        (alone, move_named, 1),
        (alone, move_named, 0),
        // A change of the list, which members have too.
        (alone, named, 1),
        // Members, names of people, a notice, those who are told.
        (id, move_named, 4),
        (id, move_named, 0),
    ] {
        let update = Update::from_body(body.as_bytes(), Some(id), Some(&user(OWNER))).expect("an update");
        let before = proxy.counts().0;
        floor.writer.update(update, None, Instant::now()).await.expect("changed");
        let cost = proxy.counts().0 - before;
        // Statements that are new have to be prepared.
        let preparing = if more == 0 { 0 } else { more };
        assert!(
            (costs[0] + more..=costs[0] + more + preparing).contains(&cost),
            "{id} {body}: {cost} {costs:?}"
        );
    }
    floor.store.close().await;
    proxy.cut().await;
    database.drop().await;
}
