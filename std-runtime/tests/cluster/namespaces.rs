//! A leader that is cut off, in network namespaces: both ways, and one way.

use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::{Lab, eventually, leave_out};
use crate::watch::Watch;

/// Namespaces `0`, `1` and `2`, each with a line of its own to each other, and an address.
struct Net {
    tag: String,
}

const COUNT: usize = 3;

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("the program ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Net {
    fn new() -> Result<Self, String> {
        let net = Self { tag: format!("rc{}", std::process::id()) };
        for at in 0..COUNT {
            ip(&format!("netns add {}", net.space(at)))?;
            let space = net.space(at);
            ip(&format!("-n {space} link set lo up"))?;
            ip(&format!("-n {space} addr add {}/32 dev lo", address(at)))?;
        }
        for one in 0..COUNT {
            for other in one + 1..COUNT {
                let (near, far) = (net.space(one), net.space(other));
                ip(&format!(
                    "-n {near} link add to{other} type veth peer name to{one} netns {far}"
                ))?;
                for (from, to) in [(one, other), (other, one)] {
                    let space = net.space(from);
                    ip(&format!("-n {space} link set to{to} up"))?;
                    let (source, target) = (address(from), address(to));
                    ip(&format!("-n {space} route add {target}/32 dev to{to} src {source}"))?;
                }
            }
        }
        Ok(net)
    }

    fn space(&self, at: usize) -> String {
        format!("{}-{at}", self.tag)
    }

    /// What `from` sends to `to` gets lost on the way: it goes to a machine that is not there.
    fn cut(&self, from: usize, to: usize) {
        let (space, target) = (self.space(from), address(to));
        ip(&format!(
            "-n {space} neigh replace {target} lladdr 02:00:00:00:00:0f nud permanent dev to{to}"
        ))
        .unwrap();
    }

    fn mend(&self, from: usize, to: usize) {
        let (space, target) = (self.space(from), address(to));
        ip(&format!("-n {space} neigh del {target} dev to{to}")).unwrap();
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for at in 0..COUNT {
            let _ = ip(&format!("netns del {}", self.space(at)));
        }
    }
}

fn address(at: usize) -> String {
    format!("10.213.7.{}", 1 + at)
}

/// Has the calling thread speak from the namespace of a member.
fn enter(at: usize) {
    let path = format!("/run/netns/rc{}-{at}", std::process::id());
    let file = std::fs::File::open(path).unwrap();
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .unwrap();
}

/// Asks a member from its own namespace.
fn at_member<T: Send>(at: usize, ask: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            enter(at);
            ask()
        });
        asking.join().unwrap()
    })
}

fn leads(lab: &Lab, at: usize) -> bool {
    let member = &lab.members[at];
    at_member(at, || member.leads())
}

fn leader_of(lab: &Lab, some: &[usize]) -> usize {
    let mut found = None;
    eventually("one leader", || {
        found = some.iter().copied().find(|at| leads(lab, *at));
        found.is_some()
    });
    found.unwrap()
}

/// QC-11, QC-14: cut off both ways, deaf, or mute, the old leader stops before another leads, and the
/// others elect one.
#[test]
fn a_leader_that_is_cut_off_stops_leading_before_another_leads() {
    let net = match Net::new() {
        Ok(net) => net,
        Err(why) => return leave_out("a_leader_that_is_cut_off", &why),
    };
    let mut lab = Lab::at(&(0..COUNT).map(address).collect::<Vec<_>>());
    for (at, member) in lab.members.iter_mut().enumerate() {
        member.wrapper = ["ip", "netns", "exec", &net.space(at)].map(str::to_owned).to_vec();
        member.spawn();
    }
    let all = [0, 1, 2];
    let watch = Watch::start_in(&lab, enter);
    for (to_it, from_it) in [(true, true), (true, false), (false, true)] {
        let leader = leader_of(&lab, &all);
        let others: Vec<_> = all.into_iter().filter(|at| *at != leader).collect();
        let each = |change: &dyn Fn(usize, usize)| {
            for other in &others {
                if to_it {
                    change(*other, leader);
                }
                if from_it {
                    change(leader, *other);
                }
            }
        };
        each(&|from, to| net.cut(from, to));
        let next = leader_of(&lab, &others);
        assert_ne!(next, leader);
        eventually("the old one does not lead", || !leads(&lab, leader));
        each(&|from, to| net.mend(from, to));
        eventually("all follow one again", || {
            let named: Vec<_> = all
                .iter()
                .map(|at| at_member(*at, || lab.members[*at].leader().map(|it| it.identifier)))
                .collect();
            named[0].is_some() && named.iter().all(|it| *it == named[0])
        });
    }
    assert!(watch.end() > 0);
}
