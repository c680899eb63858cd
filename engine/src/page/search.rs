//! Search in an array of heads.

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
