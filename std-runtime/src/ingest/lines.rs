//! Bytes to lines, lines to messages.

use serde::{Deserialize, Serialize};

use crate::api::{Bytes, NewMessage};

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineFormat {
    /// A message: a JSON object with `type`, `key`, `body` and the rest.
    Message,
    /// JSON of any shape: the body of a message.
    #[default]
    Json,
    /// The body of a message, as it is.
    Raw,
}

/// How lines become messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineRules {
    /// What a line is.
    pub format: LineFormat,
    /// What a message has that does not say otherwise.
    pub message: NewMessage,
    /// For [`LineFormat::Json`]: the field that gives the type; empty for none.
    pub type_field: String,
    /// For [`LineFormat::Json`]: the field that gives the key; empty for none.
    pub key_field: String,
}

impl LineRules {
    /// The message of a line.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn message(&self, text: &[u8]) -> Result<NewMessage, String> {
        match self.format {
            LineFormat::Message => {
                let message = serde_json::from_slice(text)
                    .map_err(|error| format!("it is not a message: {error}"))?;
                Ok(self.completed(message))
            }
            LineFormat::Json => self.json(text),
            LineFormat::Raw => {
                Ok(NewMessage { body: Bytes(text.to_vec()), ..self.message.clone() })
            }
        }
    }

    /// `message`, with what it does not say taken from the template.
    fn completed(&self, mut message: NewMessage) -> NewMessage {
        let template = &self.message;
        if message.message_type.is_empty() {
            message.message_type.clone_from(&template.message_type);
        }
        if message.content_type.is_empty() {
            message.content_type.clone_from(&template.content_type);
        }
        if message.to.is_empty() {
            message.to.clone_from(&template.to);
        }
        message.key = message.key.or_else(|| template.key.clone());
        message.class = message.class.or(template.class);
        message.ttl_ms = message.ttl_ms.or(template.ttl_ms);
        for (name, value) in &template.headers {
            message.headers.entry(name.clone()).or_insert_with(|| value.clone());
        }
        message
    }

    fn json(&self, text: &[u8]) -> Result<NewMessage, String> {
        let value: serde_json::Value =
            serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let field = |name: &str| match value.get(name) {
            Some(serde_json::Value::String(text)) => Ok(text.clone()),
            Some(serde_json::Value::Number(number)) => Ok(number.to_string()),
            Some(_) => Err(format!("its field {name:?} is neither a string nor a number")),
            None => Err(format!("it has no field {name:?}")),
        };
        let mut message = self.message.clone();
        if !self.type_field.is_empty() {
            message.message_type = field(&self.type_field)?;
        }
        if !self.key_field.is_empty() {
            message.key = Some(Bytes(field(&self.key_field)?.into_bytes()));
        }
        if message.content_type.is_empty() {
            message.content_type = "application/json".into();
        }
        message.body = Bytes(text.trim_ascii().to_vec());
        Ok(message)
    }
}

/// A line on its way to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number, from 1.
    pub(crate) number: u64,
    /// Where the next line begins.
    pub(crate) end: u64,
    /// Its bytes without the line end; `None` when it is over the limit.
    pub(crate) text: Option<Vec<u8>>,
}

/// Cuts a stream of bytes into lines. Lines end with LF or CR LF; the last may end with nothing. A
/// line over the limit costs no memory beyond it.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    line_bytes_max: usize,
    number: u64,
    offset: u64,
    partial: Vec<u8>,
    overlong: bool,
}

impl LineSplitter {
    /// Begins after line `number`, which ended at `offset`.
    pub(crate) fn new(line_bytes_max: usize, number: u64, offset: u64) -> Self {
        Self { line_bytes_max, number, offset, partial: Vec::new(), overlong: false }
    }

