use serde::{Deserialize, de::IgnoredAny};
use thiserror::Error;

use crate::{CredentialForm, CredentialKind};

/// Why a secret cannot be used as what it is said to be. It repeats nothing of the secret.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum UnusableSecret {
    /// There is none.
    #[error("the secret is empty")]
    Empty,
    /// It could not be sent.
    #[error(
        "the secret has characters that cannot stand in a header: a line break or blank may have \
         been copied with it"
    )]
    NotSendable,
    /// It should be the file of a service account, and is no JSON object.
    #[error("the secret is no JSON object: store the whole file of the service account")]
    NotJson,
    /// It is another kind of file, which names addresses or commands to run.
    #[error(
        "the file's `type` is not `service_account`: other kinds are not taken, because they say \
         where to send secrets"
    )]
    NotAServiceAccount,
    /// The file lacks something.
    #[error("the file of the service account has no `{0}`: store the whole file")]
    Lacks(&'static str),
    /// The file names an address for tokens that is not Google's.
    #[error("the `token_uri` of the file is not https://oauth2.googleapis.com/token")]
    ForeignTokenUri,
}

/// What the file of a Google service account says beside its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceAccountFile {
    /// The project that it belongs to.
    pub project_id: String,
    /// Which of the account's keys it holds.
    pub private_key_id: String,
    /// Who it is.
    pub client_email: String,
}

/// The key is looked for and not read, so that no copy of it is made.
#[derive(Deserialize)]
struct File {
    r#type: Option<String>,
    project_id: Option<String>,
    private_key_id: Option<String>,
    private_key: Option<IgnoredAny>,
    client_email: Option<String>,
    token_uri: Option<String>,
}

impl ServiceAccountFile {
    /// Reads a file and checks that it is of a service account and asks for tokens at Google.
    pub fn read(secret: &[u8]) -> Result<Self, UnusableSecret> {
        let file = serde_json::from_slice::<File>(secret).map_err(|_| UnusableSecret::NotJson)?;
        if file.r#type.as_deref() != Some("service_account") {
            return Err(UnusableSecret::NotAServiceAccount);
        }
        if file.token_uri.as_deref() != Some(TOKEN_URI) {
            return Err(match file.token_uri {
                None => UnusableSecret::Lacks("token_uri"),
                Some(_) => UnusableSecret::ForeignTokenUri,
            });
        }
        file.private_key.ok_or(UnusableSecret::Lacks("private_key"))?;
        let lacks = UnusableSecret::Lacks;
        Ok(Self {
            project_id: file.project_id.ok_or(lacks("project_id"))?,
            private_key_id: file.private_key_id.ok_or(lacks("private_key_id"))?,
            client_email: file.client_email.ok_or(lacks("client_email"))?,
        })
    }
}

impl CredentialForm {
    /// Whether a secret can be used at all: what is refused here could never work. Whether it looks
    /// right is another question, which [`Self::check`] answers.
    pub fn usable(&self, secret: &[u8]) -> Result<(), UnusableSecret> {
        match self.kind {
            CredentialKind::None => return Ok(()),
            CredentialKind::GoogleServiceAccount => {
                return ServiceAccountFile::read(secret).map(|_| ());
            }
            CredentialKind::ApiKey
            | CredentialKind::AwsAccessKey
            | CredentialKind::AwsRole
            | CredentialKind::BedrockApiKey
            | CredentialKind::AccessToken
            | CredentialKind::EntraClient
            | CredentialKind::AdminKey
            | CredentialKind::Header => {}
        }
        if secret.is_empty() {
            return Err(UnusableSecret::Empty);
        }
        // A blank inside may be right for a header of one's own, as in `Basic …`.
        let blank = |byte: &u8| *byte == b' ' && self.kind != CredentialKind::Header;
        let wrong = |byte: &u8| !(0x20..=0x7e).contains(byte) || blank(byte);
        if secret.iter().any(wrong) { Err(UnusableSecret::NotSendable) } else { Ok(()) }
    }
}

const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
