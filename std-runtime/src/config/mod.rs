//! What a node is told at its start.

use replcore::stream::Name;

/// A file or folder name for a node's name, with no two names sharing one and none leading out of
/// the folder it is put in: what is not a letter, digit, `_`, `-` or inner `.` becomes `%XX`.
pub fn folder_name(name: &Name) -> String {
    let mut folder = String::new();
    for (at, byte) in name.as_str().bytes().enumerate() {
        match byte {
            b'.' if at == 0 => folder.push_str("%2E"),
            b':' | b'/' => folder.push_str(&format!("%{byte:02X}")),
            _ => folder.push(char::from(byte)),
        }
    }
    folder
}
