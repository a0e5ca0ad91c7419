/// Deals leases out to the new version and to the old one, so that the share is true however few there
/// are: of any number from the first on, the new version has had its share, rounded up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Turns(u64);

impl Turns {
    /// Whether the next lease is of the new version.
    pub fn take(&mut self, percent: u8) -> bool {
        let before = share(self.0, percent);
        // At the end of the numbers it begins anew, which changes nothing for the share.
        self.0 = self.0.wrapping_add(1);
        share(self.0, percent) > before
    }
}

/// So many of the first `leases` are of the new version.
fn share(leases: u64, percent: u8) -> u128 {
    (u128::from(leases) * u128::from(percent)).div_ceil(100)
}
