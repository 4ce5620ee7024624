//! Shares: of requests that are logged, or begin a trace.

use serde::{Deserialize, Serialize};

/// A share of something: so many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Share {
    numerator: u32,
    denominator: u32,
}

impl Share {
    /// Everything.
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };
    /// Nothing.
    pub const NONE: Self = Self { numerator: 0, denominator: 1 };
    /// One of a hundred.
    pub const ONE_PERCENT: Self = Self { numerator: 1, denominator: 100 };

    /// `numerator` of `denominator`; `None` if that is no share: more than all, or of nothing.
    pub const fn new(numerator: u32, denominator: u32) -> Option<Self> {
        if denominator == 0 || numerator > denominator {
            return None;
        }
        Some(Self { numerator, denominator })
    }

    /// The share nearest to a number from 0 to 1; `None` for others.
    pub fn of(number: f64) -> Option<Self> {
        const PARTS: u32 = 1_000_000;
        let parts = (number * f64::from(PARTS)).round();
        (0.0..=f64::from(PARTS)).contains(&parts).then_some(Self { numerator: parts as u32, denominator: PARTS })
    }

    /// How many.
    pub const fn numerator(self) -> u32 {
        self.numerator
    }

    /// Of how many.
    pub const fn denominator(self) -> u32 {
        self.denominator
    }

    /// Whether one is among them; `random` is uniform.
    pub const fn takes(self, random: u64) -> bool {
        // 64 bits of randomness as a number below the denominator, without a bias that anybody could see.
        let place = ((random as u128) * (self.denominator as u128)) >> 64;
        place < self.numerator as u128
    }
}
