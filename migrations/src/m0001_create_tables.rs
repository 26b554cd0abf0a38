//! Creates all tables. Times are milliseconds since 1970, UTC.
//!
//! The two databases need different types and keys, so each table is written once for each. On MySQL `CREATE TABLE`
//! commits by itself: indexes stand inside it, so that a table is never there without them. Text has a character set
//! of its own, because the database's may be any.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let is_mysql = manager.get_database_backend() == DatabaseBackend::MySql;
        for table in TABLES {
            let sql = if is_mysql { table.mysql } else { table.sqlite };
            manager.get_connection().execute_unprepared(sql).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            let sql = format!("DROP TABLE IF EXISTS {}", table.name);
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}

/// A table, and the statements that create it and its indexes.
struct NewTable {
    name: &'static str,
    mysql: &'static str,
    sqlite: &'static str,
}

const TABLES: [&NewTable; 9] =
    [&LOCATION, &LOCATION_AREA, &HISTORY, &MEMBER, &SHARE, &ACCOUNT, &NOTICE, &NOTIFICATION, &WRITER];

/// The newest version of each location: one row, rewritten by every move.
///
/// `geometry` has no spatial index: keeping one costs more than everything else in an update. `location_area` has it.
/// GEOMETRY is two-dimensional, so `altitudes` holds the third coordinates. `area` is a copy of the box in
/// `location_area` (west, east, south, north as little-endian doubles), so that one locked row says whether the
/// location has left it. `grants` counts the changes of members and shares. The columns of the two indexes never change
/// after the insert, so a move does not pay for them.
const LOCATION: NewTable = NewTable {
    name: "location",
    mysql: "CREATE TABLE IF NOT EXISTS location (\
              id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,\
              owner_id BIGINT NOT NULL,\
              version BIGINT NOT NULL,\
              grants BIGINT NOT NULL DEFAULT 0,\
              geometry GEOMETRY NOT NULL SRID 4326,\
              altitudes MEDIUMBLOB NULL,\
              properties MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL,\
              area VARBINARY(32) NULL,\
              updated_by BIGINT NOT NULL,\
              created_at BIGINT NOT NULL,\
              updated_at BIGINT NOT NULL,\
              INDEX location_created_at (created_at, id),\
              INDEX location_owner (owner_id, created_at, id))",
    sqlite: "CREATE TABLE IF NOT EXISTS location (\
               id INTEGER PRIMARY KEY AUTOINCREMENT,\
               owner_id INTEGER NOT NULL,\
               version INTEGER NOT NULL,\
               grants INTEGER NOT NULL DEFAULT 0,\
               geometry BLOB NOT NULL,\
               altitudes BLOB NULL,\
               properties TEXT NOT NULL,\
               area BLOB NULL,\
               updated_by INTEGER NOT NULL,\
               created_at INTEGER NOT NULL,\
               updated_at INTEGER NOT NULL);\
             CREATE INDEX IF NOT EXISTS location_created_at ON location (created_at, id);\
             CREATE INDEX IF NOT EXISTS location_owner ON location (owner_id, created_at, id)",
};

/// The spatial index: a box around each location with room to move in, so that most moves leave it alone.
///
/// MySQL has an R-tree over a GEOMETRY column, SQLite the R*Tree module. The box has SRID 0, the plane: with 4326 MySQL
/// bounds boxes by geodesics, which is wrong from 180 degrees of width on.
const LOCATION_AREA: NewTable = NewTable {
    name: "location_area",
    mysql: "CREATE TABLE IF NOT EXISTS location_area (\
              location_id BIGINT NOT NULL PRIMARY KEY,\
              area GEOMETRY NOT NULL SRID 0,\
              SPATIAL INDEX location_area_area (area))",
    sqlite: "CREATE VIRTUAL TABLE IF NOT EXISTS location_area \
             USING rtree(location_id, west, east, south, north)",
};

/// Every committed version of each location, whole.
///
/// MySQL keeps a table in the order of its primary key: the versions of one location lie together, and a recovery reads
/// them as one run. There is no other index and no foreign key, because each would cost every update. SQLite gets a
/// rowid beside a unique key, which is much cheaper for it than a table in the order of the key.
const HISTORY: NewTable = NewTable {
    name: "history",
    mysql: "CREATE TABLE IF NOT EXISTS history (\
              location_id BIGINT NOT NULL,\
              version BIGINT NOT NULL,\
              geometry GEOMETRY NOT NULL SRID 4326,\
              altitudes MEDIUMBLOB NULL,\
              properties MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL,\
              updated_by BIGINT NOT NULL,\
              updated_at BIGINT NOT NULL,\
              PRIMARY KEY (location_id, version))",
    sqlite: "CREATE TABLE IF NOT EXISTS history (\
               id INTEGER PRIMARY KEY,\
               location_id INTEGER NOT NULL,\
               version INTEGER NOT NULL,\
               geometry BLOB NOT NULL,\
               altitudes BLOB NULL,\
               properties TEXT NOT NULL,\
               updated_by INTEGER NOT NULL,\
               updated_at INTEGER NOT NULL,\
               UNIQUE (location_id, version))",
};

