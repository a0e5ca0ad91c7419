/// One event in the framing of AWS's event streams: two lengths, their check, headers of type text,
/// the payload, and the check of it all. Numbers are big-endian, checks are CRC-32 as in zlib.
pub(super) fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    const TEXT: u8 = 7;
    // Two lengths and their check before, one check after.
    const AROUND: usize = 4 * 4;
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        head.extend(name.as_bytes());
        head.push(TEXT);
        head.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        head.extend(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = length(AROUND + head.len() + payload.len()).to_vec();
    frame.extend(length(head.len()));
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame.extend(head);
    frame.extend(payload);
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_laid_out_as_aws_says() {
        let framed = frame(&[(":event-type", "a")], b"{}");

        let lengths = [0, 0, 0, 34, 0, 0, 0, 16];
        assert_eq!(framed[..8], lengths);
        assert_eq!(framed[8..12], crc32fast::hash(&lengths).to_be_bytes());
        assert_eq!(&framed[12..28], b"\x0b:event-type\x07\x00\x01a");
        assert_eq!(&framed[28..30], b"{}");
        assert_eq!(framed[30..], crc32fast::hash(&framed[..30]).to_be_bytes());
    }
}
