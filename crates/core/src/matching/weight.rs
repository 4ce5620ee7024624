//! Choice by weight and by share, from random bits that the caller brings.

/// The index of one of the weights, each as often in the long run as its share of the sum; `entropy` is uniform.
/// `None` if there is nothing to choose: no weight, or all of them 0.
pub fn pick_weighted(weights: impl Iterator<Item = u32> + Clone, entropy: u64) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut ticket = scale(entropy, total);
    weights.enumerate().find_map(|(index, weight)| match ticket.checked_sub(u64::from(weight)) {
        None => Some(index),
        Some(rest) => {
            ticket = rest;
            None
        }
    })
}

/// Uniform in `0..bound`, to within one part in 2^64 (0 if the bound is 0).
pub(crate) fn scale(entropy: u64, bound: u64) -> u64 {
    // The high half of a 64 by 64 bit product is below `bound`.
    ((u128::from(entropy) * u128::from(bound)) >> 64) as u64
}

/// The `nth` independent draw from one seed (the SplitMix64 sequence).
pub fn draw(seed: u64, nth: u64) -> u64 {
    let mut z = seed.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each weight is picked by points spread evenly over the whole range of the entropy.
    fn shares(weights: &[u32], points: u64) -> Vec<u64> {
        let mut counts = vec![0; weights.len()];
        for point in 0..points {
            let entropy = ((2 * u128::from(point) + 1) * (1 << 63) / u128::from(points)) as u64;
            counts[pick_weighted(weights.iter().copied(), entropy).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn shares_are_exact_over_the_whole_range() {
        assert_eq!(shares(&[70, 30, 0], 1000), [700, 300, 0]);
        assert_eq!(shares(&[1, 0, 1, 2], 1000), [250, 0, 250, 500]);
        assert_eq!(shares(&[u32::MAX, u32::MAX], 1000), [500, 500]);
    }

    #[test]
    fn weight_zero_is_never_picked() {
        for entropy in [0, 1, u64::MAX / 2, u64::MAX] {
            assert_eq!(pick_weighted([0, 5, 0].into_iter(), entropy), Some(1));
        }
        assert_eq!(pick_weighted([0, 0].into_iter(), 7), None);
        assert_eq!(pick_weighted([].into_iter(), 7), None);
    }

    #[test]
    fn draws_of_one_seed_differ() {
        let draws: std::collections::HashSet<u64> = (0..1000).map(|nth| draw(42, nth)).collect();
        assert_eq!(draws.len(), 1000);
        // Each bit is set about half of the time.
        let ones: u32 = draws.iter().map(|it| it.count_ones()).sum();
        assert!((31_000..33_000).contains(&ones), "{ones}");
    }
}
