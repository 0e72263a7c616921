//! Values drawn from a fuzzer's bytes, one after the other. Where they have ended every value is the least one, so that any bytes are a
//! whole input.

/// What is left of the bytes.
#[derive(Debug, Clone)]
pub struct Drawn<'a>(&'a [u8]);

impl<'a> Drawn<'a> {
    /// From the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether there is another byte.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes; zeros where they have ended.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut drawn = [0; N];
        let (now, rest) = self.0.split_at(N.min(self.0.len()));
        drawn[..now.len()].copy_from_slice(now);
        self.0 = rest;
        drawn
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next two bytes.
    pub fn number(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Below `count`, which is above 0; one byte for up to 256, two beyond.
    pub fn below(&mut self, count: usize) -> usize {
        let drawn: usize = if count <= 256 { self.byte().into() } else { self.number().into() };
        drawn % usize::max(count, 1)
    }

    /// The next four bytes as they are: any number, infinite ones and those that are none among them.
    pub fn float(&mut self) -> f32 {
        f32::from_le_bytes(self.array())
    }

    /// From 0 to 1, in 256 steps.
    pub fn share(&mut self) -> f32 {
        f32::from(self.byte()) / 255.0
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
