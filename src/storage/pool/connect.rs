//! Opening the database: the pools, their settings and why.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{TryFutureExt, future::BoxFuture};
use parking_lot::{Mutex, RwLock};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseBackend, DatabaseConnection, DatabaseTransaction,
    DbErr, IsolationLevel, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
    sqlx::{
        self, AssertSqlSafe, Connection, Executor, MySqlConnection, Row,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::{
    address::sqlite_file,
    connections::{ConnectionCounts, Gate},
    readiness::WriteHealth,
};
use crate::{
    budgets::FanOutBudgets,
    domain::error::{Code, Error, Result},
    storage::{
        error::{
            DbResult, STATEMENT_TIMEOUT, TRIES, domain_error, in_time, is_broken, is_deadlock,
            is_out_of_connections, is_read_only, is_silence, may_come_back, no_answer,
        },
        read::{accounts::Names, totals::Totals},
        sql::Dialect,
    },
};

/// Default of `DATABASE_CONNECTIONS`. SQLite always has so many: it has no server whose connections could run out.
pub const DEFAULT_CONNECTIONS: u32 = 17;
/// How long a list that is searched for may take from its first statement until all it shows is found. MySQL's hint
/// [`SEARCH_HINT`] repeats it.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Goes behind the first SELECT of a search: MySQL stops the statement by itself when nobody waits for it any more.
pub(in crate::storage) const SEARCH_HINT: &str = "/*+ MAX_EXECUTION_TIME(5000) */";
/// How long one may take to be had. Longer than what waits for it may take: whose time runs out while a
/// silent connection is on its way back into the pool has to find out that it is silent. sqlx warns of nothing
/// shorter: on a busy server connections are waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(6);
/// How long SQLite waits for another process; shorter, so that it says what it waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);

/// While it is waited for.
pub(in crate::storage) const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a read waits if MySQL grants no connection: one of this process's own may come free.
const SPARE_TIMEOUT: Duration = Duration::from_secs(2);
/// Assumed `max_allowed_packet` until a connection has read the real one. No version of MySQL has a lower default.
const LEAST_MAX_PACKET: usize = 1024 * 1024;
/// How long a connection may take to show that the next caller can have it.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the database could not be opened or migrated.
pub type ConnectError = DbErr;

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// The connection that writes.
    pub(super) write: Writing,
    /// The connection for what takes longer than small changes of locations, which do not wait for it: see
    /// [`Store::apart`].
    write_apart: Writing,
    /// Snapshots beside the writer: MySQL by MVCC, SQLite by its write-ahead log.
    read: Arc<Pool>,
    /// The same for lists and history.
    lists: Arc<Pool>,
    /// Held by a change of members, shares or accounts, and on SQLite by any but the writer's: they go one by
    /// one, so that at most one is in the way of whoever else has the connection, and none waits for that while its
    /// time runs.
    pub(in crate::storage) turn: Arc<tokio::sync::Mutex<()>>,
    /// Held from before a COMMIT until what it has changed is on its way to the rooms, so that they hear of
    /// commits in their order. Whoever waits for it has a connection that writes.
    pub(in crate::storage) order: Arc<tokio::sync::Mutex<()>>,
    /// Closed while a writer without a connection takes one from the readers.
    pub(in crate::storage) gate: Arc<Gate>,
    /// Whether the last change could be committed, for `/readyz`.
    pub(in crate::storage) writes: Arc<WriteHealth>,
    /// What users are called.
    pub names: Arc<Names>,
    /// Counts of long lists, which are not taken anew for every page.
    pub(in crate::storage) totals: Arc<Totals>,
    /// What it costs to tell people; `None`: nothing.
    pub(in crate::storage) fan_out: Option<Arc<FanOutBudgets>>,
    /// Whether the tables are there. Until then nobody gets a connection.
    pub(super) is_migrated: Arc<AtomicBool>,
}

