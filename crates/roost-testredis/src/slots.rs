//! Which slot of a cluster a key is in.

/// How many slots a cluster has.
pub const SLOTS: u16 = 16_384;

/// The slot of a key: that of what stands between its first `{` and the next `}`, if anything does.
pub fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let hashed = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc16(hashed.as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, which the cluster specification names.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_slot_that_redis_says() {
        // CLUSTER KEYSLOT of Redis 7.
        assert_eq!(slot_of("123456789"), 12_739);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(slot_of("roost:1:{foo}:x"), 12_182);
        assert_eq!(slot_of("a{}foo"), slot_of("a{}foo"));
        assert_ne!(slot_of("a{}foo"), slot_of(""));
    }
}
