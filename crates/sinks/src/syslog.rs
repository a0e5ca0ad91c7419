use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf},
    time::timeout,
};

use crate::{
    Event, Format, Sink, SinkError,
    rfc5424::{frame, hostname},
    wire::{Place, Wire},
};

/// Messages of RFC 5424 over one connection, made anew when it is gone.
#[derive(Debug)]
pub(crate) struct SyslogSink {
    place: Place,
    format: Format,
    hostname: String,
    open: Option<Wire>,
    patience: Duration,
}

impl SyslogSink {
    pub(crate) fn new(place: Place, format: Format, patience: Duration) -> Self {
        let node = rustix::system::uname();
        let hostname = hostname(&node.nodename().to_string_lossy());
        Self { place, format, hostname, open: None, patience }
    }

    fn broken(&self, source: io::Error) -> SinkError {
        SinkError::Broken { address: self.place.address.clone(), source }
    }
}

#[async_trait]
impl Sink for SyslogSink {
    async fn send(&mut self, batch: &[Event]) -> Result<u64, SinkError> {
        // Taken out, and put back only after the last octet: on whatever ends this before, half a
        // frame may be on the way, so that the connection is of no more use.
        let mut wire = match self.open.take() {
            Some(mut wire) => {
                check_open(&mut wire).map_err(|error| self.broken(error))?;
                wire
            }
            None => self.place.connect().await?,
        };
        let mut frames = String::new();
        for event in batch {
            frames.push_str(&frame(event, self.format, &self.hostname));
        }
        let sending = async {
            wire.write_all(frames.as_bytes()).await?;
            wire.flush().await
        };
        match timeout(self.patience, sending).await {
            Ok(Ok(())) => {
                self.open = Some(wire);
                Ok(0)
            }
            Ok(Err(error)) => Err(self.broken(error)),
            Err(_) => Err(SinkError::TimedOut(self.place.address.clone())),
        }
    }

    fn acknowledges(&self) -> bool {
        false
    }
}

/// Notices a connection that the receiver has ended. It never says anything, so that whatever can be
/// read means the end; a first write to such a connection would still succeed.
fn check_open(wire: &mut Wire) -> io::Result<()> {
    let mut bytes = [0; 512];
    let mut context = Context::from_waker(Waker::noop());
    loop {
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *wire).poll_read(&mut context, &mut buffer) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it ended the connection",
                ));
            }
            // Nothing of what a receiver may say means anything here.
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Err(error),
        }
    }
}