/// A connection that writes.
#[derive(Clone, Debug)]
pub(super) struct Writing {
    /// Of one connection.
    pub(super) pool: Arc<Pool>,
    /// Facts about that connection, or about the one before it.
    facts: Arc<SessionFacts>,
    /// Marks of connections that may have left a transaction open: written when one is given up, emptied by the
    /// next.
    abandoned: Arc<Mutex<Vec<u64>>>,
}

/// Facts about a connection that writes, recorded when it is made; all 0 without MySQL.
#[derive(Debug, Default)]
struct SessionFacts {
    /// See [`mark_name`].
    mark: AtomicU64,
    /// `max_allowed_packet`, in bytes.
    max_packet: AtomicUsize,
}

impl Writing {
    async fn new(url: &str, session: &'static str) -> std::result::Result<Self, DbErr> {
        let facts = Arc::<SessionFacts>::default();
        let pool = Pool::new(options(url, 1, session, Some(facts.clone()))).await?;
        Ok(Self { pool, facts, abandoned: Arc::default() })
    }

    /// Another of the same database. Each ends what either has abandoned: it may hold what the other waits for.
    async fn beside(&self, url: &str, session: &'static str) -> std::result::Result<Self, DbErr> {
        Ok(Self { abandoned: self.abandoned.clone(), ..Self::new(url, session).await? })
    }
}

impl Store {
    /// Makes ready to connect, which the first use does; creates a SQLite file's folder.
    ///
    /// # Errors
    /// What the driver says of the URL.
    pub async fn connect(url: &str) -> std::result::Result<Self, ConnectError> {
        Self::connect_with(url, DEFAULT_CONNECTIONS).await
    }

