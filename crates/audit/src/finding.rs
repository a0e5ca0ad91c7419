use thiserror::Error;

use crate::{HashTile, InvalidRecord};

/// The first thing that is wrong with a log, and the index at which it shows.
///
/// The first ten say that this is not the log that was signed; the others, that the log is
/// authentic and records something that must not have happened.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Finding {
    /// The bytes are not a record.
    #[error("entry {index} is not a record")]
    Malformed {
        /// Where.
        index: u64,
        /// What is wrong with them.
        #[source]
        source: InvalidRecord,
    },
    /// A record says that it belongs elsewhere: one was removed, repeated, moved or put in.
    #[error("entry {index} holds the record of index {found}")]
    OutOfPlace {
        /// Where.
        index: u64,
        /// Where it says it belongs.
        found: u64,
    },
    /// A record is earlier than the one before it.
    #[error("entry {index} is earlier than the one before it")]
    TimeWentBack {
        /// Where.
        index: u64,
    },
    /// There are more records than the checkpoint covers.
    #[error("entry {index} is beyond the checkpoint")]
    BeyondCheckpoint {
        /// The first that is not covered.
        index: u64,
    },
    /// There are fewer records than the checkpoint covers.
    #[error("the log ends before entry {index}, which the checkpoint covers")]
    Truncated {
        /// The first that is missing.
        index: u64,
    },
    /// The records are not those that were signed.
    #[error("the root of the {size} records is not the one that was signed")]
    RootMismatch {
        /// The size of the tree.
        size: u64,
    },
    /// An earlier checkpoint of the same log is not the beginning of this one: the log signed two
    /// histories.
    #[error("the log is not a continuation of its own checkpoint of size {size}")]
    Forked {
        /// The size of the earlier checkpoint.
        size: u64,
    },
    /// Records are missing at the beginning, and none of the others says that they were pruned.
    #[error("no entry up to the checkpoint says that those before {size} were pruned")]
    PruningNotOnRecord {
        /// How many are missing.
        size: u64,
    },
    /// A tile that the checkpoint's size calls for is not there.
    #[error("the tile `{tile}` is missing")]
    TileMissing {
        /// Which one.
        tile: HashTile,
    },
    /// A tile holds other hashes than the entries have.
    #[error("the tile `{tile}` does not hold the hashes of the entries")]
    TileMismatch {
        /// Which one.
        tile: HashTile,
    },
    /// A lease was granted under a hash that an earlier lease has.
    #[error("entry {index} grants a lease that entry {granted_at} granted")]
    LeaseGrantedTwice {
        /// Where.
        index: u64,
        /// Where it was granted first.
        granted_at: u64,
    },
    /// A lease was renewed, released or revoked that was never granted.
    #[error("entry {index} names a lease that was never granted")]
    LeaseNeverGranted {
        /// Where.
        index: u64,
    },
    /// A lease was renewed after it was released or revoked.
    #[error("entry {index} renews a lease that entry {ended_at} ended")]
    LeaseEnded {
        /// Where.
        index: u64,
        /// Where it ended.
        ended_at: u64,
    },
    /// A lease was renewed for another credential than it was granted for.
    #[error("entry {index} renews a lease for another credential")]
    LeaseMoved {
        /// Where.
        index: u64,
    },
    /// A lease lasts longer than any may.
    #[error("entry {index} lends for longer than any lease may last")]
    LeaseTooLong {
        /// Where.
        index: u64,
    },
    /// A credential was lent that is disabled or deleted.
    #[error("entry {index} lends a credential that entry {ended_at} disabled or deleted")]
    CredentialEnded {
        /// Where.
        index: u64,
        /// Where it was disabled or deleted.
        ended_at: u64,
    },
    /// A credential was lent as it was before its latest change.
    #[error("entry {index} lends a credential as it was before entry {changed_at} changed it")]
    CredentialStale {
        /// Where.
        index: u64,
        /// The change that was not regarded.
        changed_at: u64,
    },
    /// A credential was lent in a state that no record brought about.
    #[error("entry {index} lends a credential in a state that is not on record")]
    CredentialNotOnRecord {
        /// Where.
        index: u64,
    },
    /// A change of a credential does not follow from the one before: a record is missing, or it
    /// was changed after its deletion.
    #[error("entry {index} changes a credential out of step")]
    ChangeOutOfStep {
        /// Where.
        index: u64,
    },
    /// A lease was granted or renewed by a virtual key that is revoked.
    #[error("entry {index} lends by a virtual key that entry {revoked_at} revoked")]
    VirtualKeyRevoked {
        /// Where.
        index: u64,
        /// Where it was revoked.
        revoked_at: u64,
    },
    /// A lease was granted or renewed by a virtual key that was blocked.
    #[error("entry {index} lends by a virtual key that entry {blocked_at} blocked")]
    VirtualKeyBlocked {
        /// Where.
        index: u64,
        /// Where it was blocked.
        blocked_at: u64,
    },
    /// A version of a tenant's key was made or deleted that does not follow from those before: a record
    /// is missing.
    #[error("entry {index} changes the versions of a tenant's key out of step")]
    KekOutOfStep {
        /// Where.
        index: u64,
    },
    /// What was lent was opened with a version of the tenant's key that had been deleted, or that no
    /// record brought about.
    #[error(
        "entry {index} lends by a version of a key that is not in use since entry {changed_at}"
    )]
    KekNotInUse {
        /// Where.
        index: u64,
        /// The change of the key that was not regarded.
        changed_at: u64,
    },
    /// A tenant's key was rotated by a broker of its own accord, more often than somebody had asked for all keys
    /// to be.
    #[error("entry {index} rotates a tenant's key that nobody has asked to rotate")]
    KekRotationNotAsked {
        /// Where.
        index: u64,
    },
    /// Shares were destroyed of something that no record before says was erased.
    #[error("entry {index} destroys shares of what no entry before it erased")]
    SharesNotErased {
        /// Where.
        index: u64,
    },
    /// The shares of something that was erased were destroyed again: another's may have been.
    #[error("entry {index} destroys shares that entry {destroyed_at} destroyed")]
    SharesDestroyedTwice {
        /// Where.
        index: u64,
        /// Where they were destroyed first.
        destroyed_at: u64,
    },
    /// A lease was granted or renewed by a broker that no record says was running.
    #[error("entry {index} lends by a broker that is not on record as running")]
    BrokerNotRunning {
        /// Where.
        index: u64,
    },
    /// A lease was sealed to a session that its holder had not opened.
    #[error("entry {index} lends to a session that its holder had not opened")]
    SessionNotOpen {
        /// Where.
        index: u64,
    },
    /// A lease was sealed to a session that was revoked.
    #[error("entry {index} lends to a session that entry {revoked_at} revoked")]
    SessionRevoked {
        /// Where.
        index: u64,
        /// Where it was revoked.
        revoked_at: u64,
    },
    /// A lease went to an identity that was blocked, or to a session from before that.
    #[error("entry {index} lends to an identity that entry {blocked_at} blocked")]
    IdentityBlocked {
        /// Where.
        index: u64,
        /// Where it was blocked.
        blocked_at: u64,
    },
    /// A lease was for a suspended tenant, or of its credential.
    #[error("entry {index} lends for a tenant that entry {suspended_at} suspended")]
    TenantSuspended {
        /// Where.
        index: u64,
        /// Where it was suspended.
        suspended_at: u64,
    },
    /// A lease was granted by a broker that had no access rules on record.
    #[error("entry {index} lends by a broker whose access rules are not on record")]
    PolicyNotOnRecord {
        /// Where.
        index: u64,
    },
    /// A call that needs a second person was approved by who proposed it, or made without having been
    /// approved, or more than once, or too late.
    #[error("entry {index} is a step that needs a second person, and was taken without")]
    NotApproved {
        /// Where.
        index: u64,
    },
    /// A call was made on the word of somebody who was blocked by then, or whom the access rules of the time
    /// did not allow to make or to approve it.
    #[error("entry {index} is a call that its proposer or its approver had no right to any more")]
    ApprovalLapsed {
        /// Where.
        index: u64,
    },
    /// The access rules of the time did not allow the lease, or not for so long.
    #[error("entry {index} lends what the access rules of entry {loaded_at} do not allow")]
    PolicyForbids {
        /// Where.
        index: u64,
        /// Where the broker put the rules on record.
        loaded_at: u64,
    },
}

