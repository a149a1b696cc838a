//! Short texts that global functions can take.

/// A text of up to 16 bytes, padded with spaces, in two words.
#[derive(Clone, Copy)]
pub(super) struct Label([u64; 2]);

impl Label {
    pub(super) const fn new(text: &str) -> Self {
        let (text, mut bytes) = (text.as_bytes(), [b' '; 16]);
        let mut at = 0;
        while at < text.len() {
            bytes[at] = text[at];
            at += 1;
        }
        // SAFETY: both types have 16 bytes, and any bytes are a value of either.
        Self(unsafe { core::mem::transmute::<[u8; 16], [u64; 2]>(bytes) })
    }

    /// The two words.
    #[inline(always)]
    pub(super) const fn to_words(self) -> [u64; 2] {
        self.0
    }
}
