//! The embedded store: what goes in comes out, in order, once, across restarts.

mod store_support;

use replcore_runtime::store::*;
use store_support::*;

#[test]
fn posts_come_out_of_their_queues_in_order_after_a_restart() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    for number in 0..5000_u32 {
        let queues: &[&str] = if number % 3 == 0 { &["a", "b"] } else { &["a"] };
        post(&mut store, &body(&number.to_le_bytes()), queues).unwrap();
        if number % 100 == 99 {
            store.commit().unwrap();
        }
    }
    for _ in 0..2 {
        for frame in [4096, 70, 1 << 20] {
            let (a, gaps) = drain(&mut store, key("a", 2), 0, frame);
            assert!(gaps.is_empty());
            let expected: Vec<(u64, Vec<u8>)> =
                (0..5000_u32).map(|n| (u64::from(n), n.to_le_bytes().to_vec())).collect();
            assert_eq!(a, expected);
            let (b, _) = drain(&mut store, key("b", 2), 0, frame);
            let numbers: Vec<Vec<u8>> = b.into_iter().map(|entry| entry.1).collect();
            let expected: Vec<Vec<u8>> =
                (0..5000_u32).step_by(3).map(|n| n.to_le_bytes().to_vec()).collect();
            assert_eq!(numbers, expected);
        }
        drop(store);
        disk.kill();
        store = open(&disk, small());
        assert!(store.reports().is_empty(), "{:?}", store.reports());
    }
}