    /// Takes more bytes; gives each line that they complete and that is not empty to `each`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Line)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.offset += part.len() as u64;
            let (text, whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            // A CR before the LF is not of the line, and may just fit beyond the limit.
            if self.partial.len() + text.len() > self.line_bytes_max + 1 {
                self.overlong = true;
                self.partial = Vec::new();
            }
            if !self.overlong {
                self.partial.extend_from_slice(text);
            }
            if whole {
                self.complete(&mut each);
            }
        }
    }

    /// The end of the stream; gives a last line without line end.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(Line)) {
        if !self.partial.is_empty() || self.overlong {
            self.complete(&mut each);
        }
    }

    fn complete(&mut self, each: &mut impl FnMut(Line)) {
        self.number += 1;
        let mut text = std::mem::take(&mut self.partial);
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        let overlong = std::mem::take(&mut self.overlong) || text.len() > self.line_bytes_max;
        if !overlong && text.is_empty() {
            return;
        }
        let text = (!overlong).then_some(text);
        each(Line { number: self.number, end: self.offset, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(parts: &[&[u8]], max: usize) -> Vec<(u64, u64, Option<String>)> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::new(max, 0, 0);
        let text = |line: Line| {
            (line.number, line.end, line.text.map(|text| String::from_utf8(text).unwrap()))
        };
        for part in parts {
            splitter.push(part, |line| lines.push(text(line)));
        }
        splitter.finish(|line| lines.push(text(line)));
        lines
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_come() {
        let bytes = b"one\r\n\n  \ntwo\nthree is too long\r\n12345\r\n123456\nlast";
        let whole = split(&[bytes], 5);
        let expected = [
            (1, 5, Some("one".into())),
            (3, 9, Some("  ".into())),
            (4, 13, Some("two".into())),
            (5, 32, None),
            (6, 39, Some("12345".into())),
            (7, 46, None),
            (8, 50, Some("last".into())),
        ];
        assert_eq!(whole, expected);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(split(&single, 5), expected);
        for at in 0..bytes.len() {
            assert_eq!(split(&[&bytes[..at], &bytes[at..]], 5), expected, "cut at {at}");
        }
    }

    #[test]
    fn a_line_without_end_costs_no_more_than_the_limit() {
        let mut splitter = LineSplitter::new(100, 0, 0);
        for _ in 0..1000 {
            splitter.push(&[b'x'; 64], |_| panic!("no line ended"));
            assert!(splitter.partial.capacity() <= 256);
        }
    }

    #[test]
    fn json_gives_type_and_key_by_its_fields() {
        let rules = LineRules {
            type_field: "kind".into(),
            key_field: "sku".into(),
            message: NewMessage { class: Some(1), ..NewMessage::default() },
            ..LineRules::default()
        };
        let message = rules.message(b" {\"kind\":\"price\",\"sku\":17,\"n\":[1]} ").unwrap();
        assert_eq!(message.message_type, "price");
        assert_eq!(message.key.unwrap().0, b"17");
        assert_eq!(message.class, Some(1));
        assert_eq!(message.content_type, "application/json");
        assert_eq!(message.body.0, b"{\"kind\":\"price\",\"sku\":17,\"n\":[1]}");
        for (text, told) in [
            (&b"{\"kind\":\"price\"}"[..], "no field \"sku\""),
            (b"{\"kind\":[],\"sku\":1}", "neither"),
            (b"{\"kind\":", "not JSON"),
        ] {
            let error = rules.message(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_message_comes_before_the_template() {
        let template = NewMessage {
            message_type: "default".into(),
            to: vec!["hub".into()],
            headers: [("a".to_string(), Bytes(b"1".to_vec()))].into(),
            ..NewMessage::default()
        };
        let rules =
            LineRules { format: LineFormat::Message, message: template, ..LineRules::default() };
        let own =
            rules.message(b"{\"type\":\"own\",\"headers\":{\"a\":\"2\",\"b\":\"3\"}}").unwrap();
        assert_eq!((own.message_type.as_str(), own.to.len()), ("own", 1));
        assert_eq!((own.headers["a"].0.as_slice(), own.headers.len()), (&b"2"[..], 2));
        let bare = rules.message(b"{\"body\":\"x\"}").unwrap();
        assert_eq!(bare.message_type, "default");
        assert!(rules.message(b"{\"bodi\":\"x\"}").unwrap_err().contains("bodi"));
    }
}
