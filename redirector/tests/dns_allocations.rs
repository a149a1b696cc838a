//! A local answer does not allocate, so that the shim's rate does not depend on the allocator. In a
//! binary of its own, since it replaces the allocator.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    net::Ipv4Addr,
};

use redirector::dns::{AnswerPolicy, Decision, ReplyBuffer, ReplyKind, Vip, Zone, answer};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is thread-local, needs
// no destructor and never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of System, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above, and the pointer came from System.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

/// A query with an OPT record.
fn query(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, kind, 0, 1, 0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn answering_a_query_does_not_allocate() {
    let sources = ["artifactory.internal.company.net", "**.internal.company.net"];
    let vips = (1..).map(|last| Vip { v4: Ipv4Addr::new(198, 18, 0, last), v6: None });
    let zone =
        Zone::new(sources.map(|source| source.parse().expect("a source")).into_iter().zip(vips));
    let policy = AnswerPolicy { ttl: 30, real_addresses: false };
    let mut reply = ReplyBuffer::new();
    let a_record = query("Artifactory.internal.company.net", 1);
    let no_data = query("x.y.internal.company.net", 28);
    let pointer = query("1.0.18.198.in-addr.arpa", 12);
    let foreign = query("artifactory.internal.company.net.default.svc.cluster.local", 1);
    let count = allocations(|| {
        for _ in 0..100 {
            assert_eq!(
                answer(&a_record, &zone, policy, &mut reply),
                Decision::Reply(ReplyKind::Answered)
            );
            assert_eq!(
                answer(&no_data, &zone, policy, &mut reply),
                Decision::Reply(ReplyKind::NoData)
            );
            assert_eq!(
                answer(&pointer, &zone, policy, &mut reply),
                Decision::Reply(ReplyKind::Answered)
            );
            assert!(matches!(answer(&foreign, &zone, policy, &mut reply), Decision::Forward(_)));
        }
    });
    assert_eq!(count, 0);
    assert!(allocations(|| drop(vec![0_u8; 100])) > 0, "allocations are counted");
}
