use replcore_runtime::options::*;
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let n = replcore::stream::Name::new(&a[1]).unwrap();
    let role = if a[0] == "hub" { NodeRole::Hub } else { NodeRole::Leaf };
    let mut o = NodeOptions::new(n, role, &a[2]);
    o.listen = vec![a[3].parse().unwrap()];
    if let Some(h) = a.get(4) {
        o.upstreams = vec![Peer {
            name: replcore::stream::Name::new("hub").unwrap(),
            address: h.parse().unwrap(),
        }];
    }
    o.limits.links_max = 12000;
    o.limits.leaves_max = 12000;
    o.limits.queues_max = 12000;
    let (_h, r) = replcore_runtime::node::start(o).unwrap();
    r.join();
}
