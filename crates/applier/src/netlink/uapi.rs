//! The constants of `linux/netfilter/nf_tables.h`, `nfnetlink_conntrack.h`, `nfnetlink.h` and `netlink.h` that libc
//! does not have, by enum.

/// Message types within the nf_tables subsystem (`enum nf_tables_msg_types`).
pub(super) mod message {
    pub(in crate::netlink) const NEWTABLE: u8 = 0;
    pub(in crate::netlink) const GETTABLE: u8 = 1;
    pub(in crate::netlink) const NEWCHAIN: u8 = 3;
    pub(in crate::netlink) const GETCHAIN: u8 = 4;
    pub(in crate::netlink) const DELCHAIN: u8 = 5;
    pub(in crate::netlink) const NEWRULE: u8 = 6;
    pub(in crate::netlink) const GETRULE: u8 = 7;
    pub(in crate::netlink) const NEWSET: u8 = 9;
    pub(in crate::netlink) const GETSET: u8 = 10;
    pub(in crate::netlink) const DELSET: u8 = 11;
    pub(in crate::netlink) const NEWSETELEM: u8 = 12;
    pub(in crate::netlink) const GETSETELEM: u8 = 13;
    pub(in crate::netlink) const DELSETELEM: u8 = 14;
    pub(in crate::netlink) const NEWGEN: u8 = 15;
    pub(in crate::netlink) const GETGEN: u8 = 16;
    pub(in crate::netlink) const NEWOBJ: u8 = 18;
    pub(in crate::netlink) const GETOBJ: u8 = 19;
    pub(in crate::netlink) const NEWFLOWTABLE: u8 = 22;
    pub(in crate::netlink) const GETFLOWTABLE: u8 = 23;
    pub(in crate::netlink) const DELFLOWTABLE: u8 = 24;
}

/// `enum nfnl_batch_attributes`
pub(super) mod batch {
    pub(in crate::netlink) const GENID: u16 = 1;
}

/// `enum nlmsgerr_attrs`
pub(super) mod error {
    pub(in crate::netlink) const OFFSET: u16 = 2;
}

/// `enum nft_gen_attributes`
pub(super) mod generation {
    pub(in crate::netlink) const ID: u16 = 1;
    pub(in crate::netlink) const PROC_PID: u16 = 2;
    pub(in crate::netlink) const PROC_NAME: u16 = 3;
}

/// `enum nft_list_attributes`
pub(super) const LIST_ELEM: u16 = 1;

/// `enum nft_data_attributes`
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;

/// `enum nft_verdict_attributes`
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_CHAIN: u16 = 2;

/// `NFT_REG_VERDICT` and `NFT_REG_1`, `enum nft_registers`
pub(super) const REGISTER_VERDICT: u32 = 0;
pub(super) const REGISTER_1: u32 = 1;

/// `enum nft_table_attributes` and `enum nft_table_flags`
pub(super) mod table {
    pub(in crate::netlink) const NAME: u16 = 1;
    pub(in crate::netlink) const FLAGS: u16 = 2;
    pub(in crate::netlink) const USERDATA: u16 = 6;
    pub(in crate::netlink) const OWNER: u16 = 7;
    pub(in crate::netlink) const DORMANT: u32 = 1;
}

/// `enum nft_chain_attributes`, `enum nft_hook_attributes` and `enum nf_dev_hooks`
pub(super) mod chain {
    pub(in crate::netlink) const TABLE: u16 = 1;
    pub(in crate::netlink) const NAME: u16 = 3;
    pub(in crate::netlink) const HOOK: u16 = 4;
    pub(in crate::netlink) const POLICY: u16 = 5;
    pub(in crate::netlink) const TYPE: u16 = 7;
    pub(in crate::netlink) const COUNTERS: u16 = 8;
    pub(in crate::netlink) const FLAGS: u16 = 10;
    pub(in crate::netlink) const USERDATA: u16 = 12;
    /// `NFT_CHAIN_BASE`, `enum nft_chain_flags`
    pub(in crate::netlink) const BASE: u32 = 1;
    pub(in crate::netlink) const HOOK_NUMBER: u16 = 1;
    pub(in crate::netlink) const HOOK_PRIORITY: u16 = 2;
    pub(in crate::netlink) const HOOK_DEVICE: u16 = 3;
    pub(in crate::netlink) const HOOK_DEVICES: u16 = 4;
    pub(in crate::netlink) const NETDEV_INGRESS: i32 = 0;
    pub(in crate::netlink) const NETDEV_EGRESS: i32 = 1;
}

