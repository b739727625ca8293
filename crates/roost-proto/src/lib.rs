#![doc = include_str!("../README.md")]

pub mod convert;
mod redacted;

/// The packages for back ends.
pub mod control {
    /// `roost.control.v1`: commands, devices, messages and the cluster, over gRPC.
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::excessive_nesting,
        clippy::allow_attributes_without_reason,
        reason = "generated from proto/, where it is documented"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/roost.control.v1.rs"));
    }
}

/// The packages for devices.
pub mod device {
    /// `roost.device.v1`: the frames of the device protocol, for the subprotocol `roost.v1.proto`.
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::excessive_nesting,
        clippy::allow_attributes_without_reason,
        reason = "generated from proto/, where it is documented"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/roost.device.v1.rs"));
    }
}

/// The packages that nodes of one hub use among themselves; no interface for anybody else.
pub mod internal {
    /// `roost.internal.v1`: what nodes send each other over the bus.
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::excessive_nesting,
        clippy::allow_attributes_without_reason,
        reason = "generated from proto/, where it is documented"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/roost.internal.v1.rs"));
    }
}

/// An encoded `google.protobuf.FileDescriptorSet` of all public packages and what they import, for
/// server reflection. Internal packages are left out.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
