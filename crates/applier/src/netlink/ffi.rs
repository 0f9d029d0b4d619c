//! All unsafe netlink code: our own messages in nftnl's batch, the expressions that nftnl does not have, and libmnl's
//! socket. Pointers leave this file only inside nftnl's types.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::io;
use std::mem::{forget, offset_of, size_of};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;

use nftnl::{MsgType, NlMsg, nft_nlmsg_maxsize};
use nftnl_sys as sys;
use nix::libc;
use rules::ruleset::Set;

use super::uapi::{byteorder, ct, exthdr, rt};

/// A message that is copied unchanged.
pub(super) struct Raw<'a> {
    bytes: &'a [u8],
}

impl<'a> Raw<'a> {
    /// # Panics
    ///
    /// If it is not one message, or larger than `nft_nlmsg_maxsize()`; the encoder builds and bounds its messages. libnftnl
    /// advances in its page by the length that the header names (`mnl_nlmsg_batch_next`), and starts the next message there.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let length = bytes.len();
        assert!(length <= nft_nlmsg_maxsize() as usize, "a message of {length} bytes");
        let named = bytes.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize);
        assert!(
            length >= size_of::<libc::nlmsghdr>() && named == Some(length) && length.is_multiple_of(4),
            "a message of {length} bytes whose header names {named:?}"
        );
        Self { bytes }
    }
}

// SAFETY: `new` has checked that it is one message, and not larger than `nft_nlmsg_maxsize()`.
unsafe impl NlMsg for Raw<'_> {
    unsafe fn write(&self, buffer: *mut c_void, _sequence: u32, _type: MsgType) {
        // SAFETY: the caller gives room for `nft_nlmsg_maxsize()` bytes, which is at least `bytes.len()`; the batch's
        // page is libnftnl's own allocation, so it cannot overlap `bytes`.
        unsafe { buffer.cast::<u8>().copy_from_nonoverlapping(self.bytes.as_ptr(), self.bytes.len()) };
    }
}

/// An nftnl message with our sequence number and without `NLM_F_ACK`: about 256 acknowledgements overflow the default
/// receive buffer (`ENOBUFS`) although the kernel has committed.
pub(super) struct Quiet<'a, T> {
    pub(super) message: &'a T,
    pub(super) sequence: u32,
}

// SAFETY: it writes what `T` writes, which is not larger than `nft_nlmsg_maxsize()` since `T` is `NlMsg`.
unsafe impl<T: NlMsg> NlMsg for Quiet<'_, T> {
    unsafe fn write(&self, buffer: *mut c_void, _sequence: u32, message_type: MsgType) {
        // SAFETY: `buffer` comes from our caller, who promises the same of it.
        unsafe { self.message.write(buffer, self.sequence, message_type) };
        let flags = buffer.wrapping_byte_add(offset_of!(libc::nlmsghdr, nlmsg_flags)).cast::<u16>();
        // SAFETY: the line above has written a message, which begins with its header, so the two bytes are there; they are
        // read and written wherever they begin.
        unsafe { flags.write_unaligned(flags.read_unaligned() & !(libc::NLM_F_ACK as u16)) };
    }
}

/// `payload load Lb @ transport header + OFFSET => reg N`; nftnl's `Payload` supports only register 1, and no flags.
pub(super) fn payload(register: u32, offset: u32, length: u32) -> Expr {
    let expression = Expr::new(c"payload");
    expression.set(sys::NFTNL_EXPR_PAYLOAD_DREG, register);
    expression.set(sys::NFTNL_EXPR_PAYLOAD_BASE, libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32);
    expression.set(sys::NFTNL_EXPR_PAYLOAD_OFFSET, offset);
    expression.set(sys::NFTNL_EXPR_PAYLOAD_LEN, length);
    expression
}

/// `lookup reg 1 set NAME`, and for a map `dreg N`; nftnl's `Lookup` has no destination register.
pub(super) fn lookup(set: Set, destination: Option<u32>) -> Expr {
    let expression = Expr::new(c"lookup");
    expression.set(sys::NFTNL_EXPR_LOOKUP_SREG, libc::NFT_REG_1 as u32);
    if let Some(register) = destination {
        expression.set(sys::NFTNL_EXPR_LOOKUP_DREG, register);
    }
    expression.set_name(sys::NFTNL_EXPR_LOOKUP_SET, &set.name());
    expression
}

