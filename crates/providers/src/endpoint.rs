use http::{HeaderName, HeaderValue};

/// Where a call in one dialect goes, and which header proves that it may.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Paths are appended to it; it does not end in `/`.
    pub base_url: String,
    /// The header that carries the secret.
    pub header_name: HeaderName,
    /// What stands before the secret in that header.
    pub header_prefix: String,
    /// Headers to send when the caller sends none of that name.
    pub extra: Vec<(HeaderName, HeaderValue)>,
}
