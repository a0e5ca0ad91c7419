/// A small generator (xorshift64*), so that a failure's seed is all it takes to see it again.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a mut [T]) -> Option<&'a mut T> {
        let count = u64::try_from(from.len()).unwrap();
        let at = if count == 0 { 0 } else { self.below(count) };
        from.get_mut(usize::try_from(at).unwrap())
    }
}
