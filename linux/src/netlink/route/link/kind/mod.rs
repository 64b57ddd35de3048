//! One file for each kind of link that is made here, named with the kernel's word for it (`IFLA_INFO_KIND`).

pub(super) mod bridge;
pub(super) mod veth;
