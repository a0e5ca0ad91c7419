use domain::Secret;

use crate::leak::Leak;

/// Takes out of a provider's error text whatever may be part of a credential: the leased secret, keys
/// masked or whole, hashes, and the names of accounts.
pub(crate) fn redact(text: &str, secret: &Secret, leak: &Leak) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (between, after) = rest.split_at(start);
        redacted.push_str(between);
        let end = after.find(|character| !is_word(character)).unwrap_or(after.len());
        let (word, after) = after.split_at(end);
        // A full stop at its end belongs to the sentence.
        let bare = word.trim_end_matches(['.', ':']);
        redacted.push_str(if is_telling(bare, secret, leak) { "[redacted]" } else { bare });
        redacted.push_str(word.get(bare.len()..).unwrap_or_default());
        rest = after;
    }
    redacted.push_str(rest);
    // What is left may still hold a secret that has other characters in it.
    if leak.is_in(redacted.as_bytes()) { "[redacted]".to_owned() } else { redacted }
}

fn is_telling(word: &str, secret: &Secret, leak: &Leak) -> bool {
    word.contains("***")
        || word.contains('…')
        || leak.is_in(word.as_bytes())
        || (word.len() >= 12 && KEY_PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        || (word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        || shares_a_part(word.as_bytes(), secret.expose())
        || is_masked_by_dots(word, secret.expose())
}

/// Whether eight bytes of the secret stand in the word.
fn shares_a_part(word: &[u8], secret: &[u8]) -> bool {
    word.windows(PART).any(|part| secret.windows(PART).any(|known| known == part))
}

/// `sk-...abcd`
fn is_masked_by_dots(word: &str, secret: &[u8]) -> bool {
    word.split_once("..").is_some_and(|(_, end)| {
        let end = end.trim_start_matches('.').as_bytes();
        end.len() >= 3 && secret.ends_with(end)
    })
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_*.…+/=%:".contains(character)
}

const PART: usize = 8;
const KEY_PREFIXES: [&str; 12] =
    ["sk-", "sk_", "rk-", "pk-", "vk_", "xai-", "gsk_", "AIza", "ya29.", "eyJ", "org-", "proj_"];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let secret = Secret::new(b"sk-proj-SeCrEtPaRt0123456789WXYZ".to_vec());
        assert_eq!(redact(text, &secret, &Leak::new(&secret)), expected);
    }

    #[test]
    fn what_looks_like_a_credential_is_taken_out() {
        check(
            "Incorrect API key provided: sk-proj-********WXYZ. You can",
            "Incorrect API key provided: [redacted]. You can",
        );
        check("key sk-proj-SeCrEtPaRt0123456789WXYZ", "key [redacted]");
        check("key 'sk-...WXYZ'", "key '[redacted]'");
        check("key sk-ant-api03-anotherone", "key [redacted]");
        check("ends in Part: PaRt012345 ok", "ends in Part: [redacted] ok");
        check("in organization org-abcdefgh1234 on tokens", "in organization [redacted] on tokens");
        check(&format!("Token {}", "a1".repeat(32)), "Token [redacted]");
        check("(a=c2stcHJvai1TZUNyRXRQYVJ0MDEyMzQ1Njc4OVdYWVo=)", "([redacted])");
    }

    #[test]
    fn plain_words_stay() {
        for text in [
            "The model `gpt-9` does not exist or you do not have access to it.",
            "max_tokens: 100000 > 8192, which is the maximum for claude-opus-5",
            "See https://platform.openai.com/docs/guides/error-codes/api-errors.",
            "req_011CSHoEeqs5C35K2UUqR7Fy … wait",
            "",
        ] {
            check(text, &text.replace('…', "[redacted]"));
        }
    }
}
