//! From text to [`Config`], by the table of keys.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Field, Key, Kind, SECTIONS, Section};
use super::{Config, ConfigError};
use crate::ingest::{Afterwards, FileFormat};
use crate::store::LimitPolicy;

/// Reads a whole file. All that is wrong is reported, not only the first.
pub(super) fn parse(text: &str) -> Result<Config, Vec<ConfigError>> {
    let mut reader = Reader { text, config: Config::default(), errors: Vec::new() };
    match DeTable::parse(text) {
        Ok(root) => reader.root(root.get_ref()),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            reader.error(at, format!("not TOML: {message}"));
        }
    }
    if reader.errors.is_empty() {
        reader.missing();
    }
    if reader.errors.is_empty() {
        return Ok(reader.config);
    }
    reader.errors.sort_by_key(|error| error.line);
    Err(reader.errors)
}

struct Reader<'t> {
    text: &'t str,
    config: Config,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    /// Lists of tables come last: what they leave out may be what a plain table says.
    fn root(&mut self, table: &DeTable<'_>) {
        let (top, sections) = SECTIONS.split_first().unwrap_or_else(|| unreachable!("not empty"));
        let find = |name: &str| sections.iter().find(|section: &&Section| section.name == name);
        let mut entries: Vec<_> =
            table.iter().map(|(name, value)| (find(name.get_ref()), name, value)).collect();
        entries.sort_by_key(|(section, ..)| section.is_some_and(|section| section.add.is_some()));
        for (section, name, value) in entries {
            let at = name.span().start;
            match (section, value.get_ref()) {
                (None, _) => self.key(top, name, value),
                (Some(section), DeValue::Table(table)) if section.add.is_none() => {
                    self.table(section, table);
                }
                (Some(section), DeValue::Array(tables)) if section.add.is_some() => {
                    for table in tables.iter() {
                        match table.get_ref() {
                            DeValue::Table(table) => self.table(section, table),
                            _ => self.error(at, form_of(section)),
                        }
                    }
                }
                (Some(section), _) => self.error(at, form_of(section)),
            }
        }
    }

    fn table(&mut self, section: &Section, table: &DeTable<'_>) {
        if let Some(add) = section.add {
            add(&mut self.config);
        }
        for (name, value) in table {
            self.key(section, name, value);
        }
    }

    fn key(
        &mut self,
        section: &Section,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let written = name.get_ref().as_ref();
        let Some(key) = section.keys.iter().find(|key| key.name == written) else {
            let error = unknown(section, written);
            return self.error(name.span().start, error);
        };
        if let Err(error) = set(key, &mut self.config, value.get_ref()) {
            self.error(value.span().start, format!("`{}` {error}", path(section, key)));
        }
    }

    /// Rules, schemas and limits that say nothing, or speak of the same thing twice, are mistakes.
    fn missing(&mut self) {
        if self.config.rules.iter().any(|rule| rule.to.is_empty()) {
            self.errors.push(ConfigError::new("a [[rule]] needs `to`: the queues it sends to"));
        }
        for (at, (name, _)) in self.config.queue_limits.iter().enumerate() {
            if name.is_empty() {
                let message = "a [[queue_limit]] needs `name`: the queue that it is for";
                self.errors.push(ConfigError::new(message));
            } else if self.config.queue_limits[..at].iter().any(|(other, _)| other == name) {
                let message = format!("two [[queue_limit]] for the queue `{name}`");
                self.errors.push(ConfigError::new(message));
            }
        }
        for (at, schema) in self.config.schemas.iter().enumerate() {
            if schema.message_type.is_empty() || schema.attributes.is_empty() {
                let message = "a [[schema]] needs `type` and `attributes`";
                self.errors.push(ConfigError::new(message));
            }
            let same = |other: &crate::schema::Schema| other.message_type == schema.message_type;
            if self.config.schemas[..at].iter().any(same) {
                let message = format!("two [[schema]] for the type `{}`", schema.message_type);
                self.errors.push(ConfigError::new(message));
            }
        }
    }

    fn error(&mut self, at: usize, message: String) {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        self.errors.push(ConfigError { line, message });
    }
}

fn form_of(section: &Section) -> String {
    match section.add {
        Some(_) => format!("`{0}` is a list of tables: write [[{0}]]", section.name),
        None => format!("`{0}` is a table: write [{0}]", section.name),
    }
}

/// The full name of a key, as in messages.
pub(super) fn path(section: &Section, key: &Key) -> String {
    match section.name {
        "" => key.name.to_owned(),
        name => format!("{name}.{}", key.name),
    }
}

