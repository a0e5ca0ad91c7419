use domain::Uid;
use subtle::{Choice, ConstantTimeEq as _};

/// The bytes before the ciphertext.
pub(crate) const HEADER: usize = 108;
pub(crate) const SUITE: u16 = 1;
const MAGIC: &[u8; 4] = b"SREV";
const FORMAT: u8 = 1;
const FLAGS: u8 = 0;

/// The fields of a header that differ from one to the next.
pub(crate) struct Header {
    pub(crate) kek_id: Uid,
    pub(crate) kek_version: u32,
    pub(crate) salt: [u8; 32],
    pub(crate) commitment: [u8; 32],
    pub(crate) nonce: [u8; 12],
    pub(crate) ciphertext_length: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(MAGIC);
        bytes[4] = FORMAT;
        bytes[5..7].copy_from_slice(&SUITE.to_be_bytes());
        bytes[7] = FLAGS;
        bytes[8..24].copy_from_slice(self.kek_id.as_bytes());
        bytes[24..28].copy_from_slice(&self.kek_version.to_be_bytes());
        bytes[28..60].copy_from_slice(&self.salt);
        bytes[60..92].copy_from_slice(&self.commitment);
        bytes[92..104].copy_from_slice(&self.nonce);
        bytes[104..108].copy_from_slice(&self.ciphertext_length.to_be_bytes());
        bytes
    }

    /// The fields, and whether everything fixed is as it must be. The answer is a [`Choice`] so that
    /// a reader can go on and refuse at the end, in the same time whatever was wrong.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> (Self, Choice) {
        let mut header = Self {
            kek_id: Uid::from_bytes([0; 16]),
            kek_version: 0,
            salt: [0; 32],
            commitment: [0; 32],
            nonce: [0; 12],
            ciphertext_length: 0,
        };
        let (mut kek_id, mut number) = ([0; 16], [0; 4]);
        kek_id.copy_from_slice(&bytes[8..24]);
        header.kek_id = Uid::from_bytes(kek_id);
        number.copy_from_slice(&bytes[24..28]);
        header.kek_version = u32::from_be_bytes(number);
        header.salt.copy_from_slice(&bytes[28..60]);
        header.commitment.copy_from_slice(&bytes[60..92]);
        header.nonce.copy_from_slice(&bytes[92..104]);
        number.copy_from_slice(&bytes[104..108]);
        header.ciphertext_length = u32::from_be_bytes(number);
        let known = bytes[0..8].ct_eq(&header.encode()[0..8]);
        (header, known)
    }
}

/// Which key a stored secret wants: the key's id and version. `None` when it is too short to say;
/// whether the answer is true, only opening tells.
pub fn key_reference(stored: &[u8]) -> Option<(Uid, u32)> {
    let (header, _) = Header::decode(stored.first_chunk()?);
    Some((header.kek_id, header.kek_version))
}
