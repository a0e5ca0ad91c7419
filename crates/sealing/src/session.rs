use std::fmt;

use domain::{Fields, Key, Secret};
use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable, aead::AesGcm256, kdf::HkdfSha256,
    kem::X25519HkdfSha256,
};
use zeroize::Zeroizing;

use crate::{BoxContext, DoesNotOpen, EstablishError, LeaseContext, SealError, seal};

type Kem = X25519HkdfSha256;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;
type PublicKey = <Kem as hpke::Kem>::PublicKey;
type EncappedKey = <Kem as hpke::Kem>::EncappedKey;

/// Names a session: 16 random bytes, chosen by the broker.
pub type SessionId = [u8; 16];

/// A workload's key pair, made for one process and never stored.
pub struct ClientKeys {
    private: PrivateKey,
    public: [u8; 32],
}

impl ClientKeys {
    /// A new pair from the operating system's random source.
    ///
    /// # Errors
    /// When that source fails; there is nothing to fall back to.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let seed = Key::random()?;
        let (private, _) = Kem::derive_keypair(seed.expose());
        Ok(Self::from_private(private))
    }

    /// What `OpenSessionRequest` carries.
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// The session that the broker established with this key.
    ///
    /// # Errors
    /// When the encapsulated key is malformed. A wrong one gives a session in which nothing opens.
    pub fn open(
        &self,
        encapsulated_key: &[u8],
        session_id: SessionId,
    ) -> Result<Session, EstablishError> {
        let encapsulated = EncappedKey::from_bytes(encapsulated_key)
            .map_err(|_| EstablishError::MalformedPublicKey)?;
        let context = hpke::setup_receiver::<AesGcm256, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.private,
            &encapsulated,
            &info(session_id),
        )
        .map_err(|_| EstablishError::MalformedPublicKey)?;
        Session::from_exporter(session_id, |label, key| context.export(label, key))
    }

    pub(crate) fn from_private(private: PrivateKey) -> Self {
        let mut public = [0; 32];
        Kem::sk_to_pk(&private).write_exact(&mut public);
        Self { private, public }
    }
}

impl fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKeys(…)")
    }
}

/// What broker and workload share: one key for leases, which only the broker seals, and one for
/// boxes, which only the workload seals.
pub struct Session {
    id: SessionId,
    lease: Key,
    ingest: Key,
}

impl Session {
    /// The broker's end: a session with the holder of `client_public_key`, and the encapsulated key
    /// from which the holder derives the same.
    ///
    /// # Errors
    /// When the key is not 32 bytes, or of low order.
    pub fn establish(
        client_public_key: &[u8],
        session_id: SessionId,
    ) -> Result<([u8; 32], Self), EstablishError> {
        let public = parse_public_key(client_public_key)?;
        let (encapsulated, context) = hpke::setup_sender::<AesGcm256, HkdfSha256, Kem>(
            &OpModeS::Base,
            &public,
            &info(session_id),
        )
        .map_err(|_| EstablishError::MalformedPublicKey)?;
        Self::from_sender(session_id, &encapsulated, |label, key| context.export(label, key))
    }

    /// The session's ID.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Seals a lease's secret to the workload. The caller never seals twice with one lease ID and
    /// one number of renewals: both derive the key, which must be used once.
    pub fn seal_lease(
        &self,
        context: &LeaseContext<'_>,
        secret: &Secret,
    ) -> Result<Vec<u8>, SealError> {
        seal::seal(&self.lease, &context.key_info(), &context.associated_data(), secret)
    }

    /// Opens a lease's secret, if every word of the context is what the broker sealed.
    pub fn unseal_lease(
        &self,
        context: &LeaseContext<'_>,
        sealed: &[u8],
    ) -> Result<Secret, DoesNotOpen> {
        seal::open(&self.lease, &context.key_info(), &context.associated_data(), sealed)
    }

    /// Seals a secret on its way in. One box ID is used once.
    pub fn seal_box(
        &self,
        context: &BoxContext<'_>,
        secret: &Secret,
    ) -> Result<Vec<u8>, SealError> {
        seal::seal(&self.ingest, &context.key_info(), &context.associated_data(), secret)
    }

    /// Opens a box. The same box opens as often as it is presented; whoever cares that it was
    /// presented before (the broker) remembers the box IDs of a session.
    pub fn open_box(&self, context: &BoxContext<'_>, sealed: &[u8]) -> Result<Secret, DoesNotOpen> {
        seal::open(&self.ingest, &context.key_info(), &context.associated_data(), sealed)
    }

    /// The broker's end with a random source of the caller's: for vectors only.
    #[cfg(test)]
    pub(crate) fn establish_with(
        client_public_key: &[u8],
        session_id: SessionId,
        random: &mut impl hpke::rand_core::CryptoRng,
    ) -> Result<([u8; 32], Self), EstablishError> {
        let public = parse_public_key(client_public_key)?;
        let (encapsulated, context) = hpke::setup_sender_with_rng::<AesGcm256, HkdfSha256, Kem>(
            &OpModeS::Base,
            &public,
            &info(session_id),
            random,
        )
        .map_err(|_| EstablishError::MalformedPublicKey)?;
        Self::from_sender(session_id, &encapsulated, |label, key| context.export(label, key))
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> (&[u8; 32], &[u8; 32]) {
        (self.lease.expose(), self.ingest.expose())
    }

    fn from_sender(
        id: SessionId,
        encapsulated: &EncappedKey,
        export: impl Fn(&[u8], &mut [u8]) -> Result<(), hpke::HpkeError>,
    ) -> Result<([u8; 32], Self), EstablishError> {
        let mut bytes = [0; 32];
        encapsulated.write_exact(&mut bytes);
        Ok((bytes, Self::from_exporter(id, export)?))
    }

    fn from_exporter(
        id: SessionId,
        export: impl Fn(&[u8], &mut [u8]) -> Result<(), hpke::HpkeError>,
    ) -> Result<Self, EstablishError> {
        let key = |label: &[u8]| {
            let mut bytes = Zeroizing::new([0; 32]);
            export(label, bytes.as_mut_slice()).map_err(|_| EstablishError::MalformedPublicKey)?;
            Ok(Key::take(&mut bytes))
        };
        Ok(Self { id, lease: key(LEASE)?, ingest: key(INGEST)? })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(…)")
    }
}

const LEASE: &[u8] = b"strongroom session v1 lease";
const INGEST: &[u8] = b"strongroom session v1 ingest";

/// Both ends and the session's ID, so that neither end can be led into another's session.
fn info(session_id: SessionId) -> Vec<u8> {
    Fields::new("strongroom session v1")
        .field(1, session_id)
        .field(2, "broker")
        .field(3, "workload")
        .finish()
}

fn parse_public_key(bytes: &[u8]) -> Result<PublicKey, EstablishError> {
    PublicKey::from_bytes(bytes).map_err(|_| EstablishError::MalformedPublicKey)
}

#[cfg(test)]
mod tests;