    /// The same with at most `connections` (2 or more) to MySQL.
    ///
    /// # Errors
    /// What the driver says of the URL.
    pub async fn connect_with(url: &str, connections: u32) -> std::result::Result<Self, ConnectError> {
        if let Some(file) = url.strip_prefix("sqlite:") {
            let file = sqlite_file(file);
            if file.is_empty() || file.contains(":memory:") || url.contains("mode=memory") {
                return Err(DbErr::Custom(
                    "SQLite needs a file: in memory, readers and writer would not meet".into(),
                ));
            }
            if let Some(folder) = Path::new(file).parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|e| DbErr::Custom(format!("{}: {e}", folder.display())))?;
            }
        }
        // Without gap locks, so that a new location need not wait for those that move; and a row that
        // somebody else has locked holds up the others for a second, not for a minute.
        let writing = "SET SESSION transaction_isolation = 'READ-COMMITTED', \
                       innodb_lock_wait_timeout = 1, lock_wait_timeout = 1";
        // Lists read several statements of one snapshot.
        let reading = "SET SESSION transaction_isolation = 'REPEATABLE-READ', lock_wait_timeout = 1";
        let write = Writing::new(url, writing).await?;
        let is_mysql = write.pool.backend() == DatabaseBackend::MySql;
        let counts = ConnectionCounts::of(if is_mysql { connections } else { DEFAULT_CONNECTIONS });
        // SQLite has one writer at a time anyway, and would meet itself at its lock.
        let write_apart = match is_mysql && counts.writers > 1 {
            true => write.beside(url, writing).await?,
            false => write.clone(),
        };
        let read = Pool::new(options(url, counts.reads, reading, None)).await?;
        let lists = match counts.lists {
            0 => read.clone(),
            lists => Pool::new(options(url, lists, reading, None)).await?,
        };
        Ok(Self {
            write,
            write_apart,
            read,
            lists,
            turn: Arc::default(),
            order: Arc::default(),
            gate: Arc::default(),
            writes: Arc::default(),
            names: Arc::default(),
            totals: Arc::default(),
            fan_out: None,
            is_migrated: Arc::default(),
        })
    }

    /// The same, where it costs something to tell people.
    pub fn with_fan_out(self, budgets: Arc<FanOutBudgets>) -> Self {
        Self { fan_out: Some(budgets), ..self }
    }

    /// The dialect of statements over the connection that writes.
    pub(in crate::storage) fn dialect(&self) -> Dialect {
        let max_packet = match self.write.facts.max_packet.load(Ordering::Acquire) {
            0 => LEAST_MAX_PACKET,
            known => known,
        };
        Dialect::new(self.backend(), max_packet)
    }

    /// The connection that writes.
    pub(in crate::storage) fn writer_connection(&self) -> DatabaseConnection {
        self.write.pool.now()
    }

    /// The pools for reading.
    pub(in crate::storage) fn read_pools(&self) -> [&Pool; 2] {
        [&self.read, &self.lists]
    }

    /// Is there another connection that writes? Not on SQLite, nor where few connections are allowed.
    pub(in crate::storage) fn writes_apart(&self) -> bool {
        !Arc::ptr_eq(&self.write.pool, &self.write_apart.pool)
    }

    /// The same database, written over the other connection that writes, if there is one.
    pub(in crate::storage) fn apart(&self) -> Self {
        Self { write: self.write_apart.clone(), ..self.clone() }
    }

    /// May this come right by itself? A server may not be up yet; a file will not appear.
    pub fn is_away(&self, error: &ConnectError) -> bool {
        super::migrate::is_in_use(error) || self.backend() == DatabaseBackend::MySql && may_come_back(error)
    }

    /// Waits until the database says anything at all.
    pub async fn answers(&self) {
        while self.read.now().ping().await.is_err_and(|error| self.is_away(&error)) {
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Is the database there?
    ///
    /// # Errors
    /// `storage_unavailable`.
    pub async fn ping(&self) -> Result<()> {
        self.answered(async || self.reader()?.ping().await).await
    }

    /// Are the tables there?
    pub fn is_ready(&self) -> bool {
        self.is_migrated.load(Ordering::Acquire)
    }

    /// The connections for reading, once the database was there.
    pub(in crate::storage) fn reader(&self) -> DbResult<DatabaseConnection> {
        self.is_ready().then(|| self.read.now()).ok_or_else(no_answer)
    }

    /// The connections for reading lists and history, once the database was there.
    pub(in crate::storage) fn lister(&self) -> DbResult<DatabaseConnection> {
        self.is_ready().then(|| self.lists.now()).ok_or_else(no_answer)
    }

    /// What a read says, in time.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub(in crate::storage) fn answered<T, F>(&self, read: impl Fn() -> F) -> impl Future<Output = Result<T>>
    where
        F: Future<Output = DbResult<T>>,
    {
        self.asked(read).map_err(domain_error)
    }

    /// The same in the database's own words.
    pub(in crate::storage) fn asked<T, F>(&self, read: impl Fn() -> F) -> impl Future<Output = DbResult<T>>
    where
        F: Future<Output = DbResult<T>>,
    {
        self.read_with(Box::pin(in_time(self.tried(read))))
    }

    /// What a read on [`Store::lister`] says, in time.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub(in crate::storage) async fn listed<T, F>(&self, read: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = DbResult<T>>,
    {
        self.lists.read_with(Box::pin(in_time(self.tried(read)))).await.map_err(domain_error)
    }

    /// What a search on [`Store::lister`] finds. It computes besides waiting for the database, and is stopped
    /// with its statement when both together take too long.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub(in crate::storage) async fn searched<T, F>(&self, search: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = DbResult<T>>,
    {
        let found = timeout(SEARCH_TIMEOUT, self.lists.read_with(Box::pin(self.tried(search))));
        found.await.map_or_else(|_| Err(too_long()), |found| found.map_err(domain_error))
    }

    /// What a read says. Reads come boxed: every request that might read would else carry their kilobytes in its
    /// future.
    async fn read_with<T>(&self, read: impl Future<Output = DbResult<T>>) -> DbResult<T> {
        self.read.read_with(read).await
    }

    /// The result of a read. A connection that broke while idle fails at its next use, so a read is tried again over
    /// others; if MySQL grants no connection, it waits for one.
    async fn tried<T, F>(&self, read: impl Fn() -> F) -> DbResult<T>
    where
        F: Future<Output = DbResult<T>>,
    {
        let (mut tries, until) = (1, Instant::now() + SPARE_TIMEOUT);
        loop {
            self.gate.wait_until_open().await;
            match read().await {
                Err(error) if is_broken(&error) && tries < TRIES => tries += 1,
                Err(error) if is_out_of_connections(&error) && Instant::now() < until => {
                    sleep(LOOK_AGAIN).await
                }
                done => return done,
            }
        }
    }

    /// A transaction that may write. Ends first what earlier connections may have left open.
    pub(in crate::storage) async fn begin(&self) -> DbResult<DatabaseTransaction> {
        if !self.is_ready() {
            return Err(no_answer());
        }
        let Writing { facts, abandoned: given_up, .. } = &self.write;
        let tx = match self.writer_connection().begin_with_options(immediate()).await {
            Err(error) if is_out_of_connections(&error) => {
                Box::pin(self.begin_in_place_of_a_reader(error)).await?
            }
            begun => begun?,
        };
        let abandoned = std::mem::take(&mut *given_up.lock());
        for mark in &abandoned {
            // An error says that it is gone already, or that this one is going too: then the next sees to it.
            if *mark != facts.mark.load(Ordering::Acquire)
                && let Err(error) = end_connection(&tx, *mark).await
                && is_broken(&error)
            {
                given_up.lock().extend(abandoned);
                return Err(error);
            }
        }
        Ok(tx)
    }

    /// Gives up the connection that writes: its other end may not have noticed, and hold locks for hours.
    pub(in crate::storage) fn abandon(&self) {
        let mark = self.write.facts.mark.load(Ordering::Acquire);
        let mut abandoned = self.write.abandoned.lock();
        if mark != 0 && !abandoned.contains(&mark) {
            abandoned.push(mark);
        }
    }

    /// What the connection that writes says, in time. One that breaks, is silent or read-only is given up.
    pub(in crate::storage) async fn written<T>(
        &self,
        write: impl Future<Output = DbResult<T>>,
    ) -> DbResult<T> {
        let pool = &self.write.pool;
        let age = pool.age();
        match timeout(STATEMENT_TIMEOUT, pool.changed(write)).await {
            Ok(written) => written.inspect_err(|error| {
                if is_broken(error) {
                    self.abandon();
                }
            }),
            Err(_) => {
                self.abandon();
                pool.renew(age).await;
                Err(no_answer())
            }
        }
    }

    /// Commits a change that may be made twice and that the writer need not wait for, in time.
    pub(in crate::storage) async fn beside_the_writer<T>(
        &self,
        change: impl for<'a> Fn(&'a DatabaseTransaction) -> BoxFuture<'a, DbResult<T>> + Sync,
    ) -> DbResult<T> {
        let made = async {
            // There it has the writer's connection.
            let _turn = match self.backend() {
                DatabaseBackend::MySql => None,
                _ => Some(self.turn.lock().await),
            };
            let mut tries = 1;
            let once = async || {
                self.tried(async || {
                    let tx = self.begin_beside_the_writer().await?;
                    let done = change(&tx).await?;
                    tx.commit().await?;
                    Ok::<_, DbErr>(done)
                })
                .await
            };
            loop {
                match once().await {
                    Err(error) if is_deadlock(&error) && tries < TRIES => tries += 1,
                    done => return done,
                }
            }
        };
        self.read_with(Box::pin(self.read.changed(in_time(made)))).await
    }

    async fn begin_beside_the_writer(&self) -> DbResult<DatabaseTransaction> {
        match self.backend() {
            // Else deleting would lock gaps that other locations' next versions go into.
            DatabaseBackend::MySql => {
                self.reader()?.begin_with_config(Some(IsolationLevel::ReadCommitted), None).await
            }
            _ => self.begin().await,
        }
    }

    pub(in crate::storage) fn backend(&self) -> DatabaseBackend {
        self.read.backend()
    }

    /// Closes every connection; SQLite folds its log back into the file.
    pub async fn close(self) {
        for pool in [self.lists, self.read, self.write_apart.pool, self.write.pool] {
            if let Err(e) = pool.now().close().await {
                tracing::warn!(error = %Error::internal(e), "database pool did not close");
            }
        }
    }
}

