//! Geometry as bytes: what MySQL keeps in a GEOMETRY column (SRID, then WKB, both little-endian, always
//! lon-lat), the same bytes in SQLite's BLOB; and the altitudes that GEOMETRY has no room for.

use geo_traits::to_geo::ToGeoGeometry;
use sea_orm::{
    ColIdx, DbErr, QueryResult, TryGetError, TryGetable, Value,
    sea_query::{ArrayType, ColumnType, Nullable, ValueType, ValueTypeErr},
    sqlx::Row,
};
use wkb::{
    reader::read_wkb,
    writer::{WriteOptions, write_geometry},
};

/// WGS 84. MySQL's axis order for it concerns text and functions such as ST_X, not these bytes.
const SRID: [u8; 4] = 4326_u32.to_le_bytes();

/// A geometry of the lon-lat plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane(pub geo::Geometry);

impl Plane {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = SRID.to_vec();
        write_geometry(&mut bytes, &self.0, &WriteOptions::default()).expect("a Vec takes every byte");
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DbErr> {
        // Which SRID it is, the column says.
        let (_, wkb) =
            bytes.split_first_chunk::<4>().ok_or_else(|| DbErr::Type("geometry without an SRID".into()))?;
        let geometry = read_wkb(wkb).map_err(|e| DbErr::Type(format!("geometry: {e}")))?;
        geometry.try_to_geometry().map(Self).ok_or_else(|| DbErr::Type("geometry with an empty point".into()))
    }
}

impl From<Plane> for Value {
    fn from(plane: Plane) -> Self {
        plane.to_bytes().into()
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

impl ValueType for Plane {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        let bytes = <Vec<u8> as ValueType>::try_from(value)?;
        Self::from_bytes(&bytes).map_err(|_| ValueTypeErr)
    }

    fn type_name() -> String {
        "Plane".to_owned()
    }

    fn array_type() -> ArrayType {
        ArrayType::Bytes
    }

    fn column_type() -> ColumnType {
        ColumnType::custom("GEOMETRY")
    }
}

/// One altitude a position, in the order of the geometry's positions; `NaN` where there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Altitudes(pub Vec<f64>);

impl From<Altitudes> for Value {
    fn from(altitudes: Altitudes) -> Self {
        altitudes.to_bytes().into()
    }
}

impl Altitudes {
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

impl ValueType for Altitudes {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        let bytes = <Vec<u8> as ValueType>::try_from(value)?;
        Self::from_bytes(&bytes).map_err(|_| ValueTypeErr)
    }

    fn type_name() -> String {
        "Altitudes".to_owned()
    }

    fn array_type() -> ArrayType {
        ArrayType::Bytes
    }

    fn column_type() -> ColumnType {
        ColumnType::Blob
    }
}

impl Nullable for Altitudes {
    fn null() -> Value {
        Value::Bytes(None)
    }
}
