use domain::{VirtualKey, VirtualKeyDigest, VirtualKeyId};
use http::HeaderMap;

use crate::refusal::Refusal;

/// The virtual key of a request, without the key itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Presented {
    pub(crate) id: VirtualKeyId,
    pub(crate) digest: VirtualKeyDigest,
}

impl Presented {
    /// Reads the key from wherever SDKs put theirs. Two keys are refused: whoever checks one and
    /// uses the other can be fooled.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut found = None;
        for (name, prefix) in PLACES {
            for value in headers.get_all(name) {
                if found.replace((value, prefix)).is_some() {
                    return Err(Refusal::bad_request(
                        "more_than_one_key",
                        "send the virtual key once: in `Authorization: Bearer`, `x-api-key`, \
                         `api-key` or `x-goog-api-key`, and in no other of them",
                    ));
                }
            }
        }
        let (value, prefix) = found.ok_or_else(missing)?;
        let text = value.to_str().map_err(|_| Refusal::key())?;
        let key = strip_scheme(text, prefix).ok_or_else(Refusal::key)?;
        let (id, digest) = VirtualKey::inspect(key).map_err(|_| Refusal::key())?;
        Ok(Self { id, digest })
    }
}

/// The rest after the scheme, whose letters may be of either case (RFC 9110 §11.1).
fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn missing() -> Refusal {
    let message = "the request has no key: send your virtual key (vk_…) as `Authorization: Bearer`, \
                   `x-api-key`, `api-key` or `x-goog-api-key`";
    Refusal { message: message.into(), ..Refusal::key() }
}

const PLACES: [(&str, &str); 4] =
    [("authorization", "Bearer "), ("x-api-key", ""), ("api-key", ""), ("x-goog-api-key", "")];

#[cfg(test)]
mod tests {
    use http::{HeaderName, StatusCode};

    use super::*;

    fn read(headers: &[(&str, &str)]) -> Result<Presented, StatusCode> {
        let parse = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        Presented::read(&headers.iter().map(parse).collect()).map_err(|refusal| refusal.status)
    }

    #[test]
    fn a_key_is_found_where_each_sdk_puts_it() {
        let key = VirtualKey::generate().unwrap();
        let text = key.expose();
        for (name, value) in [
            ("authorization", format!("Bearer {text}")),
            ("authorization", format!("bearer  {text}")),
            ("x-api-key", text.to_owned()),
            ("api-key", text.to_owned()),
            ("x-goog-api-key", text.to_owned()),
        ] {
            let presented = read(&[(name, &value)]).unwrap();
            assert_eq!(&presented.id, key.id());
            assert_eq!(presented.digest, key.digest());
        }
    }

    #[test]
    fn two_keys_are_refused_even_when_they_are_one() {
        let key = VirtualKey::generate().unwrap();
        let text = key.expose();
        let bearer = format!("Bearer {text}");
        let two = [("x-api-key", text), ("authorization", &*bearer)];
        assert_eq!(read(&two), Err(StatusCode::BAD_REQUEST));
        assert_eq!(read(&[("x-api-key", text), ("x-api-key", text)]), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn whatever_is_wrong_with_a_key_the_answer_is_the_same() {
        let key = VirtualKey::generate().unwrap();
        let mut wrong = key.expose().to_owned();
        wrong.pop();
        let answer = |value: &str| {
            Presented::read(
                &[("x-api-key".parse().unwrap(), value.parse().unwrap())].into_iter().collect(),
            )
        };
        for value in ["sk-proj-abcdefghijklmnopqrstuvwxyz", "", "vk_", &*wrong] {
            assert_eq!(answer(value), Err(Refusal::key()), "{value}");
        }
        assert_eq!(read(&[("authorization", "Basic abc")]), Err(StatusCode::UNAUTHORIZED));
        assert_eq!(read(&[]), Err(StatusCode::UNAUTHORIZED));
    }
}