/// IMMEDIATE: SQLite's busy timeout does not help a read that turns into a write.
pub(in crate::storage) fn immediate() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..Default::default()
    }
}

/// The name of the MySQL lock that a writing connection holds as long as it lives. By that an abandoned
/// connection is recognised: MySQL's own number may be somebody else's after MySQL was started again.
fn mark_name(mark: u64) -> String {
    format!("georoom.writer.{mark:016x}")
}

/// Ends the connection that has this mark, if there still is one.
async fn end_connection(tx: &DatabaseTransaction, mark: u64) -> DbResult<()> {
    let ask = format!("SELECT CAST(IS_USED_LOCK('{}') AS SIGNED)", mark_name(mark));
    let row = tx.query_one_raw(Statement::from_string(DatabaseBackend::MySql, ask)).await?;
    if let Some(number) = row.map(|row| row.try_get_by_index::<Option<i64>>(0)).transpose()?.flatten() {
        tx.execute_unprepared(&format!("KILL {number}")).await?;
    }
    Ok(())
}

fn too_long() -> Error {
    let detail =
        "the list takes too long to find; ask for a smaller area, or for a page nearer to the beginning";
    Error::new(Code::StorageUnavailable, detail).after(SEARCH_TIMEOUT)
}

/// A pool that can be replaced.
#[derive(Debug)]
pub(in crate::storage) struct Pool {
    options: ConnectOptions,
    /// How often it was replaced, and what by. Written when its connections have fallen silent, which TCP
    /// alone would wait out for minutes, or have become read-only, which they would stay.
    now: RwLock<(u64, DatabaseConnection)>,
}