impl Finding {
    /// The first bad index. A root says only that some record is wrong, so there is none for it.
    pub fn index(&self) -> Option<u64> {
        match self {
            Self::RootMismatch { .. } | Self::Forked { .. } | Self::PruningNotOnRecord { .. } => {
                None
            }
            Self::TileMissing { tile } | Self::TileMismatch { tile } => {
                tile.nodes().next().map(|node| node.range().start)
            }
            Self::Malformed { index, .. }
            | Self::OutOfPlace { index, .. }
            | Self::TimeWentBack { index }
            | Self::BeyondCheckpoint { index }
            | Self::Truncated { index }
            | Self::LeaseGrantedTwice { index, .. }
            | Self::LeaseNeverGranted { index }
            | Self::LeaseEnded { index, .. }
            | Self::LeaseMoved { index }
            | Self::LeaseTooLong { index }
            | Self::CredentialEnded { index, .. }
            | Self::CredentialStale { index, .. }
            | Self::CredentialNotOnRecord { index }
            | Self::ChangeOutOfStep { index }
            | Self::KekOutOfStep { index }
            | Self::KekNotInUse { index, .. }
            | Self::KekRotationNotAsked { index }
            | Self::SharesNotErased { index }
            | Self::SharesDestroyedTwice { index, .. }
            | Self::VirtualKeyRevoked { index, .. }
            | Self::VirtualKeyBlocked { index, .. }
            | Self::BrokerNotRunning { index }
            | Self::SessionNotOpen { index }
            | Self::NotApproved { index }
            | Self::ApprovalLapsed { index }
            | Self::SessionRevoked { index, .. }
            | Self::IdentityBlocked { index, .. }
            | Self::TenantSuspended { index, .. }
            | Self::PolicyNotOnRecord { index }
            | Self::PolicyForbids { index, .. } => Some(*index),
        }
    }

