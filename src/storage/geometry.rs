//! Geometries and altitudes as the bytes of columns.
//!
//! MySQL's GEOMETRY column holds an SRID and then WKB, both little-endian and always lon-lat; SQLite's BLOB holds the
//! same bytes. GEOMETRY is two-dimensional, so altitudes have a column of their own.

use geo_traits::to_geo::ToGeoGeometry;
use sea_orm::{ColIdx, DbErr, QueryResult, TryGetError, TryGetable, sqlx::Row};
use wkb::{
    reader::read_wkb,
    writer::{WriteOptions, write_geometry},
};

/// The SRID of WGS 84. MySQL's axis order for it concerns text and functions such as ST_X, not these bytes.
const SRID: [u8; 4] = 4326_u32.to_le_bytes();

/// A geometry without altitudes, in longitudes and latitudes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane(pub geo::Geometry);

impl Plane {
    /// The bytes of a column.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = SRID.to_vec();
        write_geometry(&mut bytes, &self.0, &WriteOptions::default()).expect("a Vec takes every byte");
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DbErr> {
        // The SRID is the column's, so it need not be looked at.
        let (_, wkb) =
            bytes.split_first_chunk::<4>().ok_or_else(|| DbErr::Type("geometry without an SRID".into()))?;
        let geometry = read_wkb(wkb).map_err(|e| DbErr::Type(format!("geometry: {e}")))?;
        geometry.try_to_geometry().map(Self).ok_or_else(|| DbErr::Type("geometry with an empty point".into()))
    }
}

impl TryGetable for Plane {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        // sqlx refuses to read a GEOMETRY as bytes unless told not to check.
        let bytes: Option<Vec<u8>> = match row.try_as_mysql_row() {
            Some(row) => {
                row.try_get_unchecked(index.as_sqlx_mysql_index()).map_err(|e| DbErr::Type(e.to_string()))?
            }
            None => Option::try_get_by(row, index)?,
        };
        let bytes = bytes.ok_or_else(|| TryGetError::Null(format!("{index:?}")))?;
        Ok(Self::from_bytes(&bytes)?)
    }
}

/// The altitudes of a geometry, in the order of its positions; `NaN` for a position without one.
#[derive(Clone, Debug, PartialEq)]
pub struct Altitudes(pub Vec<f64>);

impl Altitudes {
    /// The bytes of a column: one little-endian double for each position.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|altitude| altitude.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DbErr> {
        let (altitudes, rest) = bytes.as_chunks();
        match rest {
            [] => Ok(Self(altitudes.iter().copied().map(f64::from_le_bytes).collect())),
            _ => Err(DbErr::Type("altitudes are not a whole number of doubles".into())),
        }
    }
}

impl TryGetable for Altitudes {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        Ok(Self::from_bytes(&Vec::<u8>::try_get_by(row, index)?)?)
    }
}

#[cfg(test)]
mod tests {
    use geo::{Geometry, line_string, point};

    use super::*;

    #[test]
    fn a_geometry_comes_back_bit_for_bit() {
        let line = line_string![(x: -0.0, y: 5e-324), (x: 179.999_999_999_999_97, y: -90.0)];
        for geometry in [Geometry::from(point!(x: 13.4, y: 52.5)), Geometry::from(line)] {
            let plane = Plane(geometry);
            let bytes = plane.to_bytes();
            assert_eq!(bytes[..4], [0xe6, 0x10, 0, 0], "SRID 4326, little-endian");
            assert_eq!(Plane::from_bytes(&bytes).expect("a geometry"), plane);
        }
    }

    #[test]
    fn bytes_that_are_no_geometry_are_an_error() {
        let point = Plane(point!(x: 1.0, y: 2.0).into()).to_bytes();
        for bytes in [&[][..], &[0xe6, 0x10], &point[..4], &point[..20]] {
            assert!(Plane::from_bytes(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn altitudes_come_back_and_must_be_whole_doubles() {
        let altitudes = Altitudes(vec![0.0, -430.5, f64::NAN]);
        let bytes = altitudes.to_bytes();
        let Altitudes(read) = Altitudes::from_bytes(&bytes).expect("altitudes");
        assert_eq!(
            read.iter().map(|n| n.to_bits()).collect::<Vec<_>>(),
            altitudes.0.iter().map(|n| n.to_bits()).collect::<Vec<_>>()
        );
        assert!(Altitudes::from_bytes(&bytes[1..]).is_err());
    }
}