impl Pool {
    async fn new(options: ConnectOptions) -> std::result::Result<Arc<Self>, DbErr> {
        let now = RwLock::new((0, Database::connect(options.clone()).await?));
        Ok(Arc::new(Self { options, now }))
    }

    pub(super) fn now(&self) -> DatabaseConnection {
        self.now.read().1.clone()
    }

    fn age(&self) -> u64 {
        self.now.read().0
    }

    fn backend(&self) -> DatabaseBackend {
        self.now.read().1.get_database_backend()
    }

    /// What its connections say to a read; those that have fallen silent are replaced.
    async fn read_with<T>(&self, read: impl Future<Output = DbResult<T>>) -> DbResult<T> {
        let age = self.age();
        let answer = read.await;
        if answer.as_ref().is_err_and(is_silence) {
            self.renew(age).await;
        }
        answer
    }

    /// What its connections say to a change.
    pub(super) async fn changed<T>(&self, change: impl Future<Output = DbResult<T>>) -> DbResult<T> {
        let age = self.age();
        let changed = change.await;
        if changed.as_ref().is_err_and(is_read_only) {
            self.renew(age).await;
        }
        changed
    }

    /// Closes one idle connection to MySQL. `false`: there is none.
    pub(in crate::storage) async fn close_idle_connection(&self) -> bool {
        let idle = self.now().get_mysql_connection_pool().try_acquire();
        match idle {
            Some(idle) => timeout(CHECK_TIMEOUT, idle.close()).await.is_ok(),
            None => false,
        }
    }

    /// Replaces the pool of that age, unless somebody has done so already.
    async fn renew(&self, age: u64) {
        let is_due = self.age() == age && self.backend() == DatabaseBackend::MySql;
        // It does not connect yet.
        if is_due && let Ok(new) = Box::pin(Database::connect(self.options.clone())).await {
            let mut now = self.now.write();
            if now.0 == age {
                *now = (age + 1, new);
            }
        }
    }
}