/// `ct load KEY => reg N , dir original`; nftnl's `Conntrack` has no direction.
pub(super) fn original(key: u32, register: u32) -> Expr {
    let expression = Expr::new(c"ct");
    expression.set(sys::NFTNL_EXPR_CT_DREG, register);
    expression.set(sys::NFTNL_EXPR_CT_KEY, key);
    expression.set_byte(sys::NFTNL_EXPR_CT_DIR, ct::ORIGINAL);
    expression
}

/// `flow_offload flowtable NAME`
pub(super) fn flow_offload(flowtable: &str) -> Expr {
    let expression = Expr::new(c"flow_offload");
    expression.set_name(sys::NFTNL_EXPR_FLOW_TABLE_NAME, flowtable);
    expression
}

/// `nat dnat ip addr_min reg N proto_min reg M`; nftnl's `Nat` has no 4-byte registers.
pub(super) fn dnat(family: u32, address: u32, port: u32) -> Expr {
    let expression = Expr::new(c"nat");
    expression.set(sys::NFTNL_EXPR_NAT_TYPE, libc::NFT_NAT_DNAT as u32);
    expression.set(sys::NFTNL_EXPR_NAT_FAMILY, family);
    expression.set(sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, address);
    expression.set(sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, port);
    expression
}

/// `numgen reg N = random mod M`
pub(super) fn random(register: u32, modulus: u32) -> Expr {
    let expression = Expr::new(c"numgen");
    expression.set(sys::NFTNL_EXPR_NG_DREG, register);
    expression.set(sys::NFTNL_EXPR_NG_TYPE, libc::NFT_NG_RANDOM as u32);
    expression.set(sys::NFTNL_EXPR_NG_MODULUS, modulus);
    expression.set(sys::NFTNL_EXPR_NG_OFFSET, 0);
    expression
}

/// `rt load tcpmss => reg N`: the largest segment that fits the route of the packet
pub(super) fn route_segment(register: u32) -> Expr {
    let expression = Expr::new(c"rt");
    expression.set(sys::NFTNL_EXPR_RT_DREG, register);
    expression.set(sys::NFTNL_EXPR_RT_KEY, rt::TCPMSS);
    expression
}

/// `byteorder reg N = hton(reg N, 2, 2)`
pub(super) fn to_network_order(register: u32) -> Expr {
    let expression = Expr::new(c"byteorder");
    expression.set(sys::NFTNL_EXPR_BYTEORDER_SREG, register);
    expression.set(sys::NFTNL_EXPR_BYTEORDER_DREG, register);
    expression.set(sys::NFTNL_EXPR_BYTEORDER_OP, byteorder::HTON);
    expression.set(sys::NFTNL_EXPR_BYTEORDER_LEN, 2);
    expression.set(sys::NFTNL_EXPR_BYTEORDER_SIZE, 2);
    expression
}

/// `exthdr write tcpopt reg N => Lb @ KIND + OFFSET`
pub(super) fn write_segment(register: u32, (kind, offset, length): (u8, u32, u32)) -> Expr {
    let expression = Expr::new(c"exthdr");
    expression.set(sys::NFTNL_EXPR_EXTHDR_SREG, register);
    expression.set_byte(sys::NFTNL_EXPR_EXTHDR_TYPE, kind);
    expression.set(sys::NFTNL_EXPR_EXTHDR_OFFSET, offset);
    expression.set(sys::NFTNL_EXPR_EXTHDR_LEN, length);
    expression.set(sys::NFTNL_EXPR_EXTHDR_OP, exthdr::TCPOPT);
    expression
}

/// An expression; libnftnl frees it unless a rule takes it over.
pub(super) struct Expr(NonNull<sys::nftnl_expr>);

impl Drop for Expr {
    fn drop(&mut self) {
        // SAFETY: it was allocated by `new`, and nothing else owns it: `into_raw` forgets the value.
        unsafe { sys::nftnl_expr_free(self.0.as_ptr()) };
    }
}

impl Expr {
    /// Gives the expression away; a rule that it is added to frees it.
    pub(super) fn into_raw(self) -> NonNull<sys::nftnl_expr> {
        let expression = self.0;
        forget(self);
        expression
    }

    fn new(name: &'static CStr) -> Self {
        // SAFETY: `name` is a C string; libnftnl only reads it.
        let expression = unsafe { sys::nftnl_expr_alloc(name.as_ptr()) };
        match NonNull::new(expression) {
            Some(expression) => Self(expression),
            // libnftnl has the expressions above, so it is out of memory; nftnl also aborts then.
            None => std::process::abort(),
        }
    }

