//! Search in an array of heads.

/// Number of heads below `target`; the heads ascend.
#[inline]
pub(crate) fn count_below(heads: &[[u8; 4]], target: u32) -> usize {
    heads.partition_point(|head| u32::from_le_bytes(*head) < target)
}

/// Number of heads at the start that equal `target`.
#[inline]
pub(crate) fn count_equal(heads: &[[u8; 4]], target: u32) -> usize {
    // Runs are short unless the keys differ late; then a run can be the whole node.
    let short = heads
        .iter()
        .take(4)
        .take_while(|head| u32::from_le_bytes(**head) == target)
        .count();
    if short < 4 {
        short
    } else {
        heads.partition_point(|head| u32::from_le_bytes(*head) == target)
    }
}
