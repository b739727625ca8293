//! Masking (RFC 6455 §5.3), a machine word at a time.

/// XORs `data` with the repeated `key`, in place; the same call masks and unmasks. `data[0]`
/// meets `key[0]`: rotate the key first where the data starts inside a frame.
pub fn apply_mask(data: &mut [u8], key: [u8; 4]) {
    // Sixteen bytes a step: the compiler makes one vector operation of it.
    let word = u32::from_ne_bytes(key);
    let wide = u128::from(word) | u128::from(word) << 32;
    let wide = wide | wide << 64;
    let mut chunks = data.chunks_exact_mut(16);
    for chunk in &mut chunks {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u128::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The key for the bytes that follow `done` bytes masked with `key`.
pub(super) fn advance_key(mut key: [u8; 4], done: usize) -> [u8; 4] {
    key.rotate_left(done % 4);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_phase_equals_the_definition() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..70_usize {
            for split in 0..=len {
                let plain: Vec<u8> = (0..len).map(|i| u8::try_from(i * 3).unwrap()).collect();
                let expected: Vec<u8> =
                    plain.iter().enumerate().map(|(i, b)| b ^ key[i % 4]).collect();
                let mut data = plain.clone();
                let (first, second) = data.split_at_mut(split);
                apply_mask(first, key);
                apply_mask(second, advance_key(key, split));
                assert_eq!(data, expected, "length {len}, split at {split}");
            }
        }
    }
}
