//! What spatial lists must answer, worked out without the code under test: exact predicates on every
//! edge for boxes, and for distances a search that cuts edges until nothing nearer can be left.

use std::{
    f64::consts::PI,
    hash::{BuildHasher, RandomState},
};

use geo::{
    Coord, GeoNum, Geometry, Line, Point, Polygon,
    kernels::{Kernel, Orientation},
};

/// Mean radius of the Earth in metres.
const RADIUS_M: f64 = 6_371_008.8;
/// How far from the farthest any place is.
pub const HALF_WAY_ROUND_M: f64 = RADIUS_M * PI;

/// How much too long a distance of this module may be.
pub fn tolerance_m(distance_m: f64) -> f64 {
    // Relative, too: along a parallel, seen from the pole, every cut is as good as the other.
    0.5 + 1e-5 * distance_m
}

/// A fixed sequence of numbers (SplitMix64): a test that fails, fails again.
pub struct Random(pub u64);

impl Random {
    /// Another sequence each time, for faults that come at no fixed time either.
    pub fn unseeded() -> Self {
        Self(RandomState::new().hash_one(()))
    }

    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.unit() * (high - low)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    pub fn pick<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len())]
    }
}

/// A query box; `west > east` crosses the antimeridian.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub west: f64,
    pub south: f64,
    pub east: f64,
    pub north: f64,
}

impl Bounds {
    pub fn new(west: f64, south: f64, east: f64, north: f64) -> Self {
        Self { west, south, east, north }
    }

    /// A box around a position, cut off at the poles and carried over the antimeridian.
    pub fn around(lon: f64, lat: f64, half_width: f64, half_height: f64) -> Self {
        let lap = |lon: f64| match lon {
            lon if lon < -180.0 => lon + 360.0,
            lon if lon > 180.0 => lon - 360.0,
            lon => lon,
        };
        Self::new(
            lap(lon - half_width),
            (lat - half_height).max(-90.0),
            lap(lon + half_width),
            (lat + half_height).min(90.0),
        )
    }

    pub fn query(&self) -> String {
        format!("bbox={},{},{},{}", self.west, self.south, self.east, self.north)
    }

    /// The box, or its two halves.
    pub fn parts(&self) -> Vec<Self> {
        match self.west <= self.east {
            true => vec![*self],
            false => vec![Self { east: 180.0, ..*self }, Self { west: -180.0, ..*self }],
        }
    }

    fn holds(&self, position: Coord) -> bool {
        (self.west..=self.east).contains(&position.x) && (self.south..=self.north).contains(&position.y)
    }

    /// Two convex things meet unless a line parts them: one along the box, or one along the edge.
    fn meets_edge(&self, edge: &Line) -> bool {
        let (a, b) = (edge.start, edge.end);
        if a.x.max(b.x) < self.west
            || a.x.min(b.x) > self.east
            || a.y.max(b.y) < self.south
            || a.y.min(b.y) > self.north
        {
            return false;
        }
        let corners = [
            (self.west, self.south),
            (self.east, self.south),
            (self.east, self.north),
            (self.west, self.north),
        ];
        let sides = corners.map(|corner| <f64 as GeoNum>::Ker::orient2d(a, b, corner.into()));
        ![Orientation::Clockwise, Orientation::CounterClockwise]
            .iter()
            .any(|side| sides.iter().all(|corner| corner == side))
    }
}

/// A geometry taken apart.
#[derive(Debug, Default)]
pub struct Shape {
    points: Vec<Coord>,
    /// Of lines and rings, with both ends as vectors.
    edges: Vec<(Line, Vector, Vector)>,
    polygons: Vec<Polygon>,
}

impl From<&Geometry> for Shape {
    fn from(geometry: &Geometry) -> Self {
        let mut shape = Self::default();
        shape.add(geometry);
        shape
    }
}

impl Shape {
    fn add(&mut self, geometry: &Geometry) {
        match geometry {
            Geometry::Point(point) => self.points.push(point.0),
            Geometry::MultiPoint(points) => self.points.extend(points.iter().map(|point| point.0)),
            Geometry::LineString(line) => self.add_edges(line.lines()),
            Geometry::MultiLineString(lines) => lines.iter().for_each(|line| self.add_edges(line.lines())),
            Geometry::Polygon(polygon) => {
                for ring in std::iter::once(polygon.exterior()).chain(polygon.interiors()) {
                    self.add_edges(ring.lines());
                }
                self.polygons.push(polygon.clone());
            }
            Geometry::MultiPolygon(polygons) => {
                polygons.iter().for_each(|polygon| self.add(&polygon.clone().into()));
            }
            Geometry::GeometryCollection(parts) => parts.iter().for_each(|part| self.add(part)),
            other => unreachable!("not GeoJSON: {other:?}"),
        }
    }

