//! `type = "host"`.
