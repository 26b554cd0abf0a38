//! The spatial index: one roomy box a location, in an R-tree of the database.
//!
//! The two databases keep the box in different columns; everything that differs is in this file.

use geo::{BoundingRect, Geometry, Rect};
use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, Statement, Value};

use super::geometry::Plane;

/// Writes a location's box, new or instead of the old one.
pub async fn put(db: &impl ConnectionTrait, location_id: i64, area: &Rect) -> Result<(), DbErr> {
    let sql = match db.get_database_backend() {
        DatabaseBackend::MySql => {
            "INSERT INTO location_area (location_id, area) VALUES (?, ?) AS new \
             ON DUPLICATE KEY UPDATE area = new.area"
        }
        _ => {
            "INSERT OR REPLACE INTO location_area (location_id, west, east, south, north) VALUES (?, ?, ?, ?, ?)"
        }
    };
    let mut values = vec![location_id.into()];
    values.extend(columns(db.get_database_backend(), area));
    db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// Removes a location's box.
pub async fn delete(db: &impl ConnectionTrait, location_id: i64) -> Result<(), DbErr> {
    let sql = "DELETE FROM location_area WHERE location_id = ?";
    let values = [location_id.into()];
    db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// The box a location is indexed by; SQLite's R*Tree has rounded it outward.
pub async fn get(db: &impl ConnectionTrait, location_id: i64) -> Result<Option<Rect>, DbErr> {
    let backend = db.get_database_backend();
    let sql = match backend {
        DatabaseBackend::MySql => "SELECT area FROM location_area WHERE location_id = ?",
        _ => "SELECT west, east, south, north FROM location_area WHERE location_id = ?",
    };
    let statement = Statement::from_sql_and_values(backend, sql, [location_id.into()]);
    let Some(row) = db.query_one_raw(statement).await? else { return Ok(None) };
    if backend == DatabaseBackend::MySql {
        let Plane(area) = row.try_get("", "area")?;
        return Ok(area.bounding_rect());
    }
    let degrees = |column| row.try_get::<f64>("", column);
    Ok(Some(Rect::new((degrees("west")?, degrees("south")?), (degrees("east")?, degrees("north")?))))
}

/// A query for the ids of the boxes that meet any of `rects`, each once, answered by the spatial index.
/// Never misses one; what it finds too much, the caller tests exactly.
pub fn meeting(backend: DatabaseBackend, rects: &[Rect]) -> (String, Vec<Value>) {
    let one = match backend {
        DatabaseBackend::MySql => "SELECT location_id FROM location_area WHERE MBRIntersects(area, ?)",
        _ => {
            "SELECT location_id FROM location_area \
             WHERE east >= ? AND west <= ? AND north >= ? AND south <= ?"
        }
    };
    // Not OR: MySQL answers that by reading every row.
    let sql = vec![one; rects.len()].join(" UNION ");
    let values = rects.iter().flat_map(|rect| columns(backend, rect));
    (sql, values.collect())
}

/// A box as the columns of `location_area` after the id; also what it is compared with.
fn columns(backend: DatabaseBackend, rect: &Rect) -> Vec<Value> {
    match backend {
        DatabaseBackend::MySql => {
            // SRID 0: with 4326 MySQL takes the edges for geodesics, and a box for what those enclose.
            let mut bytes = Plane(Geometry::from(rect.to_polygon())).to_bytes();
            bytes[..4].fill(0);
            vec![bytes.into()]
        }
        _ => [rect.min().x, rect.max().x, rect.min().y, rect.max().y].map(Value::from).to_vec(),
    }
}