/// `enum nft_set_attributes` and its nested descriptions
pub(super) mod set {
    pub(in crate::netlink) const TABLE: u16 = 1;
    pub(in crate::netlink) const NAME: u16 = 2;
    pub(in crate::netlink) const FLAGS: u16 = 3;
    pub(in crate::netlink) const KEY_TYPE: u16 = 4;
    pub(in crate::netlink) const KEY_LEN: u16 = 5;
    pub(in crate::netlink) const DATA_TYPE: u16 = 6;
    pub(in crate::netlink) const DATA_LEN: u16 = 7;
    pub(in crate::netlink) const POLICY: u16 = 8;
    pub(in crate::netlink) const DESC: u16 = 9;
    pub(in crate::netlink) const ID: u16 = 10;
    pub(in crate::netlink) const TIMEOUT: u16 = 11;
    pub(in crate::netlink) const GC_INTERVAL: u16 = 12;
    pub(in crate::netlink) const USERDATA: u16 = 13;
    pub(in crate::netlink) const OBJ_TYPE: u16 = 15;
    pub(in crate::netlink) const EXPR: u16 = 17;
    pub(in crate::netlink) const EXPRESSIONS: u16 = 18;
    /// `NFTA_SET_COUNT`, which older kernels do not send
    pub(in crate::netlink) const COUNT: u16 = 20;
    pub(in crate::netlink) const DESC_SIZE: u16 = 1;
    pub(in crate::netlink) const DESC_CONCAT: u16 = 2;
    pub(in crate::netlink) const FIELD_LEN: u16 = 1;
}

/// `enum nft_set_elem_list_attributes`
pub(super) mod elements {
    pub(in crate::netlink) const SET: u16 = 2;
    pub(in crate::netlink) const LIST: u16 = 3;
}

/// `enum nft_set_elem_attributes`
pub(super) mod element {
    pub(in crate::netlink) const KEY: u16 = 1;
    pub(in crate::netlink) const DATA: u16 = 2;
    pub(in crate::netlink) const FLAGS: u16 = 3;
    pub(in crate::netlink) const USERDATA: u16 = 6;
    pub(in crate::netlink) const EXPR: u16 = 7;
    pub(in crate::netlink) const PAD: u16 = 8;
    pub(in crate::netlink) const KEY_END: u16 = 10;
    /// `NFT_SET_ELEM_CATCHALL`, `enum nft_set_elem_flags`
    pub(in crate::netlink) const CATCH_ALL: u32 = 2;
}

/// `enum nft_rule_attributes`
pub(super) mod rule {
    pub(in crate::netlink) const TABLE: u16 = 1;
    pub(in crate::netlink) const CHAIN: u16 = 2;
    pub(in crate::netlink) const HANDLE: u16 = 3;
    pub(in crate::netlink) const EXPRESSIONS: u16 = 4;
    pub(in crate::netlink) const COMPAT: u16 = 5;
    pub(in crate::netlink) const USERDATA: u16 = 7;
}

