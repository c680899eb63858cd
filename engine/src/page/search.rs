//! Search for a key behind its prefix: among heads, and among the rests of those whose heads are equal.

use std::cmp::Ordering;
use std::ops::Range;

use super::key;

/// Number of heads below `target`; the heads ascend.
#[inline]
pub(crate) fn count_below(heads: &[[u8; 4]], target: u32) -> usize {
    heads.partition_point(|head| u32::from_le_bytes(*head) < target)
}

/// Number of heads at the start that equal `target`.
#[inline]
pub(crate) fn count_equal(heads: &[[u8; 4]], target: u32) -> usize {
    let equal = |index: usize| {
        heads
            .get(index)
            .is_some_and(|head| u32::from_le_bytes(*head) == target)
    };
    // Runs are short unless the keys differ late; then a run can be the whole node.
    if !equal(0) {
        0
    } else if !equal(1) {
        1
    } else {
        heads.partition_point(|head| u32::from_le_bytes(*head) == target)
    }
}

/// The place of `suffix` among ascending ones whose heads equal its own: which of them it is, or the one before which
/// it belongs. `suffix_at` gives the length of the suffix at a place, and what it has behind its head.
#[inline]
pub(crate) fn find_among_equals<'p>(
    places: Range<usize>,
    suffix: &[u8],
    suffix_at: impl Fn(usize) -> (usize, &'p [u8]),
) -> Result<usize, usize> {
    let rest = key::rest(suffix);
    let Range {
        start: mut low,
        end: mut high,
    } = places;
    while low < high {
        let middle = low.midpoint(high);
        let (middle_len, middle_rest) = suffix_at(middle);
        match key::compare_rest(middle_rest, middle_len, rest, suffix.len()) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}
