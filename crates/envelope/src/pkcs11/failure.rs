use cryptoki::{
    context::Function,
    error::{Error, RvError},
};

use crate::KmsError;

/// What a failed call says about the session and about the answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The session, the login, a handle or the token is gone: everything has to be opened anew.
    Lost(Error),
    /// A wrong tag, or a fault of the token's: the token does not say which.
    Ambiguous(Error),
    /// An answer.
    Answered(KmsError),
}

impl Failure {
    /// What the caller is told when trying again did not help.
    pub(super) fn into_error(self) -> KmsError {
        match self {
            Self::Lost(error) | Self::Ambiguous(error) => KmsError::unavailable(error),
            Self::Answered(error) => error,
        }
    }
}

impl From<Error> for Failure {
    #[expect(clippy::wildcard_enum_match_arm, reason = "there are a hundred, and few say more")]
    fn from(error: Error) -> Self {
        let Error::Pkcs11(code, function) = error else {
            return Self::Answered(KmsError::unavailable(error));
        };
        match code {
            RvError::CryptokiNotInitialized
            | RvError::DeviceError
            | RvError::DeviceRemoved
            | RvError::KeyHandleInvalid
            | RvError::ObjectHandleInvalid
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::SlotIdInvalid
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::UserNotLoggedIn => Self::Lost(error),
            RvError::ActionProhibited
            | RvError::FunctionNotSupported
            | RvError::KeyFunctionNotPermitted
            | RvError::KeySizeRange
            | RvError::KeyTypeInconsistent
            | RvError::MechanismInvalid
            | RvError::PinExpired
            | RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinLocked
            | RvError::RandomNoRng
            | RvError::UserPinNotInitialized => Self::Answered(KmsError::refused(error)),
            _ if !matches!(function, Function::Decrypt) => {
                Self::Answered(KmsError::unavailable(error))
            }
            RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::UnknownErrorCode(AEAD_DECRYPT_FAILED) => Self::Answered(KmsError::Corrupt),
            _ => Self::Ambiguous(error),
        }
    }
}

/// Of PKCS#11 3.0.
const AEAD_DECRYPT_FAILED: u64 = 0x42;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: RvError, function: Function, expected: &str) {
        let sorted = match Failure::from(Error::Pkcs11(code, function)) {
            Failure::Lost(_) => "lost",
            Failure::Ambiguous(_) => "ambiguous",
            Failure::Answered(KmsError::Corrupt) => "corrupt",
            Failure::Answered(KmsError::Refused(_)) => "refused",
            Failure::Answered(KmsError::Unavailable(_)) => "unavailable",
        };
        assert_eq!(sorted, expected, "{code:?} of {function:?}");
    }

    #[test]
    fn errors_are_sorted_by_who_can_do_something_about_them() {
        check(RvError::SessionHandleInvalid, Function::EncryptInit, "lost");
        check(RvError::DeviceRemoved, Function::Decrypt, "lost");
        check(RvError::UserNotLoggedIn, Function::DecryptInit, "lost");
        check(RvError::PinIncorrect, Function::Login, "refused");
        check(RvError::KeyFunctionNotPermitted, Function::EncryptInit, "refused");
        check(RvError::GeneralError, Function::Encrypt, "unavailable");
        check(RvError::HostMemory, Function::OpenSession, "unavailable");
        check(RvError::EncryptedDataInvalid, Function::Decrypt, "corrupt");
        check(RvError::UnknownErrorCode(0x42), Function::Decrypt, "corrupt");
        check(RvError::GeneralError, Function::Decrypt, "ambiguous");
        check(RvError::VendorDefined(0x8000_0001), Function::Decrypt, "ambiguous");
    }
}
