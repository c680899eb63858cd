//! Pseudo-random numbers: fast, seeded, and the same on every machine for ever.
//!
//! Two published generators, written out here so that a seed in an old report still means the same run:
//!
//! - SplitMix64 (Steele, Lea and Flood, 2014) spreads one seed over a generator's state, and its finalizer
//!   [`mix64`] is the bijection that scatters record numbers over the key space.
//! - xoshiro256++ (Blackman and Vigna, 2019) draws the numbers: 256 bits of state, about a nanosecond each.
//!
//! None of them is fit for secrets.

/// 2^64 divided by the golden ratio, SplitMix64's increment.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finalizer: a bijection of 64-bit numbers whose every output bit depends on every input bit.
#[must_use]
pub const fn mix64(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The inverse of [`mix64`].
#[must_use]
pub const fn unmix64(mixed: u64) -> u64 {
    // A shift-xor is undone by repeating it with multiples of the shift, a product by the inverse factor
    // modulo 2^64.
    let mut z = mixed;
    z = (z ^ (z >> 31) ^ (z >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    z = (z ^ (z >> 27) ^ (z >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    z ^ (z >> 30) ^ (z >> 60)
}

/// SplitMix64: any seed, zero included, gives a full-period sequence.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator that starts at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> SplitMix64 {
        SplitMix64 { state: seed }
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix64(self.state)
    }
}

/// xoshiro256++: what every generator of this crate draws from.
#[derive(Clone, Debug)]
pub struct Xoshiro256 {
    state: [u64; 4],
}

impl Xoshiro256 {
    /// The generator of `stream` under `seed`. Streams of one seed are independent for all practical ends:
    /// their states come from distant places of SplitMix64's sequence.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Xoshiro256 {
        let mut source = SplitMix64::new(mix64(seed) ^ mix64(stream.wrapping_add(GOLDEN_GAMMA)));
        // Four consecutive outputs of a bijection of a counter: never all zero, the one state to avoid.
        Xoshiro256 {
            state: std::array::from_fn(|_| source.next_u64()),
        }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let result = s0.wrapping_add(*s3).rotate_left(23).wrapping_add(*s0);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        result
    }

    /// A uniform number in `0..bound` (Lemire's multiply-and-reject, without bias); 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let mut product = u128::from(self.next_u64()) * u128::from(bound);
        if (product as u64) < bound {
            let rejected_below = bound.wrapping_neg() % bound;
            while (product as u64) < rejected_below {
                product = u128::from(self.next_u64()) * u128::from(bound);
            }
        }
        (product >> 64) as u64
    }

    /// A uniform number in `[0, 1)` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_the_published_sequence() {
        let mut source = SplitMix64::new(1_477_776_061_723_855_037);
        let drawn: Vec<u64> = (0..5).map(|_| source.next_u64()).collect();
        let published = [
            1_985_237_415_132_408_290,
            2_979_275_885_539_914_483,
            13_511_426_838_097_143_398,
            8_488_337_342_461_049_707,
            15_141_737_807_933_549_159,
        ];
        assert_eq!(drawn, published);
    }

    #[test]
    fn xoshiro_gives_the_published_sequence() {
        let mut source = Xoshiro256 { state: [1, 2, 3, 4] };
        let drawn: Vec<u64> = (0..6).map(|_| source.next_u64()).collect();
        let published = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
            9_973_669_472_204_895_162,
        ];
        assert_eq!(drawn, published);
    }

    #[test]
    fn unmix_inverts_mix() {
        let mut source = SplitMix64::new(7);
        for _ in 0..10_000 {
            let number = source.next_u64();
            assert_eq!(unmix64(mix64(number)), number);
        }
        for number in [0, 1, u64::MAX, 1 << 63] {
            assert_eq!(unmix64(mix64(number)), number);
        }
    }

    #[test]
    fn streams_differ_and_repeat() {
        let first = |seed, stream| Xoshiro256::new(seed, stream).next_u64();
        assert_eq!(first(1, 0), first(1, 0));
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(1, 0), first(2, 0));
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut source = Xoshiro256::new(3, 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[source.below(7) as usize] += 1;
        }
        // Six standard deviations of a binomial with n = 70,000 and p = 1/7 are 556.
        assert!(
            counts.iter().all(|&count| count.abs_diff(10_000) < 556),
            "{counts:?}"
        );
        assert_eq!(source.below(1), 0);
        assert_eq!(source.below(0), 0);
    }

    #[test]
    fn unit_is_half_open() {
        let mut source = Xoshiro256::new(4, 0);
        assert!((0..100_000).all(|_| (0.0..1.0).contains(&source.unit())));
    }
}