/// `enum nft_flowtable_attributes`, and below it `enum nft_flowtable_hook_attributes` and `enum nft_devices_attributes`
pub(super) mod flowtable {
    pub(in crate::netlink) const TABLE: u16 = 1;
    pub(in crate::netlink) const NAME: u16 = 2;
    pub(in crate::netlink) const HOOK: u16 = 3;
    pub(in crate::netlink) const FLAGS: u16 = 7;
    pub(in crate::netlink) const HOOK_NUMBER: u16 = 1;
    pub(in crate::netlink) const HOOK_PRIORITY: u16 = 2;
    pub(in crate::netlink) const HOOK_DEVICES: u16 = 3;
    pub(in crate::netlink) const DEVICE_NAME: u16 = 1;
    /// `NF_NETDEV_INGRESS`, `enum nf_dev_hooks`
    pub(in crate::netlink) const INGRESS: u32 = 0;
    /// `NF_IP_PRI_FILTER`, nft's `filter`
    pub(in crate::netlink) const FILTER: u32 = 0;
}

/// `enum nft_object_attributes` and `NFT_OBJECT_*`
pub(super) mod object {
    pub(in crate::netlink) const TABLE: u16 = 1;
    pub(in crate::netlink) const NAME: u16 = 2;
    pub(in crate::netlink) const TYPE: u16 = 3;
    pub(in crate::netlink) const COUNTER: u32 = 1;
    pub(in crate::netlink) const QUOTA: u32 = 2;
    pub(in crate::netlink) const CT_HELPER: u32 = 3;
    pub(in crate::netlink) const LIMIT: u32 = 4;
    pub(in crate::netlink) const CT_TIMEOUT: u32 = 7;
    pub(in crate::netlink) const SECMARK: u32 = 8;
    pub(in crate::netlink) const CT_EXPECT: u32 = 9;
    pub(in crate::netlink) const SYNPROXY: u32 = 10;
}

/// `enum nft_expr_attributes`
pub(super) mod expr {
    pub(in crate::netlink) const NAME: u16 = 1;
    pub(in crate::netlink) const DATA: u16 = 2;
}

/// `enum nft_immediate_attributes`
pub(super) mod immediate {
    pub(in crate::netlink) const REGISTER: u16 = 1;
    pub(in crate::netlink) const DATA: u16 = 2;
}

/// `enum nft_bitwise_attributes` and `enum nft_bitwise_ops`
pub(super) mod bitwise {
    pub(in crate::netlink) const FROM: u16 = 1;
    pub(in crate::netlink) const TO: u16 = 2;
    pub(in crate::netlink) const LEN: u16 = 3;
    pub(in crate::netlink) const MASK: u16 = 4;
    pub(in crate::netlink) const XOR: u16 = 5;
    pub(in crate::netlink) const OP: u16 = 6;
    /// `NFT_BITWISE_BOOL`, called `NFT_BITWISE_MASK_XOR` since Linux 6.13
    pub(in crate::netlink) const MASK_XOR: u32 = 0;
}

/// `enum nft_cmp_attributes`
pub(super) mod cmp {
    pub(in crate::netlink) const FROM: u16 = 1;
    pub(in crate::netlink) const OP: u16 = 2;
    pub(in crate::netlink) const DATA: u16 = 3;
}

/// `enum nft_rt_attributes` and `enum nft_rt_keys`
pub(super) mod rt {
    pub(in crate::netlink) const TO: u16 = 1;
    pub(in crate::netlink) const KEY: u16 = 2;
    pub(in crate::netlink) const TCPMSS: u32 = 3;
}

/// `enum nft_byteorder_attributes` and `enum nft_byteorder_ops`
pub(super) mod byteorder {
    pub(in crate::netlink) const FROM: u16 = 1;
    pub(in crate::netlink) const TO: u16 = 2;
    pub(in crate::netlink) const OP: u16 = 3;
    pub(in crate::netlink) const LEN: u16 = 4;
    pub(in crate::netlink) const SIZE: u16 = 5;
    pub(in crate::netlink) const HTON: u32 = 1;
}

/// `enum nft_exthdr_attributes` and `enum nft_exthdr_op`
pub(super) mod exthdr {
    pub(in crate::netlink) const TYPE: u16 = 2;
    pub(in crate::netlink) const OFFSET: u16 = 3;
    pub(in crate::netlink) const LEN: u16 = 4;
    pub(in crate::netlink) const FLAGS: u16 = 5;
    pub(in crate::netlink) const OP: u16 = 6;
    pub(in crate::netlink) const FROM: u16 = 7;
    pub(in crate::netlink) const TCPOPT: u32 = 1;
}

