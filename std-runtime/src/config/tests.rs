use super::keys::SECTIONS;
use super::*;
use crate::store::LimitPolicy;

fn errors(text: &str) -> Vec<String> {
    Config::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_spelling() {
    let error = errors("role = \"hub\"\n\n[limits]\nlink_max = 3\n").remove(0);
    assert_eq!(error, "line 4: unknown key `limits.link_max`; did you mean `limits.links_max`?");
    let error = errors("lisen = []").remove(0);
    assert_eq!(error, "line 1: unknown key `lisen`; did you mean `listen`?");
    let error = errors("links_max = 3").remove(0);
    assert_eq!(error, "line 1: unknown key `links_max`; did you mean `limits.links_max`?");
    let error = errors("[limit]\nlinks_max = 3").remove(0);
    assert!(error.contains("did you mean `limits`?"), "{error}");
    assert!(errors("zzzzzzzzzz = 1").remove(0).contains("config --explain"));
}

#[test]
fn a_wrong_value_is_named_with_key_line_and_range() {
    let error = errors("\n[limits]\nframe_bytes_max = 100").remove(0);
    assert!(error.starts_with("line 3: `limits.frame_bytes_max` is 100"), "{error}");
    assert!(error.contains("512 to 1048576"), "{error}");
    for text in [
        "role = \"king\"",
        "role = 1",
        "listen = \"127.0.0.1:1\"",
        "listen = [\"nonsense\"]",
        "name = \"a b\"",
        "poll_ms = -1",
        "poll_ms = 1.5",
        "allow_plaintext = 1",
        "queue = 3",
        "[queue]\npolicy = \"forget\"",
        "rule = 3",
        "[rule]\nto = [\"*\"]",
        "[[rule]]\nto = [\"a b\"]",
        "[[rule]]",
        "[[schema]]\ntype = \"t\"\nattributes = { a = \"boolean\" }",
        "[[schema]]\ntype = \"t\"",
        "[[queue_limit]]\nmessages_max = 1",
        "[[queue_limit]]\nname = \"a\"\n[[queue_limit]]\nname = \"a\"",
        "not toml at all",
        "name = \"a\"\nname = \"b\"",
    ] {
        assert_eq!(errors(text).len(), 1, "{text}");
    }
}

#[test]
fn all_errors_of_a_file_are_told_in_its_order() {
    let errors = errors("poll_ms = -1\nrolle = \"hub\"\n[limits]\naccept_backlog = 0\n");
    assert_eq!(errors.len(), 3);
    assert!(errors[0].starts_with("line 1:") && errors[2].starts_with("line 4:"));
}

#[test]
fn what_explain_prints_is_a_file_of_all_defaults() {
    let text = explain();
    assert_eq!(Config::parse(&text).unwrap(), Config::default());
    // The same with every key of the plain tables in force.
    let plain = text.split("#[[").next().unwrap();
    let in_force: Vec<_> = plain
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect();
    assert_eq!(Config::parse(&in_force.join("\n")).unwrap(), Config::default());
    for section in SECTIONS {
        for key in section.keys {
            assert!(text.contains(&format!("#{} = ", key.name)), "{}", key.name);
        }
    }
}

#[test]
fn rules_and_schemas_are_read() {
    let text = r#"
        [[rule]]
        type = "alarm.*"
        to = ["*"]
        [[rule]]
        origin = "till-7"
        to = ["242", "241"]
        [[schema]]
        type = "serial_numbers"
        attributes = { name = "text", weight = "float", count = "integer" }
    "#;
    let options = Config::parse(text).unwrap().options().unwrap();
    assert_eq!(options.rules.len(), 2);
    assert_eq!(options.rules[1].to, ["242", "241"]);
    assert_eq!(options.schemas[0].attributes.len(), 3);
}

#[test]
fn a_leaf_needs_a_name_and_a_broker() {
    let options = |text: &str| Config::parse(text).unwrap().options().map_err(|e| e.to_string());
    assert!(options("role = \"leaf\"").unwrap_err().contains("name"));
    assert!(options("role = \"leaf\"\nname = \"242\"").unwrap_err().contains("broker"));
    let leaf = options("role = \"leaf\"\nname = \"242\"\nbrokers = [\"central@h:1\"]").unwrap();
    assert_eq!(leaf.upstreams[0].name.as_str(), "central");
    assert!(leaf.rules.is_empty());
}

/// HS-12: either end may dial.
#[test]
fn a_leaf_may_be_called_by_its_broker_instead() {
    let options = |text: &str| Config::parse(text).unwrap().options().map_err(|e| e.to_string());
    let leaf = options("role = \"leaf\"\nname = \"242\"\ncalled_by = \"central\"").unwrap();
    assert_eq!(leaf.called_by.unwrap().as_str(), "central");
    let both = "role = \"leaf\"\nname = \"242\"\ncalled_by = \"hub\"\nbrokers = [\"h:1\"]";
    assert!(options(both).unwrap_err().contains("one of the two"));
}

/// HS-26: what a queue's own limits leave out is as in `[queue]`, wherever that stands.
#[test]
fn a_queue_may_have_limits_of_its_own() {
    let text = r#"
        [[queue_limit]]
        name = "till-7"
        messages_max = 5
        policy = "refuse"
        [queue]
        bytes_max = 1000
        policy = "drop_by_class"
    "#;
    let options = Config::parse(text).unwrap().options().unwrap();
    let (name, limits) = options.queue_limits[0];
    assert_eq!(name.as_str(), "till-7");
    assert_eq!((limits.messages_max, limits.bytes_max), (5, 1000));
    assert_eq!(limits.policy, LimitPolicy::Refuse);
    assert_eq!(options.limits.queue.messages_max, 0);
}

#[test]
fn without_tls_a_node_listens_on_loopback_unless_told_in_plain_words() {
    let options = |text: &str| Config::parse(text).unwrap().options().map_err(|e| e.to_string());
    for text in ["listen = [\"0.0.0.0:1\"]", "[http]\nlisten = [\"10.0.0.1:1\"]"] {
        let error = options(text).unwrap_err();
        assert!(error.contains("without TLS") && error.contains("allow_plaintext"), "{error}");
        assert!(options(&format!("allow_plaintext = true\n{text}")).is_ok());
    }
    let line = "listen = [\"serial:10.0.0.1:1\"]\n[tls]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"";
    assert!(options(line).unwrap_err().contains("without TLS"), "a serial line never has it");
    for text in ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/tmp/socket", "serial:[::1]:1"] {
        assert!(options(&format!("listen = [\"{text}\"]")).is_ok(), "{text}");
    }
    assert!(options("[tls]\nca = \"x\"").unwrap_err().contains("three files"));
}

