//! `replcore-sim`: runs seeds of the simulation and says which failed.

fn main() {
    let mut plan = replcore_sim::campaign::Plan::new(5);
    let args: Vec<String> = std::env::args().collect();
    let n: u64 = args[1].parse().unwrap();
    let only: Option<u64> = args.get(2).and_then(|s| s.parse().ok());
    plan.duration_s = 120;
    let mut failed = 0;
    for seed in 0..n {
        if only.is_some_and(|o| o != seed) {
            continue;
        }
        match replcore_sim::campaign::run(&plan, seed, only.is_some()) {
            Ok(o) => {
                if only.is_some() {
                    println!("{o:?}");
                }
            }
            Err(f) => {
                failed += 1;
                println!("{f}");
                for l in f.trace {
                    println!("{l}");
                }
            }
        }
    }
    println!("{failed} failed");
}
