use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::sleep};

use crate::EgressError;

/// Connects to the first of several checked addresses that answers, after the manner of RFC 8305: the
/// next one is tried when one fails or has not answered for a while, so that a family of addresses
/// which leads nowhere costs little.
pub(crate) async fn first_to_answer(addresses: &[SocketAddr]) -> Result<TcpStream, EgressError> {
    let mut waiting = interleaved(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(address));
        } else if attempts.is_empty() {
            return Err(EgressError::Unreachable(Arc::new(last)));
        }
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(tcp) => return Ok(tcp),
                Err(error) => last = error,
            },
            () = sleep(BETWEEN_ATTEMPTS), if waiting.len() > 0 => {}
        }
    }
}

/// The families by turns, each in the resolver's order, beginning with the one that it puts first.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (same, other): (Vec<SocketAddr>, Vec<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut ordered = Vec::with_capacity(addresses.len());
    while ordered.len() < addresses.len().min(MOST_ATTEMPTS) {
        ordered.extend(same.next());
        ordered.extend(other.next());
    }
    ordered
}

const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(250);
const MOST_ATTEMPTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let all = ["[2a00::1]:1", "[2a00::2]:1", "1.1.1.1:1", "[2a00::3]:1"];
        let all = all.map(|address| address.parse::<SocketAddr>().unwrap());
        assert_eq!(interleaved(&all), [all[0], all[2], all[1], all[3]]);
        assert_eq!(interleaved(&[]), []);
    }

    #[tokio::test]
    async fn none_that_answers_is_an_error_and_not_a_wait() {
        // Bound and not listening: nobody answers there, and nobody else can.
        let bound = tokio::net::TcpSocket::new_v4().unwrap();
        bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed = bound.local_addr().unwrap();
        assert_eq!(first_to_answer(&[closed, closed]).await.unwrap_err().word(), "unreachable");
        assert_eq!(first_to_answer(&[]).await.unwrap_err().word(), "unreachable");
    }
}
