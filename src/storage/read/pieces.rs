//! Dividing the rows of an answer into pieces, which are read one after the other as the client takes them.
//!
//! A row may be anything from a hundred bytes to more than a megabyte, so sizes are read before rows. This file only
//! does sums; [`super::listing`] and [`super::history`] read.

/// The most bytes in the database of rows that are read together; a larger row is read alone. Their text
/// is about as long, so an answer holds about a megabyte while its client is slow, and some three while a piece of one
/// large row is being written.
pub const PIECE_BYTES: usize = 512 * 1024;

/// The number of the next rows that make one piece: as many as fit, and at least one if there is one.
pub fn piece_len(sizes: impl IntoIterator<Item = usize>) -> usize {
    let mut bytes = 0_usize;
    let fits = sizes.into_iter().enumerate().take_while(|(nth, size)| {
        bytes = bytes.saturating_add(*size);
        *nth == 0 || bytes <= PIECE_BYTES
    });
    fits.count()
}

/// The bytes of the largest piece of these rows.
pub fn largest_piece(sizes: &[usize]) -> usize {
    let (mut rest, mut largest) = (sizes, 0);
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(piece_len(rest.iter().copied()));
        largest = largest.max(piece.iter().sum());
        rest = later;
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_together_up_to_half_a_megabyte_and_a_larger_one_alone() {
        const HALF: usize = PIECE_BYTES / 2;
        for (sizes, len, largest) in [
            (&[][..], 0, 0),
            (&[0, 0, 0], 3, 0),
            (&[5 * PIECE_BYTES], 1, 5 * PIECE_BYTES),
            (&[HALF, HALF, 1], 2, PIECE_BYTES),
            (&[HALF + 1, HALF, HALF], 1, PIECE_BYTES),
            (&[1, 2 * PIECE_BYTES, 1], 1, 2 * PIECE_BYTES),
            (&[1, usize::MAX], 1, usize::MAX),
        ] {
            assert_eq!(piece_len(sizes.iter().copied()), len, "{sizes:?}");
            assert_eq!(largest_piece(sizes), largest, "{sizes:?}");
        }
    }
}
