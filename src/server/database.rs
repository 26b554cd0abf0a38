//! Connecting to the database and migrating it, at the start and by `georoom migrate`.
//!
//! The start waits a moment for a database that is away, then the server goes on without it and migrates later.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::{
    config::{Config, Database, Invalid, Secret},
    storage::{ConnectError, Store, explain, is_in_use},
};

/// The time that the start waits for the database before the server serves without it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The time that the start waits for the migrations of a database that is there.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before another attempt at a database that is away or in use.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A migration that is not done yet. It ends with the first error that will not come right by itself.
pub type Migration = BoxFuture<'static, Result<(), ConnectError>>;

/// Connects to the database and migrates it. Returns the migration too if it is still under way, because the database
/// is away or its tables are large.
///
/// # Errors
/// `DATABASE_URL`, and why the database cannot be used.
pub async fn prepare(database: &Database) -> Result<(Store, Option<Migration>), Invalid> {
    let store = connect(database).await?;
    let mut migration = migrate_when_there(store.clone(), database.url.clone()).boxed();
    let ended = tokio::select! {
        ended = &mut migration => Some(ended),
        reached = timeout(CONNECT_TIMEOUT, store.wait_until_reachable()) => {
            let wait = if reached.is_ok() { MIGRATE_TIMEOUT } else { Duration::ZERO };
            timeout(wait, &mut migration).await.ok()
        }
    };
    match ended {
        Some(Ok(())) => Ok((store, None)),
        Some(Err(error)) => Err(unusable(&database.url, &error)),
        None => Ok((store, Some(migration))),
    }
}

/// Goes on with a migration while the server serves. Any error is tried again, because somebody may put it right.
pub async fn finish_migration(mut migration: Migration, store: Store, url: Secret) {
    while let Err(error) = migration.await {
        log_unusable(&url, &error);
        sleep(RETRY_INTERVAL).await;
        migration = migrate_when_there(store.clone(), url.clone()).boxed();
    }
}

/// Runs the migrations of the configured database.
///
/// # Errors
/// `DATABASE_URL`, and what the driver says.
pub async fn migrate(config: &Config) -> Result<(), Invalid> {
    let store = connect(&config.database).await?;
    let deadline = Instant::now() + MIGRATE_TIMEOUT;
    while let Err(error) = store.migrate().await {
        if !is_in_use(&error) || Instant::now() > deadline {
            return Err(unusable(&config.database.url, &error));
        }
        sleep(RETRY_INTERVAL).await;
    }
    store.close().await;
    Ok(())
}

async fn connect(database: &Database) -> Result<Store, Invalid> {
    let deadline = Instant::now() + MIGRATE_TIMEOUT;
    loop {
        match Store::connect_with(database.url.expose(), database.connections).await {
            // SQLite sets up the file when it connects, and does not wait for another process that does the same.
            Err(error) if is_in_use(&error) && Instant::now() < deadline => sleep(RETRY_INTERVAL).await,
            done => return done.map_err(|error| unusable(&database.url, &error)),
        }
    }
}

/// Migrates as soon as the database is there.
async fn migrate_when_there(store: Store, url: Secret) -> Result<(), ConnectError> {
    loop {
        match store.migrate().await {
            Ok(()) => {
                info!("the database can be used");
                return Ok(());
            }
            Err(error) if store.is_away(&error) => log_unusable(&url, &error),
            Err(error) => return Err(error),
        }
        sleep(RETRY_INTERVAL).await;
    }
}

fn log_unusable(url: &Secret, error: &ConnectError) {
    let error = explain(url.expose(), error);
    warn!(error, "DATABASE_URL: the database cannot be used yet; trying again");
}

fn unusable(url: &Secret, error: &ConnectError) -> Invalid {
    Invalid::new("DATABASE_URL", explain(url.expose(), error))
}