    /// Sets a 32-bit attribute.
    fn set(&self, attribute: u32, value: u32) {
        // SAFETY: the expression is alive, and libnftnl copies the value.
        unsafe { sys::nftnl_expr_set_u32(self.0.as_ptr(), attribute as u16, value) };
    }

    fn set_byte(&self, attribute: u32, value: u8) {
        // SAFETY: the expression is alive, and libnftnl copies the value.
        unsafe { sys::nftnl_expr_set_u8(self.0.as_ptr(), attribute as u16, value) };
    }

    /// Sets an attribute to the name of one of our objects.
    fn set_name(&self, attribute: u32, name: &str) {
        let name = CString::new(name).expect("our objects' names have no NUL");
        // SAFETY: the expression is alive, the two attributes that are set here are strings in its kind, and libnftnl
        // copies them (strdup).
        let done = unsafe { sys::nftnl_expr_set_str(self.0.as_ptr(), attribute as u16, name.as_ptr()) };
        abort_unless(done >= 0);
    }
}

fn abort_unless(memory: bool) {
    if !memory {
        std::process::abort();
    }
}

/// libmnl's socket, which may move to another thread.
pub(super) struct MnlSocket(mnl::Socket);

// SAFETY: `struct mnl_socket` is a descriptor and an address on the heap (libmnl `src/socket.c`); nothing in it belongs
// to the thread that made it, and `mnl::Socket` is its only owner.
unsafe impl Send for MnlSocket {}

impl MnlSocket {
    /// Opens and binds a netlink socket of this family, in the network namespace of the calling thread.
    pub(super) fn open(bus: mnl::Bus) -> io::Result<Self> {
        mnl::Socket::new(bus).map(Self)
    }

    /// The netlink port that the kernel assigned to it.
    pub(super) fn port(&self) -> u32 {
        self.0.portid()
    }

    /// The socket's descriptor, for nix.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket owns the descriptor, closes it when dropped, and outlives the result.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// Sets an integer option of a netlink socket (netlink(7)), for which nix has no type.
pub(super) fn set_option(socket: BorrowedFd<'_>, option: i32, value: u32) -> io::Result<()> {
    let length = size_of::<u32>() as libc::socklen_t;
    let value = (&raw const value).cast::<c_void>();
    // SAFETY: the descriptor is open, and `value` leads to `length` readable bytes for the time of the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, value, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use nftnl::Batch;

    use super::*;
    use crate::netlink::message;

    #[test]
    fn a_raw_message_is_copied_unchanged() {
        for length in [20, 64, 40_000, nft_nlmsg_maxsize() as usize / 4 * 4] {
            let mut bytes = vec![7; length];
            bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
            let mut batch = Batch::new();
            batch.add(&Raw::new(&bytes), MsgType::Add);
            let written: Vec<u8> = batch.finalize().iter().flatten().copied().collect();
            assert_eq!(written[message::BATCH..][..length], bytes);
        }
    }

    #[test]
    fn only_one_bounded_message_is_taken() {
        let named = |length: usize, named: u32| {
            let mut bytes = vec![0; length];
            bytes[..4].copy_from_slice(&named.to_ne_bytes());
            bytes
        };
        let wrong = [
            vec![],
            vec![0; 3],
            named(12, 12),
            named(20, 16),
            named(20, 24),
            named(20, 0),
            named(21, 21),
            named(nft_nlmsg_maxsize() as usize + 4, nft_nlmsg_maxsize() + 4),
        ];
        for bytes in wrong {
            assert!(catch_unwind(|| Raw::new(&bytes).bytes.len()).is_err(), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn an_expression_that_no_rule_takes_is_freed() {
        drop(random(1, 3));
        let table = nftnl::Table::new(c"cachenat", nftnl::ProtoFamily::Inet);
        let chain = nftnl::Chain::new(c"prerouting", &table);
        let mut rule = nftnl::Rule::new(&chain);
        rule.add_expr(&crate::netlink::expression::Expression::Random(3));
    }

    #[test]
    fn a_quiet_message_is_numbered_and_unacknowledged() {
        let table = nftnl::Table::new(c"cachenat", nftnl::ProtoFamily::Inet);
        let mut batch = Batch::new();
        batch.add(&Quiet { message: &table, sequence: 77 }, MsgType::Add);
        let finalized = batch.finalize();
        let page = finalized.iter().next().unwrap();
        let header = &page[message::BATCH..];
        assert_eq!(u16::from_ne_bytes([header[6], header[7]]), libc::NLM_F_REQUEST as u16);
        assert_eq!(u32::from_ne_bytes(*header[8..].first_chunk().unwrap()), 77);
    }
}
