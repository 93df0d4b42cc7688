//! Watches all members all the time: two may never claim to lead at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use replcore::stream::Name;
use replcore_runtime::api::{Reply, Request};
use replcore_runtime::client::{Client, ClientOptions};
use replcore_runtime::cluster::api::{ClusterReply, ClusterRequest};

use crate::lab::Lab;
use crate::session::block_on;

/// A member said that it leads.
#[derive(Clone, Debug)]
struct Claim {
    member: String,
    term: u64,
    /// It was asked then, and its answer was there then.
    asked: Instant,
    answered: Instant,
    /// What was left of its lease when it answered.
    left: Duration,
}

/// Threads that ask every member as fast as they can.
pub(crate) struct Watch {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Claim>>>,
}

impl Watch {
    pub(crate) fn start(lab: &Lab) -> Self {
        Self::start_in(lab, |_| {})
    }

    /// As [`Self::start`]; `enter` is called first on each thread, with the member's index.
    pub(crate) fn start_in(lab: &Lab, enter: fn(usize)) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let watch = |(at, member): (usize, &crate::lab::Process)| {
            let (ended, name) = (ended.clone(), member.name.clone());
            let address = member.address.clone();
            std::thread::spawn(move || {
                enter(at);
                block_on(ask_on(&name, &address, &ended))
            })
        };
        let threads = lab.members.iter().enumerate().map(watch).collect();
        Self { ended, threads }
    }

    /// Ends the watch; answers how many claims there were. Nobody may have resigned meanwhile.
    #[track_caller]
    pub(crate) fn end(self) -> usize {
        self.ended.store(true, Ordering::SeqCst);
        let mut claims = Vec::new();
        for thread in self.threads {
            claims.extend(thread.join().unwrap());
        }
        for one in &claims {
            for other in &claims {
                assert!(
                    one.term != other.term || one.member == other.member,
                    "two leaders of one term: {one:?}, {other:?}"
                );
                let during = other.asked >= one.answered && other.answered <= one.asked + one.left;
                assert!(
                    one.member == other.member || !during,
                    "two lead at once: {one:?}, {other:?}"
                );
            }
        }
        claims.len()
    }
}

async fn ask_on(name: &str, address: &str, ended: &AtomicBool) -> Vec<Claim> {
    let mut claims: Vec<Claim> = Vec::new();
    let own = Name::new(&format!("watch.{}.{name}", std::process::id())).unwrap();
    let client = Client::open(ClientOptions::new(own, address.parse().unwrap()));
    while !ended.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let request = Request::Cluster(ClusterRequest::Status);
        let answer = client.call(&request, Duration::from_millis(500)).await;
        let answered = Instant::now();
        if let Ok(Reply::Cluster(ClusterReply::Status(status))) = answer
            && status.is_leader
        {
            let left = Duration::from_millis(status.lease_left_ms);
            let claim = Claim { member: name.into(), term: status.term, asked, answered, left };
            // Of an unbroken reign the first and the last are enough, and one now and then.
            let same = |it: &Claim| it.term == claim.term;
            let dense = claims.len() >= 2
                && claims[claims.len() - 2..].iter().all(same)
                && claim.answered - claims[claims.len() - 2].answered < Duration::from_millis(20);
            if dense {
                claims.pop();
            }
            claims.push(claim);
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    claims
}
