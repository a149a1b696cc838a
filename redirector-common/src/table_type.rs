//! Marks the types of table elements.

/// Marks a table type as plain data for aya and asserts its size: a changed size is a changed ABI.
macro_rules! table_type {
    ($type:ty, $size:literal) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        // SAFETY: `repr(C)` or `repr(transparent)` over integers without padding or niches, as the
        // size shows: any bytes are a value.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use table_type;
