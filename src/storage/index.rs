//! The spatial index: one roomy box a location, in an R-tree of the database.
//!
//! The two databases keep the box in different columns; everything that differs is in this file.

use geo::{Geometry, Rect};
use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, Statement, Value};

use super::{
    geometry::Plane,
    sql::{Cell, Dialect, Rows},
};

/// A statement that writes boxes, new or instead of the old ones.
pub fn rows(dialect: Dialect) -> Rows {
    match dialect.backend() {
        DatabaseBackend::MySql => Rows::new(
            dialect,
            "INSERT INTO location_area (location_id, area)",
            " AS new ON DUPLICATE KEY UPDATE area = new.area",
        ),
        _ => {
            let insert = "INSERT OR REPLACE INTO location_area (location_id, west, east, south, north)";
            Rows::new(dialect, insert, "")
        }
    }
}

/// Adds a location's box to such a statement.
pub fn push(rows: &mut Rows, location_id: i64, area: &Rect) {
    let id = Cell::Int(location_id);
    match rows.backend() {
        DatabaseBackend::MySql => rows.push([id, Cell::Bytes(&polygon(area))]),
        _ => rows.push([id].into_iter().chain(sides(area).map(Cell::Double))),
    }
}

/// A box as `location.area` keeps it.
pub fn to_bytes(area: &Rect) -> Vec<u8> {
    sides(area).iter().flat_map(|side| side.to_le_bytes()).collect()
}

/// See [`to_bytes`]; `None` where it is none.
pub fn from_bytes(bytes: &[u8]) -> Option<Rect> {
    let (sides, []) = bytes.as_chunks() else { return None };
    let [west, east, south, north]: [[u8; 8]; 4] = sides.try_into().ok()?;
    let corner = |x, y| (f64::from_le_bytes(x), f64::from_le_bytes(y));
    Some(Rect::new(corner(west, south), corner(east, north)))
}

/// Removes a location's box.
pub async fn delete(db: &impl ConnectionTrait, location_id: i64) -> Result<(), DbErr> {
    let sql = "DELETE FROM location_area WHERE location_id = ?";
    let values = [location_id.into()];
    db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    Ok(())
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
    let values = rects.iter().flat_map(|rect| values(backend, rect));
    (sql, values.collect())
}

/// What a box is compared with.
fn values(backend: DatabaseBackend, rect: &Rect) -> Vec<Value> {
    match backend {
        DatabaseBackend::MySql => vec![polygon(rect).into()],
        _ => sides(rect).map(Value::from).to_vec(),
    }
}

/// MySQL's box.
fn polygon(rect: &Rect) -> Vec<u8> {
    // SRID 0: with 4326 MySQL takes the edges for geodesics, and a box for what those enclose.
    let mut bytes = Plane(Geometry::from(rect.to_polygon())).to_bytes();
    bytes[..4].fill(0);
    bytes
}

/// West, east, south, north.
fn sides(rect: &Rect) -> [f64; 4] {
    [rect.min().x, rect.max().x, rect.min().y, rect.max().y]
}