/// `enum nft_range_attributes` and `enum nft_range_ops`
pub(super) mod range {
    pub(in crate::netlink) const REGISTER: u16 = 1;
    pub(in crate::netlink) const OP: u16 = 2;
    pub(in crate::netlink) const FROM: u16 = 3;
    pub(in crate::netlink) const TO: u16 = 4;
    pub(in crate::netlink) const NOT: u32 = 1;
}

/// `enum nft_lookup_attributes` and `enum nft_lookup_flags`
pub(super) mod lookup {
    pub(in crate::netlink) const SET: u16 = 1;
    pub(in crate::netlink) const FROM: u16 = 2;
    pub(in crate::netlink) const TO: u16 = 3;
    pub(in crate::netlink) const FLAGS: u16 = 5;
    pub(in crate::netlink) const NOT: u32 = 1;
}

/// `enum nft_meta_attributes`
pub(super) mod meta {
    pub(in crate::netlink) const TO: u16 = 1;
    pub(in crate::netlink) const KEY: u16 = 2;
    pub(in crate::netlink) const FROM: u16 = 3;
}

/// `enum nft_ct_attributes`, `enum nft_ct_keys` (since Linux 4.17) and `enum ip_conntrack_dir`
pub(super) mod ct {
    pub(in crate::netlink) const TO: u16 = 1;
    pub(in crate::netlink) const KEY: u16 = 2;
    pub(in crate::netlink) const DIRECTION: u16 = 3;
    pub(in crate::netlink) const FROM: u16 = 4;
    pub(in crate::netlink) const SRC_IP: u32 = 19;
    pub(in crate::netlink) const DST_IP: u32 = 20;
    pub(in crate::netlink) const SRC_IP6: u32 = 21;
    pub(in crate::netlink) const DST_IP6: u32 = 22;
    pub(in crate::netlink) const ORIGINAL: u8 = 0;
    pub(in crate::netlink) const REPLY: u8 = 1;
}

/// `enum nft_fib_attributes`, `enum nft_fib_result` and `enum nft_fib_flags`
pub(super) mod fib {
    pub(in crate::netlink) const TO: u16 = 1;
    pub(in crate::netlink) const RESULT: u16 = 2;
    pub(in crate::netlink) const FLAGS: u16 = 3;
    pub(in crate::netlink) const OIF: u32 = 1;
    pub(in crate::netlink) const ADDRESS_TYPE: u32 = 3;
    pub(in crate::netlink) const SOURCE: u32 = 1;
    pub(in crate::netlink) const DESTINATION: u32 = 1 << 1;
    pub(in crate::netlink) const INPUT: u32 = 1 << 3;
    pub(in crate::netlink) const PRESENT: u32 = 1 << 5;
}

/// `enum nft_payload_attributes` and `enum nft_payload_bases`
pub(super) mod payload {
    pub(in crate::netlink) const TO: u16 = 1;
    pub(in crate::netlink) const BASE: u16 = 2;
    pub(in crate::netlink) const OFFSET: u16 = 3;
    pub(in crate::netlink) const LEN: u16 = 4;
    pub(in crate::netlink) const NETWORK: u32 = 1;
    pub(in crate::netlink) const TRANSPORT: u32 = 2;
}

/// `enum nft_nat_attributes` and `NF_NAT_RANGE_*` (`linux/netfilter/nf_nat.h`)
pub(super) mod nat {
    pub(in crate::netlink) const TYPE: u16 = 1;
    pub(in crate::netlink) const FAMILY: u16 = 2;
    pub(in crate::netlink) const ADDRESS_MIN: u16 = 3;
    pub(in crate::netlink) const ADDRESS_MAX: u16 = 4;
    pub(in crate::netlink) const PORT_MIN: u16 = 5;
    pub(in crate::netlink) const PORT_MAX: u16 = 6;
    pub(in crate::netlink) const FLAGS: u16 = 7;
    pub(in crate::netlink) const MAP_IPS: u32 = 1;
    pub(in crate::netlink) const PROTO_SPECIFIED: u32 = 2;
}

