/// The canonical encoding under every MAC, AEAD and key derivation: a label, a count, then fields in
/// ascending order of their tags, each with its length. Two different values never encode alike.
///
/// The bytes are `label ‖ u16 count ‖ { u16 tag ‖ u32 length ‖ bytes }…`, big-endian.
#[derive(Clone, Debug)]
pub struct Fields {
    bytes: Vec<u8>,
    count_at: usize,
    count: u16,
    last_tag: Option<u16>,
}

impl Fields {
    /// Starts an encoding; the label keeps encodings of different purposes apart.
    pub fn new(label: &str) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(label.as_bytes());
        let count_at = bytes.len();
        bytes.extend_from_slice(&[0, 0]);
        Self { bytes, count_at, count: 0, last_tag: None }
    }

    /// Adds a field. Tags must ascend; that is a matter of the calling code, not of input.
    #[must_use]
    pub fn field(mut self, tag: u16, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        debug_assert!(self.last_tag.is_none_or(|last| last < tag), "tags must ascend");
        // A value of 4 GiB cannot arise: every message that reaches here is bounded far below.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&tag.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.last_tag = Some(tag);
        self.count += 1;
        self
    }

    /// Adds a number, as eight bytes.
    #[must_use]
    pub fn number(self, tag: u16, value: u64) -> Self {
        self.field(tag, value.to_be_bytes())
    }

    /// The finished encoding.
    pub fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.bytes.get_mut(self.count_at..self.count_at + 2) {
            count.copy_from_slice(&self.count.to_be_bytes());
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_flow_into_each_other() {
        let one = Fields::new("l").field(1, "ab").field(2, "c").finish();
        let other = Fields::new("l").field(1, "a").field(2, "bc").finish();
        assert_ne!(one, other);
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let bytes = Fields::new("x").field(1, [9]).number(3, 5).finish();
        let expected =
            [&b"x"[..], &[0, 2], &[0, 1, 0, 0, 0, 1, 9], &[0, 3, 0, 0, 0, 8], &5_u64.to_be_bytes()]
                .concat();
        assert_eq!(bytes, expected);
    }
}
