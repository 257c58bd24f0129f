//! `type = "certificate"`.
