//! Vectors as text: fields, hex, and the comparison with the files.

use core::fmt::Write as _;
use std::path::PathBuf;

use replcore::wire::Text;

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file)
}

/// One vector: its name, its fields in order, its bytes.
#[derive(Debug, PartialEq)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) bytes: Vec<u8>,
}

fn render(head: &str, vectors: &[Vector]) -> String {
    let mut text = head.lines().fold(String::new(), |text, line| text + "# " + line + "\n");
    for vector in vectors {
        write!(text, "\nvector: {}\n", vector.name).unwrap();
        for (field, value) in &vector.fields {
            writeln!(text, "{field}: {value}").unwrap();
        }
        text.push_str("bytes:");
        for (at, chunk) in vector.bytes.chunks(32).enumerate() {
            text.push_str(if at == 0 { " " } else { "\n  " });
            chunk.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        }
        text.push('\n');
    }
    text
}

fn parse(text: &str) -> Vec<Vector> {
    let mut vectors: Vec<Vector> = Vec::new();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in lines {
        if let Some(hex) = line.strip_prefix("  ") {
            vectors.last_mut().unwrap().bytes.extend(bytes_of(hex));
            continue;
        }
        let (field, value) = line.split_once(':').unwrap();
        let value = value.trim();
        match field {
            "vector" => {
                let name = value.to_string();
                vectors.push(Vector { name, fields: Vec::new(), bytes: Vec::new() });
            }
            "bytes" => vectors.last_mut().unwrap().bytes.extend(bytes_of(value)),
            _ => vectors.last_mut().unwrap().fields.push((field.to_string(), value.to_string())),
        }
    }
    vectors
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Compares `vectors` with the file, or writes the file when told to; then gives back what the file
/// holds, read by the parser.
pub(crate) fn check_file(file: &str, head: &str, vectors: &[Vector]) -> Vec<Vector> {
    let text = render(head, vectors);
    if std::env::var_os("REPLCORE_WRITE_VECTORS").is_some() {
        std::fs::write(path(file), &text).unwrap();
    }
    let kept = std::fs::read_to_string(path(file)).unwrap();
    for (line, (kept, made)) in kept.lines().zip(text.lines()).enumerate() {
        assert_eq!(kept, made, "{file} line {}: left is the file, right is the code", line + 1);
    }
    assert_eq!(kept.lines().count(), text.lines().count(), "{file} has more or fewer vectors");
    let parsed = parse(&kept);
    assert_eq!(parsed, vectors, "{file} does not read back as it was written");
    parsed
}

#[derive(Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    pub(crate) fn number(&mut self, field: &str, value: impl Into<u64>) {
        self.0.push((field.into(), value.into().to_string()));
    }

    pub(crate) fn text<'t>(&mut self, field: &str, value: impl Into<Text<'t>>) {
        let Text(value) = value.into();
        assert!(value.iter().all(|byte| (b' '..=b'~').contains(byte)));
        self.0.push((field.into(), format!("\"{}\"", str::from_utf8(value).unwrap())));
    }

    pub(crate) fn hex(&mut self, field: &str, value: &[u8]) {
        let hex = value.iter().fold(String::from("0x"), |hex, byte| hex + &format!("{byte:02x}"));
        self.0.push((field.into(), hex));
    }

    /// The name of a variant in the words of `docs/wire.md`: lower case, `_` between words.
    pub(crate) fn variant(&mut self, field: &str, value: impl core::fmt::Debug) {
        let mut words = String::new();
        for letter in format!("{value:?}").chars() {
            if letter.is_uppercase() && !words.is_empty() {
                words.push('_');
            }
            words.extend(letter.to_lowercase());
        }
        self.0.push((field.into(), words));
    }
}