/// HS-34: what a node listens on and what it says of itself are two settings.
#[test]
fn the_advertised_address_is_separate() {
    let text = "listen = [\"127.0.0.1:9\"]\nadvertise = \"shop.example:80\"";
    let options = Config::parse(text).unwrap().options().unwrap();
    assert_eq!(options.advertise, "shop.example:80");
    assert_eq!(options.listen[0].to_string(), "127.0.0.1:9");
}

#[test]
fn no_two_names_share_a_folder_and_none_leads_out() {
    let folder = |text: &str| folder_name(&Name::new(text).unwrap());
    assert_eq!(folder("till-7.shop"), "till-7.shop");
    assert_eq!(folder("a/b:c"), "a%2Fb%3Ac");
    assert_eq!(folder(".."), "%2E.");
}

/// QC-33: the hubs that hold one log, and what does not go together with that.
#[test]
fn standbys_are_configured_whole_or_not_at_all() {
    let sound = concat!(
        "[standby]\nmember = \"a\"\nlisten = \"127.0.0.1:1\"\npeers = [\"b@127.0.0.1:2\"]\n",
        "election_listen = \"127.0.0.1:3\"\n",
        "election_members = [\"b@127.0.0.1:4\", \"w@127.0.0.1:5\"]\n",
    );
    let options = Config::parse(sound).unwrap().options().unwrap();
    let standby = options.standby.unwrap();
    assert_eq!((standby.member.as_str(), standby.acknowledge), ("a", 1));
    assert_eq!(standby.peers[0].name.as_str(), "b");
    assert_eq!(Config::parse("").unwrap().options().unwrap().standby, None);
    for (wrong, why) in [
        ("[standby]\nlisten = \"127.0.0.1:1\"\n".to_owned(), "member"),
        ("[standby]\nmember = \"a\"\n".to_owned(), "peers"),
        (sound.replace("b@", "a@"), "this hub is among them"),
        (sound.replace("[\"b@127.0.0.1:4\", \"w@", "[\"w@"), "all other hubs"),
        (sound.replace("\"w@127.0.0.1:5\"", "\"w@h:5\", \"x@h:6\", \"y@h:7\""), "at least 2"),
        (format!("{sound}acknowledge = 2\n"), "more than there are"),
        (format!("durability = \"written\"\n{sound}"), "synced"),
        (format!("role = \"leaf\"\nname = \"x\"\nbrokers = [\"h:1\"]\n{sound}"), "for hubs"),
        (sound.replace("127.0.0.1:1\"", "0.0.0.0:1\""), "without TLS"),
        (format!("{sound}[[ingest]]\nfolder = \"/x\"\ntype = \"t\"\n"), "[[ingest]]"),
    ] {
        let error = Config::parse(&wrong).unwrap().options().unwrap_err();
        assert!(error.message.contains(why), "{wrong}: {error}");
    }
}

#[test]
fn a_hub_with_standbys_is_one_broker_at_several_addresses() {
    let text =
        "role = \"leaf\"\nname = \"x\"\nbrokers = [\"hub@h:1\", \"hub@h:2\", \"other@h:3\"]\n";
    let options = Config::parse(text).unwrap().options().unwrap();
    let names: Vec<_> = options.upstream_names().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["hub", "other"]);
    assert_eq!(options.upstreams.len(), 3);
}