/// `enum nft_ng_attributes`
pub(super) mod numgen {
    pub(in crate::netlink) const TO: u16 = 1;
    pub(in crate::netlink) const MODULUS: u16 = 2;
    pub(in crate::netlink) const TYPE: u16 = 3;
    pub(in crate::netlink) const OFFSET: u16 = 4;
}

/// `enum nft_offload_attributes`
pub(super) mod flow_offload {
    pub(in crate::netlink) const TABLE: u16 = 1;
}

/// `enum nft_objref_attributes`
pub(super) mod objref {
    pub(in crate::netlink) const TYPE: u16 = 1;
}

/// `enum nft_target_attributes` and `enum nft_match_attributes`, `linux/netfilter/nf_tables_compat.h`: what iptables-nft
/// has no expression for
pub(super) mod xt {
    pub(in crate::netlink) const NAME: u16 = 1;
    pub(in crate::netlink) const REVISION: u16 = 2;
    pub(in crate::netlink) const INFO: u16 = 3;
}

/// `enum nft_counter_attributes`
pub(super) mod counter {
    pub(in crate::netlink) const BYTES: u16 = 1;
    pub(in crate::netlink) const PACKETS: u16 = 2;
}

/// `enum cntl_msg_types`
pub(super) mod flow_message {
    pub(in crate::netlink) const NEW: u8 = 0;
    pub(in crate::netlink) const GET: u8 = 1;
    pub(in crate::netlink) const DELETE: u8 = 2;
}

/// `enum ctattr_type`
pub(super) mod flow {
    pub(in crate::netlink) const ORIGINAL: u16 = 1;
    pub(in crate::netlink) const REPLY: u16 = 2;
    pub(in crate::netlink) const STATUS: u16 = 3;
    pub(in crate::netlink) const PROTOINFO: u16 = 4;
    pub(in crate::netlink) const COUNTERS_ORIGINAL: u16 = 9;
    pub(in crate::netlink) const COUNTERS_REPLY: u16 = 10;
    pub(in crate::netlink) const ID: u16 = 12;
    pub(in crate::netlink) const ZONE: u16 = 18;
}

/// `enum ctattr_counters`
pub(super) mod counters {
    pub(in crate::netlink) const BYTES: u16 = 2;
}

/// `enum ctattr_tuple`, and below it `enum ctattr_ip` and `enum ctattr_l4proto`
pub(super) mod tuple {
    pub(in crate::netlink) const IP: u16 = 1;
    pub(in crate::netlink) const PROTO: u16 = 2;
    pub(in crate::netlink) const ZONE: u16 = 3;
    pub(in crate::netlink) const V4_SOURCE: u16 = 1;
    pub(in crate::netlink) const V4_DESTINATION: u16 = 2;
    pub(in crate::netlink) const V6_SOURCE: u16 = 3;
    pub(in crate::netlink) const V6_DESTINATION: u16 = 4;
    pub(in crate::netlink) const PROTO_NUMBER: u16 = 1;
    pub(in crate::netlink) const SOURCE_PORT: u16 = 2;
    pub(in crate::netlink) const DESTINATION_PORT: u16 = 3;
}

/// `enum ctattr_protoinfo`, `enum ctattr_protoinfo_tcp` and `enum tcp_conntrack`
pub(super) mod tcp {
    pub(in crate::netlink) const PROTOINFO: u16 = 1;
    pub(in crate::netlink) const STATE: u16 = 1;
    pub(in crate::netlink) const TIME_WAIT: u8 = 7;
    pub(in crate::netlink) const CLOSE: u8 = 8;
}

/// `IPS_DST_NAT`, `enum ip_conntrack_status`
pub(super) const STATUS_DNAT: u32 = 1 << 5;
