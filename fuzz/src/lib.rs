//! What the fuzz targets do with their bytes. Each is a function over a slice, so that an input
//! which once failed can be run by an ordinary test as well.

pub mod decode;
pub mod disk;
pub mod leaf;
pub mod machine;
pub mod node;
pub mod store_ops;