    /// Whether the log itself is authentic, and records something that must not have happened.
    pub fn is_misconduct(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::OutOfPlace { .. }
            | Self::TimeWentBack { .. }
            | Self::BeyondCheckpoint { .. }
            | Self::Truncated { .. }
            | Self::RootMismatch { .. }
            | Self::Forked { .. }
            | Self::PruningNotOnRecord { .. }
            | Self::TileMissing { .. }
            | Self::TileMismatch { .. } => false,
            Self::LeaseGrantedTwice { .. }
            | Self::LeaseNeverGranted { .. }
            | Self::LeaseEnded { .. }
            | Self::LeaseMoved { .. }
            | Self::LeaseTooLong { .. }
            | Self::CredentialEnded { .. }
            | Self::CredentialStale { .. }
            | Self::CredentialNotOnRecord { .. }
            | Self::ChangeOutOfStep { .. }
            | Self::KekOutOfStep { .. }
            | Self::KekNotInUse { .. }
            | Self::KekRotationNotAsked { .. }
            | Self::SharesNotErased { .. }
            | Self::SharesDestroyedTwice { .. }
            | Self::VirtualKeyRevoked { .. }
            | Self::VirtualKeyBlocked { .. }
            | Self::BrokerNotRunning { .. }
            | Self::SessionNotOpen { .. }
            | Self::SessionRevoked { .. }
            | Self::IdentityBlocked { .. }
            | Self::TenantSuspended { .. }
            | Self::PolicyNotOnRecord { .. }
            | Self::NotApproved { .. }
            | Self::ApprovalLapsed { .. }
            | Self::PolicyForbids { .. } => true,
        }
    }
}