    fn add_edges(&mut self, edges: impl Iterator<Item = Line>) {
        self.edges.extend(edges.map(|edge| (edge, Vector::of(edge.start), Vector::of(edge.end))));
    }

    /// Does any of it lie in the box or on its edge?
    pub fn meets(&self, bounds: &Bounds) -> bool {
        bounds.parts().iter().any(|bounds| {
            self.points.iter().any(|point| bounds.holds(*point))
                || self.edges.iter().any(|(edge, ..)| bounds.meets_edge(edge))
                // No edge meets the box: it is inside with all its corners, or with none.
                || self.covers(Coord { x: bounds.west, y: bounds.south })
        })
    }

    /// Is the position in the interior of an area? (On the boundary: either.)
    fn covers(&self, position: Coord) -> bool {
        self.polygons.iter().any(|polygon| {
            // How often a ray to the east leaves or enters: odd inside, and holes need no word of their own.
            let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
            let crossings = rings.flat_map(|ring| ring.lines()).filter(|edge| {
                let (low, high) = match edge.start.y < edge.end.y {
                    true => (edge.start, edge.end),
                    false => (edge.end, edge.start),
                };
                low.y <= position.y
                    && position.y < high.y
                    && <f64 as GeoNum>::Ker::orient2d(low, high, position) == Orientation::CounterClockwise
            });
            crossings.count() % 2 == 1
        })
    }

    /// Metres to the nearest position of it: 0 inside, never too short, at most [`tolerance_m`] too long.
    pub fn distance_m(&self, from: Point) -> f64 {
        if self.covers(from.0) {
            return 0.0;
        }
        let from = Vector::of(from.0);
        let mut best =
            self.points.iter().map(|p| from.distance_m(Vector::of(*p))).fold(f64::INFINITY, f64::min);
        let ends: Vec<(f64, f64)> =
            self.edges.iter().map(|(_, a, b)| (from.distance_m(*a), from.distance_m(*b))).collect();
        best = ends.iter().fold(best, |best, (a, b)| best.min(*a).min(*b));
        for ((edge, ..), (a, b)) in self.edges.iter().zip(ends) {
            search(from, *edge, a, b, &mut best);
        }
        best
    }
}

/// Halves an edge, straight in lon-lat, until no part can hold anything nearer than `best`.
fn search(from: Vector, edge: Line, a: f64, b: f64, best: &mut f64) {
    // Going along it changes the distance by no more than its length.
    if (a + b - longest_m(edge)) / 2.0 >= *best - tolerance_m(*best) {
        return;
    }
    let middle = Coord { x: (edge.start.x + edge.end.x) / 2.0, y: (edge.start.y + edge.end.y) / 2.0 };
    let at_middle = from.distance_m(Vector::of(middle));
    *best = best.min(at_middle);
    search(from, Line::new(edge.start, middle), a, at_middle, best);
    search(from, Line::new(middle, edge.end), at_middle, b, best);
}

/// At most this long is an edge: a degree of longitude counts as where it is longest.
fn longest_m(edge: Line) -> f64 {
    let (a, b) = (edge.start.y, edge.end.y);
    let widest = if a * b <= 0.0 { 0.0 } else { a.abs().min(b.abs()) };
    RADIUS_M * (edge.dx().to_radians() * widest.to_radians().cos()).hypot(edge.dy().to_radians())
}

/// A place on the unit sphere.
#[derive(Clone, Copy, Debug)]
struct Vector([f64; 3]);

impl Vector {
    fn of(position: Coord) -> Self {
        let ((sin_lon, cos_lon), (sin_lat, cos_lat)) =
            (position.x.to_radians().sin_cos(), position.y.to_radians().sin_cos());
        Self([cos_lat * cos_lon, cos_lat * sin_lon, sin_lat])
    }

    /// By the angle's tangent, which is as good near as it is at the antipode.
    fn distance_m(self, other: Self) -> f64 {
        let ([a, b, c], [x, y, z]) = (self.0, other.0);
        let cross = [b * z - c * y, c * x - a * z, a * y - b * x];
        let sine = cross.iter().map(|part| part * part).sum::<f64>().sqrt();
        RADIUS_M * sine.atan2(a * x + b * y + c * z)
    }
}
