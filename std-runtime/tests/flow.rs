//! Nodes on real sockets: what is posted anywhere arrives everywhere it should, once.

mod common;

use common::{TestNode, eventually, hub_options, leaf_options};

#[tokio::test]
async fn a_message_posted_at_a_leaf_reaches_the_hub_and_the_other_leaf_once() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestNode::start(hub_options(folder.path(), "hub"));
    let at = [("hub", hub.address())];
    let one = TestNode::start(leaf_options(folder.path(), "one", &at));
    let two = TestNode::start(leaf_options(folder.path(), "two", &at));
    eventually("both leaves are registered", async || hub.live_leaves().await == 2).await;
    one.post("sale", "from one").await;
    hub.post("price", "from hub").await;
    eventually("two has both", async || two.bodies().await.len() == 2).await;
    eventually("one has both", async || one.bodies().await.len() == 2).await;
    eventually("the hub has both", async || hub.bodies().await.len() == 2).await;
    let at_two = two.read_all().await;
    let sale = at_two.iter().find(|message| message.message.message_type == "sale").unwrap();
    assert_eq!(sale.origin, "one");
    for node in [one, two, hub] {
        assert_eq!(node.stop(), node::StopReport::default());
    }
}

use replcore_runtime::node;
