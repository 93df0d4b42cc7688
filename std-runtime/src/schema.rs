//! What messages of a type must look like, checked where they are posted and nowhere else.
//!
//! A schema is optional. For a type that has one, the body must be a JSON object whose attributes
//! are those of the schema, each a text, a float or an integer (HS-29). Attribute names are
//! compared, never used as names of anything. Checked is whatever a program posts: as a call, over HTTP,
//! from a folder, or as a stream of records, of which those that are refused are passed over and told.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::api::{ApiError, ErrorKind};

/// What the value of an attribute may be. The same three as ever: no null, no boolean, no nesting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeType {
    /// A JSON string.
    Text,
    /// A JSON number, whole ones included.
    Float,
    /// A JSON number without fraction or exponent, from -2^63 to 2^63 - 1.
    Integer,
}

impl AttributeType {
    /// `text`, `float` or `integer`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Float => "float",
            Self::Integer => "integer",
        }
    }

    fn admits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Float => value.is_number(),
            Self::Integer => value.is_i64(),
        }
    }
}

impl fmt::Display for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AttributeType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Text, Self::Float, Self::Integer]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a type: write text, float or integer"))
    }
}

/// The attributes of the messages of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// The type of message, exactly.
    pub message_type: String,
    /// Attributes that may be there, by name. An attribute may be missing.
    pub attributes: BTreeMap<String, AttributeType>,
}

/// Checks a body against the schema of its type; a type without a schema may be anything.
///
/// # Errors
/// [`ErrorKind::Invalid`], naming the attribute and what it should be.
pub fn check(schemas: &[Schema], message_type: &str, body: &[u8]) -> Result<(), ApiError> {
    let Some(schema) = schemas.iter().find(|schema| schema.message_type == message_type) else {
        return Ok(());
    };
    let refuse = |what: String| {
        let kind = &schema.message_type;
        Err(ApiError::new(ErrorKind::Invalid, format!("messages of type `{kind}` {what}")))
    };
    let attributes: BTreeMap<String, Value> = match serde_json::from_slice(body) {
        Ok(attributes) => attributes,
        Err(error) => return refuse(format!("are JSON objects, and this one is not: {error}")),
    };
    for (name, value) in &attributes {
        let Some(expected) = schema.attributes.get(name) else {
            let known: Vec<_> = schema.attributes.keys().map(String::as_str).collect();
            return refuse(format!("have no attribute {name:?}; they have {}", known.join(", ")));
        };
        if !expected.admits(value) {
            let found = kind_of(value);
            return refuse(format!("have a {expected} as attribute {name:?}, not {found}"));
        }
    }
    Ok(())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a float",
        Value::Number(_) => "an integer out of range",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::check as schema_check;
    use super::*;

    /// HS-29: attribute types outside the schema are refused with a clear error.
    #[test]
    fn attributes_outside_the_schema_are_refused() {
        let attributes = [("name", "text"), ("weight", "float"), ("count", "integer")];
        let schema = Schema {
            message_type: "serial_numbers".into(),
            attributes: attributes
                .map(|(name, kind)| (name.to_owned(), kind.parse().unwrap()))
                .into(),
        };
        let check = |message_type: &str, body: &str| {
            let schemas = std::slice::from_ref(&schema);
            schema_check(schemas, message_type, body.as_bytes()).map_err(|error| error.message)
        };
        assert_eq!(check("serial_numbers", r#"{"name":"a","weight":1,"count":-3}"#), Ok(()));
        assert_eq!(check("serial_numbers", r#"{"name":"'; DROP TABLE x"}"#), Ok(()));
        assert_eq!(check("other", "anything"), Ok(()));
        for (body, expected) in [
            (r#"{"name":1}"#, "\"name\""),
            (r#"{"count":1.5}"#, "\"count\", not a float"),
            (r#"{"count":18446744073709551615}"#, "out of range"),
            (r#"{"weight":"x"}"#, "not a text"),
            (r#"{"name":null}"#, "not null"),
            (r#"{"name":true}"#, "not a boolean"),
            (r#"{"name":{}}"#, "not an object"),
            (r#"{"name; DROP":"x"}"#, "no attribute \"name; DROP\""),
            ("[1]", "JSON objects"),
            ("not json", "JSON objects"),
        ] {
            let error = check("serial_numbers", body).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
