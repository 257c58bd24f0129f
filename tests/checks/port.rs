//! `type = "port"`.
