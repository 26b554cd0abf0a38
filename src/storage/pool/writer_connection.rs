//! The connection that writes, and how one that was given up is ended at MySQL.
//!
//! The other end of a broken connection may not have noticed, and hold the locks of a transaction for hours. So its
//! successor finds it by its mark ([`super::options`]) and kills it.

use std::sync::Arc;

use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction, Statement};

use super::{
    options::{WriterSession, lock_name, options},
    replaceable::Pool,
};
use crate::storage::error::{DbResult, is_broken};

/// A connection that writes.
#[derive(Clone, Debug)]
pub struct WriterConnection {
    /// A pool of one connection.
    pub pool: Arc<Pool>,
    pub session: Arc<WriterSession>,
    /// Marks of connections that may have left a transaction open. Written when one is given up, emptied by the next.
    abandoned: Arc<Mutex<Vec<u64>>>,
}

impl WriterConnection {
    /// Prepares a connection; `mysql_session` is run when it is made.
    pub async fn new(url: &str, mysql_session: &'static str) -> DbResult<Self> {
        let session = Arc::<WriterSession>::default();
        let recorded = Some(session.clone());
        let pool = Pool::new(|check| options(url, 1, mysql_session, recorded, check)).await?;
        Ok(Self { pool, session, abandoned: Arc::default() })
    }

    /// Prepares another one to the same database. Each ends what either has abandoned: it may hold what the other waits
    /// for.
    pub async fn another(&self, url: &str, mysql_session: &'static str) -> DbResult<Self> {
        Ok(Self { abandoned: self.abandoned.clone(), ..Self::new(url, mysql_session).await? })
    }

    /// Notes that the present connection was given up.
    pub fn abandon(&self) {
        let mark = self.session.mark();
        let mut abandoned = self.abandoned.lock();
        if mark != 0 && !abandoned.contains(&mark) {
            abandoned.push(mark);
        }
    }

    /// Ends the connections that were given up, over the present one.
    ///
    /// # Errors
    /// The present connection broke; the next one tries again.
    pub async fn end_abandoned(&self, tx: &DatabaseTransaction) -> DbResult<()> {
        let abandoned = std::mem::take(&mut *self.abandoned.lock());
        for mark in &abandoned {
            // Any other error says that the connection is gone already.
            if *mark != self.session.mark()
                && let Err(error) = end_connection(tx, *mark).await
                && is_broken(&error)
            {
                self.abandoned.lock().extend(abandoned);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Ends the connection with this mark if there still is one.
async fn end_connection(tx: &DatabaseTransaction, mark: u64) -> DbResult<()> {
    let ask = format!("SELECT CAST(IS_USED_LOCK('{}') AS SIGNED)", lock_name(mark));
    let row = tx.query_one_raw(Statement::from_string(DatabaseBackend::MySql, ask)).await?;
    if let Some(number) = row.map(|row| row.try_get_by_index::<Option<i64>>(0)).transpose()?.flatten() {
        tx.execute_unprepared(&format!("KILL {number}")).await?;
    }
    Ok(())
}
