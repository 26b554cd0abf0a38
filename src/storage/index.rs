//! The spatial index: a box around each location with room to move in, in an R-tree of the database.
//!
//! The two databases keep the box in different columns. Everything that differs is in this file.

use geo::{Geometry, Rect};
use sea_orm::{ConnectionTrait, DatabaseBackend, Value};

use super::{
    error::DbResult,
    geometry::Plane,
    sql::{Cell, Dialect, Rows, statement},
};
use crate::domain::id::LocationId;

/// A statement that writes boxes, each new or in place of the old one.
pub fn rows(dialect: Dialect) -> Rows {
    match dialect.backend {
        DatabaseBackend::MySql => {
            Rows::upsert(dialect, "INSERT INTO location_area (location_id, area)", "area = excluded.area")
        }
        _ => {
            let insert = "INSERT OR REPLACE INTO location_area (location_id, west, east, south, north)";
            Rows::new(dialect, insert)
        }
    }
}

/// Adds the box of a location to a statement of [`rows`].
pub fn push(rows: &mut Rows, location: LocationId, area: &Rect) {
    let id = Cell::number(location);
    match rows.dialect.backend {
        DatabaseBackend::MySql => rows.push([id, Cell::Bytes(&polygon(area))]),
        _ => rows.push([id].into_iter().chain(sides(area).map(Cell::Double))),
    }
}

/// The bytes of a box in the column `location.area`.
pub fn to_bytes(area: &Rect) -> Vec<u8> {
    sides(area).iter().flat_map(|side| side.to_le_bytes()).collect()
}

/// The box that the column `location.area` holds. `None`: the bytes are no box.
pub fn from_bytes(bytes: &[u8]) -> Option<Rect> {
    let (sides, []) = bytes.as_chunks() else { return None };
    let [west, east, south, north]: [[u8; 8]; 4] = sides.try_into().ok()?;
    let corner = |x, y| (f64::from_le_bytes(x), f64::from_le_bytes(y));
    Some(Rect::new(corner(west, south), corner(east, north)))
}

/// Removes the box of a location.
pub async fn delete(db: &impl ConnectionTrait, location: LocationId) -> DbResult<()> {
    let sql = "DELETE FROM location_area WHERE location_id = ?";
    db.execute_raw(statement(db, sql, [location])).await.map(drop)
}

/// A query for the ids of locations whose box meets any of `rects`, each once, which the spatial index answers. It
/// misses none; the caller tests exactly what it finds.
pub fn meeting(backend: DatabaseBackend, rects: &[Rect]) -> (String, Vec<Value>) {
    let one = match backend {
        DatabaseBackend::MySql => "SELECT location_id FROM location_area WHERE MBRIntersects(area, ?)",
        _ => {
            "SELECT location_id FROM location_area \
             WHERE east >= ? AND west <= ? AND north >= ? AND south <= ?"
        }
    };
    // With OR MySQL would read every row.
    let sql = vec![one; rects.len()].join(" UNION ");
    let values = rects.iter().flat_map(|rect| match backend {
        DatabaseBackend::MySql => vec![polygon(rect).into()],
        _ => sides(rect).map(Value::from).to_vec(),
    });
    (sql, values.collect())
}

/// A box as MySQL keeps it.
fn polygon(rect: &Rect) -> Vec<u8> {
    // SRID 0 is the plane. With 4326 MySQL takes the edges for geodesics, and a box for what those enclose.
    let mut bytes = Plane(Geometry::from(rect.to_polygon())).to_bytes();
    bytes[..4].fill(0);
    bytes
}

/// The sides of a box: west, east, south, north.
fn sides(rect: &Rect) -> [f64; 4] {
    [rect.min().x, rect.max().x, rect.min().y, rect.max().y]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_comes_back_and_other_bytes_are_none() {
        let area = Rect::new((-180.0, -0.5), (179.9, 90.0));
        let bytes = to_bytes(&area);
        assert_eq!((bytes.len(), from_bytes(&bytes)), (32, Some(area)));
        assert_eq!([from_bytes(&[]), from_bytes(&bytes[1..]), from_bytes(&bytes[..24])], [None; 3]);
    }

    #[test]
    fn two_boxes_are_a_union_with_their_values() {
        let rects = [Rect::new((170.0, 0.0), (180.0, 1.0)), Rect::new((-180.0, 0.0), (-170.0, 1.0))];
        for (backend, values_each) in [(DatabaseBackend::MySql, 1), (DatabaseBackend::Sqlite, 4)] {
            let (sql, values) = meeting(backend, &rects);
            assert_eq!(sql.matches(" UNION ").count(), 1);
            assert_eq!((sql.matches('?').count(), values.len()), (2 * values_each, 2 * values_each));
        }
    }
}
