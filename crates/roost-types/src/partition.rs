//! Which of the hub's 256 partitions a device lives in. The hash is part of the stored format:
//! changing it would lose every record, so it is pinned by a test.

use std::fmt;

use crate::DeviceKey;

/// How many partitions there are; fixed in the store at first start.
pub const PARTITIONS: u16 = 256;

/// One of the [`PARTITIONS`] that devices are spread over; all that concerns one device is in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u8);

impl Partition {
    /// The partition of a device.
    pub fn of(key: &DeviceKey) -> Self {
        // FNV-1a over a length-prefixed tenant (so that "ab"+"c" and "a"+"bc" differ), then the
        // MurmurHash3 finaliser, since FNV's low bits alone depend only on the low bits of the input.
        let tenant = key.tenant.as_str().as_bytes();
        let length = u8::try_from(tenant.len()).expect("an id has at most 128 bytes");
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for &byte in [length].iter().chain(tenant).chain(key.device.as_str().as_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Self(hash.to_be_bytes()[0])
    }

    /// Every partition once, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// From its number.
    pub fn new(number: u8) -> Self {
        Self(number)
    }

    /// Its number, 0 to 255.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceId, TenantId};

    fn of(tenant: &str, device: &str) -> u8 {
        let key = DeviceKey::new(TenantId::new(tenant).unwrap(), DeviceId::new(device).unwrap());
        Partition::of(&key).number()
    }

    #[test]
    fn the_hash_is_pinned() {
        let found = [of("default", "thermo-1"), of("default", "thermo-2"), of("acme", "a")];
        assert_eq!(found, PINNED);
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }

    const PINNED: [u8; 3] = [129, 100, 197];

    #[test]
    fn numbered_devices_spread_evenly() {
        let mut counts = [0u32; 256];
        for n in 0..25_600 {
            counts[usize::from(of("default", &format!("device-{n}")))] += 1;
        }
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*least > 60 && *most < 150, "{least}..{most} of an expected 100");
    }
}
