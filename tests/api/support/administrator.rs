//! What somebody does who has all rights on a MySQL: makes databases, looks at connections and ends them.

use std::env;

use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseBackend, DatabaseConnection, Statement};

pub fn mysql_url() -> String {
    env::var("TEST_MYSQL_URL").expect("TEST_MYSQL_URL: run `make test`, or `tests/services/run cargo test`")
}

/// A connection to MySQL itself, in no database.
pub async fn administrator() -> DatabaseConnection {
    let mut options = ConnectOptions::new(mysql_url());
    options.sqlx_logging(false);
    Database::connect(options).await.expect("MySQL")
}

/// Runs one statement.
pub async fn administer(sql: &str) {
    let db = administrator().await;
    db.execute_unprepared(sql).await.expect(sql);
    db.close().await.expect("close");
}

/// MySQL's id of a connection.
pub async fn connection_id(connection: &DatabaseConnection) -> u64 {
    let sql = Statement::from_string(DatabaseBackend::MySql, "SELECT CONNECTION_ID() AS id");
    connection.query_one_raw(sql).await.unwrap().expect("a row").try_get("", "id").expect("an id")
}

/// Ends the connections for which `is_wanted` says so of their ids and databases, whatever they are doing; returns how
/// many there were.
pub async fn kill_connections(
    admin: &DatabaseConnection,
    is_wanted: impl Fn(u64, Option<&str>) -> bool,
) -> usize {
    // Not information_schema.processlist: that fails on a statement with bytes in it.
    let list = Statement::from_string(DatabaseBackend::MySql, "SHOW PROCESSLIST");
    let mut killed = 0;
    for row in admin.query_all_raw(list).await.expect("the connections") {
        let id: i64 = row.try_get("", "Id").expect("an id");
        let database: Option<String> = row.try_get("", "db").expect("a database");
        if is_wanted(id as u64, database.as_deref()) {
            // It may have gone by itself.
            killed += usize::from(admin.execute_unprepared(&format!("KILL {id}")).await.is_ok());
        }
    }
    killed
}

/// Ends every connection but those with these ids.
pub async fn kill_others(admin: &DatabaseConnection, spared: &[u64]) {
    kill_connections(admin, |id, _| !spared.contains(&id)).await;
}
