use crate::{
    Event, Format,
    event::rfc3339,
    meaning::{Weight, weight},
};

/// A record as a syslog message of RFC 5424, framed by its length in octets, which is how RFC 6587
/// section 3.4.1 carries it over TCP and RFC 5425 section 4.3 over TLS.
pub(crate) fn frame(event: &Event, format: Format, hostname: &str) -> String {
    let message = format!("{} {}", header(event, hostname), format.line(event));
    format!("{} {message}", message.len())
}

/// The name as a header may hold it: 255 printable characters of ASCII at most, or the dash that
/// stands for none.
pub(crate) fn hostname(name: &str) -> String {
    let name: String = name.chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

fn header(event: &Event, hostname: &str) -> String {
    let severity = match weight(event) {
        Weight::Routine => 6,
        Weight::Notice => 5,
        Weight::Warning => 4,
        Weight::Alarm => 1,
    };
    let priority = LOG_AUDIT * 8 + severity;
    // The longest name of a kind has 19 letters; the field takes 32.
    let (time, kind) = (rfc3339(event.time), event.kind.as_str_name());
    format!("<{priority}>1 {time} {hostname} strongroom - {kind} -")
}

/// The facility of log audits.
const LOG_AUDIT: u8 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_is_one_word() {
        assert_eq!(hostname("broker-1.acme"), "broker-1.acme");
        assert_eq!(hostname("a b\n\u{e4}"), "ab");
        assert_eq!(hostname(" "), "-");
        assert_eq!(hostname(&"x".repeat(300)).len(), 255);
    }
}
