//! Where a range begins and ends.

use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use treering_engine::tree::Bounds;

/// The bounds of a range of keys: `"a".."m"`, `from..`, `..=to`, `..`, or a pair of [`Bound`]s. Keys are anything that
/// is bytes; a bound may be longer than any key, or empty.
///
/// This is [`RangeBounds`] for the ranges of the standard library, with one difference: of `..` it is clear what its
/// bounds would be, so that `tree.range(..)` needs no type.
pub trait KeyBounds<K>: sealed::Sealed {
    /// The lower bound and the upper one.
    #[doc(hidden)]
    fn as_slices(&self) -> (Bound<&[u8]>, Bound<&[u8]>);

    /// The same, of their own.
    #[doc(hidden)]
    fn to_bytes(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let (lower, upper) = self.as_slices();
        (lower.map(<[u8]>::to_vec), upper.map(<[u8]>::to_vec))
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Bounds of their own.
pub(super) type OwnedBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn slices<'b, K: AsRef<[u8]> + 'b>(bounds: &'b impl RangeBounds<K>) -> Bounds<'b> {
    let slice = |bound: Bound<&'b K>| bound.map(K::as_ref);
    (slice(bounds.start_bound()), slice(bounds.end_bound()))
}

macro_rules! bounds_of_keys {
    ($($range:ty),*) => { $(
        impl<K> sealed::Sealed for $range {}

        impl<K: AsRef<[u8]>> KeyBounds<K> for $range {
            fn as_slices(&self) -> Bounds<'_> {
                slices::<K>(self)
            }
        }
    )* };
}

bounds_of_keys!(
    Range<K>,
    RangeInclusive<K>,
    RangeFrom<K>,
    RangeTo<K>,
    RangeToInclusive<K>,
    (Bound<K>, Bound<K>)
);

impl sealed::Sealed for RangeFull {}

impl KeyBounds<&[u8]> for RangeFull {
    fn as_slices(&self) -> Bounds<'_> {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

/// The bounds of the keys that begin with `prefix`.
pub(super) fn of_prefix(prefix: &[u8]) -> OwnedBounds {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_one_of_its_length_or_shorter() {
        let excluded = |bytes: &[u8]| Bound::Excluded(bytes.to_vec());
        assert_eq!(of_prefix(b"ab").1, excluded(b"ac"));
        assert_eq!(of_prefix(b"a\xFF\xFF").1, excluded(b"b"));
        assert_eq!(of_prefix(b"\xFF\xFF").1, Bound::Unbounded);
        assert_eq!(of_prefix(b"").1, Bound::Unbounded);
    }

    #[test]
    fn bounds_keep_their_kind() {
        let bytes = |text: &str| text.as_bytes().to_vec();
        assert_eq!(
            ("a".."m").to_bytes(),
            (Bound::Included(bytes("a")), Bound::Excluded(bytes("m")))
        );
        assert_eq!(
            (..=vec![7_u8]).to_bytes(),
            (Bound::Unbounded, Bound::Included(vec![7]))
        );
        assert_eq!((..).to_bytes(), (Bound::Unbounded, Bound::Unbounded));
        assert_eq!(
            (Bound::Excluded("a"), Bound::Unbounded).to_bytes(),
            (Bound::Excluded(bytes("a")), Bound::Unbounded)
        );
    }
}