fn unknown(section: &Section, written: &str) -> String {
    let whole = match section.name {
        "" => written.to_owned(),
        name => format!("{name}.{written}"),
    };
    // The same name in another table is nearer than any other spelling.
    let moved = SECTIONS.iter().find_map(|other| {
        let key = other.keys.iter().find(|key| key.name == written)?;
        Some(path(other, key))
    });
    let here = section.keys.iter().map(|key| path(section, key));
    let everywhere = SECTIONS.iter().flat_map(|other| {
        let own = (!other.name.is_empty()).then(|| other.name.to_owned());
        own.into_iter().chain(other.keys.iter().map(move |key| path(other, key)))
    });
    let near = |candidates: Vec<String>| {
        let scored =
            candidates.into_iter().map(|name| (strsim::damerau_levenshtein(&name, &whole), name));
        scored
            .min()
            .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
            .map(|(_, name)| name)
    };
    match moved.or_else(|| near(here.collect())).or_else(|| near(everywhere.collect())) {
        Some(name) => format!("unknown key `{whole}`; did you mean `{name}`?"),
        None => format!("unknown key `{whole}`; `replcore config --explain` lists all"),
    }
}

/// What the values of a key are, for messages and for `--explain`.
pub(super) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Integer { unit, min, max } => format!("a whole number of {unit}, {min} to {max}"),
        Kind::Flag => "true or false".into(),
        Kind::Text { form, .. } => format!("a text: {form}"),
        Kind::Texts { form, .. } => format!("a list of texts: {form}"),
        Kind::Choice(choices) => {
            let quoted: Vec<_> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
            format!("one of {}", quoted.join(", "))
        }
        Kind::Attributes => "a table of names with \"text\", \"float\" or \"integer\"".into(),
    }
}

fn set(key: &Key, config: &mut Config, value: &DeValue<'_>) -> Result<(), String> {
    let must_be = || format!("must be {}", describe(&key.kind));
    let found = |found: &dyn std::fmt::Display| format!("is {found}; it {}", must_be());
    let field = (key.field)(config);
    match (&key.kind, field) {
        (Kind::Integer { min, max, .. }, field) => {
            let number = value.as_integer().ok_or_else(must_be)?;
            let digits = number.as_str().replace('_', "");
            let parsed = u64::from_str_radix(&digits, number.radix());
            let in_range = parsed.ok().filter(|number| (*min..=*max).contains(number));
            let number = in_range.ok_or_else(|| found(&number.as_str()))?;
            match field {
                Field::U32(to) => *to = number.try_into().map_err(|_| must_be())?,
                Field::U64(to) => *to = number,
                Field::Usize(to) => *to = number.try_into().map_err(|_| must_be())?,
                Field::Class(to) => *to = Some(number.try_into().map_err(|_| must_be())?),
                _ => unreachable!("an integer goes into a number"),
            }
        }
        (Kind::Flag, Field::Flag(to)) => *to = value.as_bool().ok_or_else(must_be)?,
        (Kind::Text { check, .. }, field) => {
            let text = value.as_str().ok_or_else(must_be)?;
            check(text).map_err(|error| format!("is wrong: {error}"))?;
            match field {
                Field::Text(to) => text.clone_into(to),
                Field::Path(to) => *to = text.into(),
                _ => unreachable!("a text goes into a text or a path"),
            }
        }
        (Kind::Texts { check, .. }, Field::Texts(to)) => {
            let mut texts = Vec::new();
            for text in value.as_array().ok_or_else(must_be)?.iter() {
                let text = text.get_ref().as_str().ok_or_else(must_be)?;
                check(text).map_err(|error| format!("is wrong: {error}"))?;
                texts.push(text.to_owned());
            }
            *to = texts;
        }
        (Kind::Choice(choices), field) => {
            let text = value.as_str().ok_or_else(must_be)?;
            if !choices.contains(&text) {
                return Err(found(&format!("\"{text}\"")));
            }
            match field {
                Field::Text(to) => text.clone_into(to),
                Field::Policy(to) => *to = policy(text),
                Field::Format(to) => *to = format(text),
                Field::Afterwards(to) => *to = afterwards(text),
                _ => unreachable!("a choice goes into a text or a policy"),
            }
        }
        (Kind::Attributes, Field::Attributes(to)) => {
            for (name, kind) in value.as_table().ok_or_else(must_be)? {
                let kind = kind.get_ref().as_str().ok_or_else(must_be)?;
                to.attributes.insert(name.get_ref().to_string(), kind.parse()?);
            }
        }
        _ => unreachable!("the kind of a key goes with its field"),
    }
    Ok(())
}

fn format(text: &str) -> FileFormat {
    match text {
        "message" => FileFormat::Message,
        "raw" => FileFormat::Raw,
        "file" => FileFormat::File,
        _ => FileFormat::Json,
    }
}

fn afterwards(text: &str) -> Afterwards {
    match text {
        "keep" => Afterwards::Keep,
        "delete" => Afterwards::Delete,
        _ => Afterwards::Move,
    }
}

fn policy(text: &str) -> LimitPolicy {
    match text {
        "drop_oldest" => LimitPolicy::DropOldest,
        "drop_by_class" => LimitPolicy::DropByClass,
        "refuse" => LimitPolicy::Refuse,
        _ => LimitPolicy::ByKind,
    }
}
