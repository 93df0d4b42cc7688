//! Single faults, by name, as scripts with assertions.

use replcore::contract::Transport;
use replcore::rng::Rng;
use replcore_sim::campaign::{Plan, Run};
use replcore_sim::machines::Settings;
use replcore_sim::network::Conditions;

/// One hub and its leaves on good links, with nothing happening by itself.
fn system(nodes: usize, hubs: usize, settings: Settings) -> Run {
    let plan = Plan { faults: Vec::new(), ..Plan::new(nodes) };
    let (transport, conditions) = (Transport::Stream, Conditions::default());
    Run::with(plan, 1, hubs, settings, transport, conditions, Rng::new(1))
}

fn ok(result: Result<(), (Option<usize>, String)>) {
    if let Err((node, what)) = result {
        panic!("node {node:?}: {what}");
    }
}

/// Posts at every node and waits until it is everywhere.
fn exchange(run: &mut Run) {
    for node in 0..run.cluster.nodes() {
        run.post(node, 2, 100);
    }
    ok(run.settle(600));
}

fn short_lease() -> Settings {
    Settings { lease_ms: 20_000, register_ms: 6_000, keepalive_ms: 1_000, ..Settings::default() }
}

/// HS-11, HS-36: in push mode within the round trip and the time of two syncs.
#[test]
fn a_message_arrives_at_once_on_a_good_link() {
    let mut run = system(4, 1, Settings::default());
    ok(run.run_ms(5_000));
    let mark = run.post(1, 2, 100);
    ok(run.run_ms(200));
    let (_, id) = run.checker.posted(mark).expect("it was acknowledged");
    assert!((0..4).all(|node| run.checker.has(node, &id)));
}

/// HS-16: accepted while the hub is away, delivered when it is back. Links cut for 1 s, for 10 min.
#[test]
fn what_is_posted_during_a_cut_arrives_after_it() {
    for cut_ms in [1_000, 600_000] {
        let mut run = system(3, 1, Settings::default());
        ok(run.run_ms(5_000));
        for (from, to) in [(0, 1), (1, 0)] {
            run.cluster.block(from, to, true);
        }
        let marks = [run.post(1, 2, 100), run.post(0, 1, 100)];
        ok(run.run_ms(cut_ms));
        assert!(marks.iter().all(|mark| run.checker.posted(*mark).is_some()));
        for (from, to) in [(0, 1), (1, 0)] {
            run.cluster.block(from, to, false);
        }
        ok(run.settle(600));
    }
}

/// HS-05, HS-06, HS-07.
#[test]
fn a_leaf_away_for_longer_than_its_lease_is_let_go_and_gets_all_when_it_is_back() {
    let mut run = system(3, 1, short_lease());
    ok(run.run_ms(5_000));
    run.cluster.crash(1, false);
    run.post(2, 2, 100);
    ok(run.run_ms(40_000));
    assert_eq!(run.checker.expired(), 1);
    run.cluster.boot_after(1, 0);
    ok(run.settle(120));
}

/// HS-09: nobody is let go before one full lease after a restart of the hub.
#[test]
fn a_restarted_hub_gives_every_leaf_one_full_lease() {
    let mut run = system(3, 1, short_lease());
    ok(run.run_ms(5_000));
    run.cluster.crash(1, false);
    ok(run.run_ms(15_000));
    run.cluster.crash(0, true);
    run.cluster.boot_after(0, 1_000_000);
    ok(run.run_ms(18_000));
    assert_eq!(run.checker.expired(), 0);
    ok(run.run_ms(10_000));
    assert_eq!(run.checker.expired(), 1);
}

#[test]
fn a_wall_clock_stepped_a_day_changes_nothing() {
    for day_ms in [86_400_000, -86_400_000] {
        let mut run = system(3, 1, short_lease());
        ok(run.run_ms(5_000));
        for node in 0..3 {
            run.cluster.step_wall(node, day_ms);
        }
        exchange(&mut run);
        ok(run.run_ms(60_000));
        assert_eq!(run.checker.expired(), 0);
    }
}

