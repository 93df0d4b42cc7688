//! What a node does with its queues: [`rules`] say which queues a record goes to, [`consumer`]
//! keeps the place of a program that reads one.

pub mod consumer;
pub mod rules;
