use std::time::Duration;

use clap::Args;
use domain::VirtualKey;
use strongroom_client::Broker;
use strongroom_proto::v1::{self, RotateVirtualKeyRequest};
use tonic::{Code, Status};

use super::show_once;
use crate::{context::Context, expiry, failure::Failure, names::KeyArg};

#[derive(Args, Debug)]
pub(crate) struct Rotate {
    /// The key's name, such as `acme/{id}`.
    key: KeyArg,
    /// How long older values are accepted: `24h`, `7d`, or `0` to end them at once.
    #[arg(long, default_value = "24h", value_parser = expiry::parse_or_none)]
    overlap: Duration,
    /// Rotate it only if it is still as it was when this was read.
    #[arg(long)]
    etag: Option<String>,
}

impl Rotate {
    pub(super) async fn run(self, context: &Context, broker: &Broker) -> Result<(), Failure> {
        let key = VirtualKey::renew(self.key.0.id.clone()).map_err(|_| Failure::NoRandomness)?;
        let request = RotateVirtualKeyRequest {
            name: self.key.0.to_string(),
            key_sha256: key.digest().as_bytes().to_vec().into(),
            overlap: self.overlap.try_into().ok(),
            etag: self.etag.unwrap_or_default(),
        };
        let rotated = register(broker, request).await?;
        show_once(context, &key, rotated)
    }
}

/// Registers a new value. When an answer is lost the same value is sent again, so that it is not lost
/// with it.
async fn register(
    broker: &Broker,
    request: RotateVirtualKeyRequest,
) -> Result<v1::VirtualKey, Status> {
    let mut keys = broker.virtual_keys();
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match keys.rotate_virtual_key(request.clone()).await {
            Ok(rotated) => return Ok(rotated.into_inner()),
            Err(status) if left > 0 && may_be_done(&status) => {}
            Err(status) => return Err(status),
        }
    }
}

/// Whether the broker may have done it nevertheless.
fn may_be_done(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown)
}

const ATTEMPTS: u32 = 3;
