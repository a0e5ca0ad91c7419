use domain::{Dialect, ProviderId, VirtualKeyDigest, VirtualKeyId};
use strongroom_proto::v1::VirtualKeyTarget;

/// What a call needs a lease for. Two keys are equal only if the whole virtual key is: the digest is
/// compared and hashed in full, so that knowing a key's id is worth nothing.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct LeaseKey {
    /// The id inside the virtual key.
    pub virtual_key: VirtualKeyId,
    /// SHA-256 of the whole virtual key.
    pub digest: VirtualKeyDigest,
    /// The format of the call.
    pub dialect: Dialect,
    /// The provider of a native path; otherwise the model decides.
    pub provider: Option<ProviderId>,
    /// The model, with or without a `provider/` in front; empty for calls that name none.
    pub model: String,
}

impl LeaseKey {
    pub(crate) fn target(&self) -> VirtualKeyTarget {
        VirtualKeyTarget {
            virtual_key_id: self.virtual_key.to_string(),
            key_sha256: self.digest.as_bytes().to_vec().into(),
            model: self.model.clone(),
            provider: self.provider.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}