/// The options of a pool. `facts` is given for a connection that writes, and recorded when that is made.
fn options(
    url: &str,
    connections: u32,
    mysql_session: &'static str,
    facts: Option<Arc<SessionFacts>>,
) -> ConnectOptions {
    let is_writer = facts.is_some();
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_timeout(ACQUIRE_TIMEOUT)
        // The database may not be there yet.
        .connect_lazy(true)
        // A ping before every use would be a round trip more for each write.
        .test_before_acquire_if_idle_for(Duration::from_secs(10))
        .sqlx_logging(false)
        // More than there are texts (a page of ids has a hundred): a full cache costs each statement a
        // close and a delayed acknowledgement, 40 ms.
        .map_sqlx_mysql_opts(|mysql| mysql.statement_cache_capacity(256))
        .map_sqlx_mysql_pool_opts(move |pool| {
            let facts = facts.clone();
            let pool = pool.acquire_slow_threshold(ACQUIRE_TIMEOUT);
            pool.after_connect(move |connection, _| {
                let facts = facts.clone();
                Box::pin(async move {
                    spawn_blocking(disable_delay).await.map_err(|error| sqlx::Error::Io(error.into()))?;
                    connection.execute(mysql_session).await?;
                    if let Some(facts) = facts {
                        let mark = rand::random_range(1..=u64::MAX);
                        let take = format!("SELECT GET_LOCK('{}', 0), @@max_allowed_packet", mark_name(mark));
                        let taken = connection.fetch_one(AssertSqlSafe(take)).await?;
                        facts.mark.store(mark, Ordering::Release);
                        let max_packet = taken.try_get_unchecked::<u64, _>(1)?;
                        facts.max_packet.store(max_packet as usize, Ordering::Release);
                    }
                    Ok(())
                })
            })
            .after_release(move |connection, _| {
                Box::pin(async move {
                    // The writer gives up a connection whole, and would pay for the question at every commit.
                    if is_writer {
                        return Ok(true);
                    }
                    let checked = timeout(CHECK_TIMEOUT, is_in_step(connection)).await;
                    checked.unwrap_or(Err(sqlx::Error::PoolTimedOut))
                })
            })
        })
        .map_sqlx_sqlite_pool_opts(|pool| {
            pool.acquire_slow_threshold(ACQUIRE_TIMEOUT).after_release(|connection, _| {
                Box::pin(async move {
                    // On a full disk, for one, SQLite ends a transaction by itself. sqlx goes on counting it,
                    // and would make each later one a part of it, committed by nobody.
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
        })
        .map_sqlx_sqlite_opts(|sqlite| {
            sqlite
                .journal_mode(SqliteJournalMode::Wal)
                // FULL: what was acknowledged survives power loss too.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT)
                // Rows that wait to be looked at, which may have a megabyte each: sqlx would keep 50.
                .row_buffer_size(4)
        });
    options
}

/// Has what is left of a long statement sent at once: sqlx leaves it to wait for an acknowledgement, 40 ms.
fn disable_delay() {
    if let Err(error) = nodelay::set_everywhere() {
        tracing::warn!(%error, "long statements will be slow: TCP_NODELAY cannot be set");
    }
}

/// Is the next answer on this connection the one to the next question? A caller who was not waited for (it has
/// gone away, or its time was up) may have left one unread: sqlx forgets those to PREPARE, and would give them
/// to whoever comes next, for rows or for a COMMIT.
async fn is_in_step(connection: &mut MySqlConnection) -> std::result::Result<bool, sqlx::Error> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let question = NEXT.fetch_add(1, Ordering::Relaxed);
    let answer = connection.fetch_one(AssertSqlSafe(format!("SELECT {question}"))).await?;
    Ok(answer.try_get_unchecked::<u64, _>(0)? == question)
}
