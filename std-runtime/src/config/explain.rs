//! The table of keys as a file to read, and to start from.

use std::fmt::Write;

use replcore::stream::CLASS_DEFAULT;
use serde_json::{Value, json};

use super::Config;
use super::keys::{Field, Key, SECTIONS};
use super::parse::{describe, path};
use crate::ingest::{Afterwards, FileFormat};
use crate::store::LimitPolicy;

const WIDTH: usize = 92;

/// Every key with its meaning, type, unit, range and default, as a configuration file in which
/// every key is commented out: it is sound as it stands, and means all defaults.
pub fn explain() -> String {
    let mut text = String::from(
        "# replcore configuration (TOML). Every key is optional and shown with its default.\n\
         # Check a file with `replcore check --config FILE`; a running node reads it again on SIGHUP.\n",
    );
    let mut config = Config::default();
    for section in SECTIONS {
        text.push('\n');
        comment(&mut text, section.meaning);
        match (section.name, section.add) {
            ("", _) => {}
            (name, Some(_)) => {
                let _ = writeln!(text, "#[[{name}]]");
            }
            (name, None) => {
                let _ = writeln!(text, "[{name}]");
            }
        }
        for key in section.keys {
            text.push('\n');
            comment(&mut text, key.meaning);
            let reload = if key.reload { " Taken up at a reload." } else { "" };
            comment(&mut text, &format!("Value: {}.{reload}", describe(&key.kind)));
            let _ = writeln!(text, "#{} = {}", key.name, default(key, &mut config));
        }
    }
    text
}

/// The same for programs.
pub fn explain_json() -> Value {
    let mut config = Config::default();
    let mut keys = Vec::new();
    for section in SECTIONS {
        for key in section.keys {
            keys.push(json!({
                "key": path(section, key),
                "table": section.name,
                "repeatable": section.add.is_some(),
                "value": describe(&key.kind),
                "default": default(key, &mut config),
                "reload": key.reload,
                "meaning": key.meaning,
            }));
        }
    }
    json!({ "keys": keys })
}

/// The default as it would be written.
fn default(key: &Key, config: &mut Config) -> String {
    match (key.field)(config) {
        Field::U32(value) => value.to_string(),
        Field::U64(value) => value.to_string(),
        Field::Usize(value) => value.to_string(),
        Field::Flag(value) => value.to_string(),
        Field::Text(value) => toml::Value::from(value.as_str()).to_string(),
        Field::Texts(values) => {
            let values: Vec<_> =
                values.iter().map(|value| toml::Value::from(value.as_str()).to_string()).collect();
            format!("[{}]", values.join(", "))
        }
        Field::Policy(policy) => match policy {
            LimitPolicy::Refuse => "\"refuse\"".into(),
            LimitPolicy::ByKind => "\"by_kind\"".into(),
            LimitPolicy::DropOldest => "\"drop_oldest\"".into(),
            LimitPolicy::DropByClass => "\"drop_by_class\"".into(),
        },
        Field::Path(path) => toml::Value::from(path.to_string_lossy().as_ref()).to_string(),
        Field::Class(class) => class.unwrap_or(CLASS_DEFAULT).to_string(),
        Field::Format(format) => match format {
            FileFormat::Message => "\"message\"".into(),
            FileFormat::Json => "\"json\"".into(),
            FileFormat::Raw => "\"raw\"".into(),
            FileFormat::File => "\"file\"".into(),
        },
        Field::Afterwards(then) => match then {
            Afterwards::Move => "\"move\"".into(),
            Afterwards::Keep => "\"keep\"".into(),
            Afterwards::Delete => "\"delete\"".into(),
        },
        Field::Attributes(_) => "{}".into(),
    }
}

fn comment(text: &mut String, sentence: &str) {
    let mut line = String::from("#");
    for word in sentence.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}
