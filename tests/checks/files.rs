//! `type = "files"`.
