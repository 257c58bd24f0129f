//! `type = "program"`.
