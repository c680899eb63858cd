//! Where a range begins and ends.

use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// The bounds of a range of keys: `"a".."m"`, `from..`, `..=to`, `..`, or a pair of [`Bound`]s. Keys are anything that
/// is bytes; a bound may be longer than any key, or empty.
///
/// This is [`RangeBounds`] for the ranges of the standard library, with one difference: of `..` it is clear what its
/// bounds would be, so that `tree.range(..)` needs no type.
pub trait KeyBounds<K>: sealed::Sealed {
    /// The lower bound and the upper one.
    #[doc(hidden)]
    fn to_bytes(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>);
}

mod sealed {
    pub trait Sealed {}
}

/// Bounds of their own.
pub(super) type OwnedBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn own<K: AsRef<[u8]>>(bounds: &impl RangeBounds<K>) -> OwnedBounds {
    let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
    (own(bounds.start_bound()), own(bounds.end_bound()))
}

macro_rules! bounds_of_keys {
    ($($range:ty),*) => { $(
        impl<K> sealed::Sealed for $range {}

        impl<K: AsRef<[u8]>> KeyBounds<K> for $range {
            fn to_bytes(&self) -> OwnedBounds {
                own::<K>(self)
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
    fn to_bytes(&self) -> OwnedBounds {
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
