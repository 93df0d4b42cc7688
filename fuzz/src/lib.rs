//! What the fuzz targets do with their bytes. Each is a function over a slice, so that an input
//! which once failed can be run by an ordinary test as well.

// What the files of the C interface call the core.
extern crate replcore as replcore_core;

pub mod c_abi;
pub mod decode;
pub mod leaf;
pub mod machine;
pub mod node;
pub mod store_ops;

/// The C interface, which is no library that a Rust program could link.
#[path = "../../ffi/src/lib.rs"]
mod ffi;

#[cfg(test)]
mod tests {
    use replcore::rng::Rng;

    /// Runs the checked-in seeds and some random inputs, so that a target that no longer works is
    /// noticed without a fuzzer.
    fn seeds_and_random_inputs(target: &str, inputs: u64, run: impl Fn(&[u8])) {
        let folder = format!("{}/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        for seed in std::fs::read_dir(folder).into_iter().flatten() {
            run(&std::fs::read(seed.unwrap().path()).unwrap());
        }
        for seed in 0..inputs {
            let mut rng = Rng::new(seed);
            let length = rng.between(1, 1_500);
            let input: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&input)));
            assert!(outcome.is_ok(), "{target}: the input of seed {seed} fails");
        }
    }

    #[test]
    fn decoders_survive_seeds_and_random_bytes() {
        seeds_and_random_inputs("decode", 5_000, crate::decode::run);
    }

    #[test]
    fn the_c_interface_survives_seeds_and_random_programs() {
        seeds_and_random_inputs("c_abi", 5_000, crate::c_abi::run);
    }

    #[test]
    fn a_leaf_survives_seeds_and_random_peers() {
        seeds_and_random_inputs("leaf", 1_000, crate::leaf::run);
    }

    #[test]
    fn a_node_survives_seeds_and_random_peers() {
        seeds_and_random_inputs("node", 1_000, crate::node::run);
    }

    #[test]
    fn the_store_agrees_with_its_model_over_random_operations() {
        seeds_and_random_inputs("store_ops", 50, crate::store_ops::run);
    }
}