#[test]
fn everything_restarts_at_once() {
    let mut run = system(6, 1, Settings::default());
    ok(run.run_ms(5_000));
    for node in 0..6 {
        run.post(node, 2, 100);
        run.cluster.crash(node, false);
        run.cluster.boot_after(node, 1_000);
    }
    exchange(&mut run);
}

/// HS-19: two hubs, every leaf at both: once each, and nothing goes round.
#[test]
fn two_paths_deliver_once() {
    let mut run = system(6, 2, Settings::default());
    ok(run.run_ms(5_000));
    exchange(&mut run);
    let before = run.cluster.counters().bytes;
    ok(run.run_ms(9_000));
    assert!(run.cluster.counters().bytes - before < 2_000, "something goes round");
}

/// HS-13: accepts, never answers.
#[test]
fn a_hung_leaf_does_not_delay_the_others() {
    let mut run = system(20, 1, Settings::default());
    ok(run.run_ms(5_000));
    run.cluster.hang(7, true);
    let mark = run.post(3, 2, 100);
    ok(run.run_ms(300));
    let (_, id) = run.checker.posted(mark).expect("it was acknowledged");
    assert!((0..20).filter(|node| *node != 7).all(|node| run.checker.has(node, &id)));
}

#[test]
fn a_slow_leaf_does_not_delay_the_others() {
    let mut run = system(5, 1, Settings::default());
    ok(run.run_ms(5_000));
    let thin = Conditions { rate_bytes: 1_000, ..Conditions::default() };
    run.cluster.set_conditions(2, thin);
    let marks: Vec<u64> = (0..50).map(|_| run.post(0, 2, 1_000)).collect();
    ok(run.run_ms(1_000));
    let (_, last) = run.checker.posted(marks[49]).expect("it was acknowledged");
    assert!([1, 3, 4].iter().all(|node| run.checker.has(*node, &last)));
    assert!(!run.checker.has(2, &last));
    ok(run.settle(600));
}

/// HS-36, HS-10: leaf to leaf within two intervals.
#[test]
fn poll_mode_delivers_within_two_intervals() {
    let settings = Settings { poll_interval_ms: 10_000, ..Settings::default() };
    let mut run = system(4, 1, settings);
    ok(run.run_ms(25_000));
    for wait_ms in [100, 3_100, 7_300] {
        ok(run.run_ms(wait_ms));
        let mark = run.post(1, 2, 100);
        ok(run.run_ms(20_500));
        let (_, id) = run.checker.posted(mark).expect("it was acknowledged");
        assert!((0..4).all(|node| run.checker.has(node, &id)));
    }
}

#[test]
fn poll_mode_works_over_a_line_slower_than_its_linger_time() {
    let settings = Settings { poll_interval_ms: 10_000, ..Settings::default() };
    let plan = Plan { faults: Vec::new(), ..Plan::new(3) };
    let far = Conditions { latency_us: 600_000, ..Conditions::default() };
    let mut run = Run::with(plan, 1, 1, settings, Transport::Stream, far, Rng::new(1));
    exchange(&mut run);
}

/// 100 leaves reconnecting in one second against a hub that admits 50 a second.
#[test]
fn a_storm_of_reconnects_is_served() {
    let settings = Settings { admission: (50, 20), ..Settings::default() };
    let mut run = system(101, 1, settings);
    ok(run.run_ms(60_000));
    run.cluster.crash(0, true);
    run.cluster.boot_after(0, 1_000_000);
    exchange(&mut run);
}

#[test]
fn a_full_disk_at_the_hub_loses_nothing() {
    let mut run = system(3, 1, Settings::default());
    ok(run.run_ms(5_000));
    run.cluster.process_mut(0).expect("it runs").store_mut().full = true;
    run.post(1, 2, 100);
    ok(run.run_ms(30_000));
    run.cluster.process_mut(0).expect("it runs").store_mut().full = false;
    ok(run.settle(60));
}
