/// Which versions of a credential may be lent, as the records so far tell it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Versions {
    /// The current one; none until a record tells, in a log whose beginning was pruned.
    current: Option<u64>,
    rotation: Rotation,
    /// The highest number that was ever given.
    highest: u64,
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rotation {
    /// There is none.
    None,
    /// The candidate is lent for so many leases of 100.
    Canary { candidate: u64, percent: u32 },
    /// The candidate is current, and this one is lent where it fails; none until a record tells.
    Overlap { previous: Option<u64> },
    /// It began in a part that was pruned, if there is one: this may be lent, too.
    Unknown { other: Option<u64> },
}

/// Whether a version may be lent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lends {
    Yes,
    /// It is one that is no longer lent.
    Stale,
    /// No record says that there is such a version.
    NotOnRecord,
}

impl Versions {
    /// Of a credential that was made with this version.
    pub(super) fn new(version: u64) -> Self {
        Self { current: Some(version), rotation: Rotation::None, highest: version }
    }

    /// Of a credential that was made in a part that was pruned.
    pub(super) fn pruned() -> Self {
        Self { current: None, rotation: Rotation::Unknown { other: None }, highest: 0 }
    }

    /// A lease is of this version.
    pub(super) fn lend(&mut self, version: u64) -> Lends {
        if self.current.is_none() && self.may_be_current(version) {
            self.current = Some(version);
            self.highest = self.highest.max(version);
            return Lends::Yes;
        }
        let other = match &mut self.rotation {
            Rotation::None => None,
            Rotation::Canary { candidate, .. } => Some(*candidate),
            // The first other one that is lent is the one that was there before.
            Rotation::Overlap { previous: other } | Rotation::Unknown { other } => {
                if self.current != Some(version) {
                    other.get_or_insert(version);
                    self.highest = self.highest.max(version);
                }
                *other
            }
        };
        if self.current == Some(version) || other == Some(version) {
            Lends::Yes
        } else if version > self.highest {
            Lends::NotOnRecord
        } else {
            Lends::Stale
        }
    }

    /// A new version is the only one from here on. False when that is out of step.
    pub(super) fn rotate(&mut self, version: u64) -> bool {
        let in_step = self.is_next(version) && !self.is_rotating();
        *self = Self::new(version);
        in_step
    }

    /// A new version is lent for a share of the leases.
    pub(super) fn start(&mut self, version: u64, percent: u32) -> bool {
        let in_step = self.is_next(version) && !self.is_rotating() && (1..=99).contains(&percent);
        self.rotation = Rotation::Canary { candidate: version, percent };
        self.highest = version;
        in_step
    }

    /// The share rises, up to all.
    pub(super) fn advance(&mut self, version: u64, percent: u32) -> bool {
        let in_step = match self.rotation {
            Rotation::Canary { candidate, percent: before } => {
                candidate == version && percent > before
            }
            Rotation::Unknown { .. } => true,
            Rotation::None | Rotation::Overlap { .. } => false,
        };
        // Which of the two that a pruned part leaves open was the current one, nothing says.
        let is_open = matches!(self.rotation, Rotation::Unknown { .. });
        let before = self.current.filter(|current| !is_open && *current != version);
        self.highest = self.highest.max(version);
        if percent == 100 {
            (self.rotation, self.current) = (Rotation::Overlap { previous: before }, Some(version));
        } else {
            (self.rotation, self.current) =
                (Rotation::Canary { candidate: version, percent }, before);
        }
        in_step && percent <= 100
    }

    /// The version before this one is no longer lent.
    pub(super) fn finish(&mut self, version: u64) -> bool {
        let in_step = match self.rotation {
            Rotation::Overlap { .. } => self.current == Some(version),
            Rotation::Unknown { .. } => true,
            Rotation::None | Rotation::Canary { .. } => false,
        };
        let highest = self.highest.max(version);
        *self = Self { highest, ..Self::new(version) };
        in_step
    }

    /// This version is no longer lent, and the one before it is current.
    pub(super) fn roll_back(&mut self, version: u64) -> bool {
        let (in_step, current) = match self.rotation {
            Rotation::Canary { candidate, .. } => (candidate == version, self.current),
            Rotation::Overlap { previous } => (self.current == Some(version), previous),
            Rotation::Unknown { .. } => (true, None),
            Rotation::None => (false, self.current),
        };
        let highest = self.highest.max(version);
        *self = Self { current, rotation: Rotation::None, highest };
        in_step
    }

    /// No number is given twice, and none is left out.
    fn is_next(&self, version: u64) -> bool {
        match self.rotation {
            Rotation::Unknown { .. } => version > self.highest,
            Rotation::None | Rotation::Canary { .. } | Rotation::Overlap { .. } => {
                version == self.highest.saturating_add(1)
            }
        }
    }

    fn is_rotating(&self) -> bool {
        matches!(self.rotation, Rotation::Canary { .. } | Rotation::Overlap { .. })
    }

    /// Whether this may be the version that a pruned part left current.
    fn may_be_current(&self, version: u64) -> bool {
        match self.rotation {
            Rotation::Unknown { .. } => true,
            Rotation::Canary { candidate, .. } => version < candidate,
            Rotation::None => version < self.highest,
            Rotation::Overlap { .. } => false,
        }
    }
}