/// Users besides the owner who may see a location (role 1) or move it, too (role 2). The key finds the members of a location,
/// the index the locations of a member.
const MEMBER: NewTable = NewTable {
    name: "member",
    mysql: "CREATE TABLE IF NOT EXISTS member (\
              location_id BIGINT NOT NULL,\
              user_id BIGINT NOT NULL,\
              role SMALLINT NOT NULL,\
              added_at BIGINT NOT NULL,\
              PRIMARY KEY (location_id, user_id),\
              INDEX member_user_id (user_id, location_id))",
    sqlite: "CREATE TABLE IF NOT EXISTS member (\
               location_id INTEGER NOT NULL,\
               user_id INTEGER NOT NULL,\
               role INTEGER NOT NULL,\
               added_at INTEGER NOT NULL,\
               PRIMARY KEY (location_id, user_id)) WITHOUT ROWID;\
             CREATE INDEX IF NOT EXISTS member_user_id ON member (user_id, location_id)",
};

/// Links that show one location to everybody who has them. Only a SHA-256 of a link's secret is kept.
///
/// AUTO_INCREMENT and AUTOINCREMENT never give an id twice, so the id of a revoked share never becomes another's.
const SHARE: NewTable = NewTable {
    name: "share",
    mysql: "CREATE TABLE IF NOT EXISTS share (\
              id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,\
              location_id BIGINT NOT NULL,\
              token_hash BINARY(32) NOT NULL,\
              label TEXT CHARACTER SET utf8mb4 NULL,\
              password_hash TEXT CHARACTER SET utf8mb4 NULL,\
              from_version BIGINT NOT NULL,\
              created_at BIGINT NOT NULL,\
              expires_at BIGINT NOT NULL,\
              uses BIGINT NOT NULL DEFAULT 0,\
              last_used_at BIGINT NULL,\
              UNIQUE INDEX share_token_hash (token_hash),\
              INDEX share_location_id (location_id, expires_at))",
    sqlite: "CREATE TABLE IF NOT EXISTS share (\
               id INTEGER PRIMARY KEY AUTOINCREMENT,\
               location_id INTEGER NOT NULL,\
               token_hash BLOB NOT NULL UNIQUE,\
               label TEXT NULL,\
               password_hash TEXT NULL,\
               from_version INTEGER NOT NULL,\
               created_at INTEGER NOT NULL,\
               expires_at INTEGER NOT NULL,\
               uses INTEGER NOT NULL DEFAULT 0,\
               last_used_at INTEGER NULL);\
             CREATE INDEX IF NOT EXISTS share_location_id ON share (location_id, expires_at)",
};

/// The names that users' tokens had last.
const ACCOUNT: NewTable = NewTable {
    name: "account",
    mysql: "CREATE TABLE IF NOT EXISTS account (\
              id BIGINT NOT NULL PRIMARY KEY,\
              name VARCHAR(255) CHARACTER SET utf8mb4 NULL,\
              updated_at BIGINT NOT NULL)",
    sqlite: "CREATE TABLE IF NOT EXISTS account (\
               id INTEGER PRIMARY KEY,\
               name TEXT NULL,\
               updated_at INTEGER NOT NULL)",
};

/// The texts of notifications, each stored once for all its recipients. They outlive the location they speak of.
///
/// `actor_id` is the user who did it, null for admins: of one user's activities only so much is kept for another.
const NOTICE: NewTable = NewTable {
    name: "notice",
    mysql: "CREATE TABLE IF NOT EXISTS notice (\
              id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,\
              kind VARCHAR(32) CHARACTER SET ascii NOT NULL,\
              actor_id BIGINT NULL,\
              location_id BIGINT NULL,\
              message TEXT CHARACTER SET utf8mb4 NOT NULL,\
              fields TEXT CHARACTER SET utf8mb4 NOT NULL,\
              created_at BIGINT NOT NULL,\
              INDEX notice_created_at (created_at))",
    sqlite: "CREATE TABLE IF NOT EXISTS notice (\
               id INTEGER PRIMARY KEY AUTOINCREMENT,\
               kind TEXT NOT NULL,\
               actor_id INTEGER NULL,\
               location_id INTEGER NULL,\
               message TEXT NOT NULL,\
               fields TEXT NOT NULL,\
               created_at INTEGER NOT NULL);\
             CREATE INDEX IF NOT EXISTS notice_created_at ON notice (created_at)",
};

/// The recipients of notices, and when they have read them. Rows are narrow, because a notice may have thousands.
///
/// An id is its notice's id times 16,384 plus the recipient's number: it is known before it is written, and no column
/// is needed for the notice. The key keeps the notifications of a user together, oldest first.
const NOTIFICATION: NewTable = NewTable {
    name: "notification",
    mysql: "CREATE TABLE IF NOT EXISTS notification (\
              user_id BIGINT NOT NULL,\
              id BIGINT NOT NULL,\
              read_at BIGINT NULL,\
              PRIMARY KEY (user_id, id))",
    sqlite: "CREATE TABLE IF NOT EXISTS notification (\
               user_id INTEGER NOT NULL,\
               id INTEGER NOT NULL,\
               read_at INTEGER NULL,\
               PRIMARY KEY (user_id, id)) WITHOUT ROWID",
};

/// One row for each lane of each process that writes: the number of the last transaction that it has committed, which
/// each transaction sets. It says afterwards whether a COMMIT was carried out whose answer was lost. `committed_at` says
/// which rows belong to processes that ended long ago.
const WRITER: NewTable = NewTable {
    name: "writer",
    mysql: "CREATE TABLE IF NOT EXISTS writer (\
              id BIGINT NOT NULL PRIMARY KEY,\
              commits BIGINT NOT NULL,\
              committed_at BIGINT NOT NULL)",
    sqlite: "CREATE TABLE IF NOT EXISTS writer (\
               id INTEGER PRIMARY KEY,\
               commits INTEGER NOT NULL,\
               committed_at INTEGER NOT NULL)",
};
