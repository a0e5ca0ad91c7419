/// How many tokens of each kind a call took. The kinds do not overlap, whatever the provider's own
/// figures do: what was read from a cache is not in `input`, and reasoning is not in `output`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Tokens {
    /// Input that no cache had a part in.
    pub input: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a cache for minutes: five at Anthropic, whatever is usual elsewhere.
    pub cache_write_5m: u64,
    /// Input written to a cache for an hour or longer.
    pub cache_write_1h: u64,
    /// Input that was sound.
    pub audio_input: u64,
    /// Output that the caller got as text.
    pub output: u64,
    /// Output that the model thought and did not say.
    pub reasoning: u64,
    /// Output that was sound.
    pub audio_output: u64,
}

impl Tokens {
    /// All that went in. This is what an input limit counts, and what decides about a price's tier.
    pub const fn all_input(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write_5m)
            .saturating_add(self.cache_write_1h)
            .saturating_add(self.audio_input)
    }

    /// All that came out. This is what an output limit counts.
    pub const fn all_output(&self) -> u64 {
        self.output.saturating_add(self.reasoning).saturating_add(self.audio_output)
    }

    /// Both.
    pub const fn all(&self) -> u64 {
        self.all_input().saturating_add(self.all_output())
    }
}
