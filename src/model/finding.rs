//! What an examination finds: one line each, with what to do.

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// What it is about: a service, a user, a part of the machine.
    pub about: String,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub todo: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Grade {
    /// As it should be.
    Ok,
    /// It works, but somebody may want to know.
    Warning,
    /// Something will not work.
    Error,
}

impl Grade {
    /// Every grade.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Warning, Self::Error];

    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(about: &str, text: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, about: about.to_owned(), text: text.into(), todo: None }
    }

    /// Something to know.
    #[must_use]
    pub fn warning(about: &str, text: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::bad(Grade::Warning, about, text.into(), todo.into())
    }

    /// Something that will not work.
    #[must_use]
    pub fn error(about: &str, text: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::bad(Grade::Error, about, text.into(), todo.into())
    }

    fn bad(grade: Grade, about: &str, text: String, todo: String) -> Self {
        Self {
            grade,
            about: about.to_owned(),
            text,
            todo: Some(todo).filter(|todo| !todo.is_empty()),
        }
    }
}
