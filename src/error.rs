//! The one error type: what step, which object, which errno, what the kernel said,
//! and what to do.

use crate::flaw::Flaw;
use crate::sys::Errno;
use std::fmt;

/// The result of belljar's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a sandbox could not be built, started or waited for.
///
/// Its `Display` is one line:
/// `step 14 of 31: mount the overlay of 2 layers as the root: EINVAL (Invalid argument); kernel: "…"; try: …`.
#[derive(thiserror::Error)]
#[error("{0}")]
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    step: Option<Step>,
    what: String,
    errno: Option<Errno>,
    kernel: Option<String>,
    hint: Option<String>,
    defects: Vec<Defect>,
    flaw: Option<Flaw>,
}

/// What an [`Error`] is about, for programs to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The specification contradicts itself; see [`Error::defects`]. Nothing was started.
    InvalidSpec,
    /// This kernel or host does not offer what was asked for.
    NotSupported,
    /// The caller may not do this (`EPERM`, `EACCES`).
    NotPermitted,
    /// A path that the specification names is not there.
    NotFound,
    /// The payload's program is not there, inside the sandbox.
    ProgramNotFound,
    /// The payload's program is there but cannot be executed.
    ProgramNotExecutable,
    /// A limit of the host is reached: processes, descriptors, memory, namespaces.
    LimitReached,
    /// The object is in use by another sandbox or process.
    Busy,
    /// The time given to the call is over.
    TimedOut,
    /// A layer or an image is not what it must be; see [`Error::flaw`].
    InvalidImage,
    /// Any other failure of a system call.
    Other,
}

/// The place of a failed step in its Program; see [`Sandbox::explain`](crate::Sandbox::explain).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    number: u32,
    total: u32,
    name: &'static str,
}

impl Step {
    pub(crate) fn new(index: u32, total: u32, name: &'static str) -> Step {
        Step { number: index + 1, total, name }
    }

    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The number of steps.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// The operation's name, as `explain` prints it.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// One contradiction in a specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    what: String,
    hint: String,
}

impl Defect {
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Defect {
        Defect { what: what.into(), hint: hint.into() }
    }

    /// What is wrong.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to write instead.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; try: {}", self.what, self.hint)
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            step: None,
            what: what.into(),
            errno: None,
            kernel: None,
            hint: None,
            defects: Vec::new(),
            flaw: None,
        }))
    }

    /// A failed system call; the kind follows from the errno.
    pub(crate) fn call(what: impl Into<String>, errno: Errno) -> Error {
        let mut error = Error::new(ErrorKind::of(errno), what);
        error.0.errno = Some(errno);
        error
    }

    pub(crate) fn spec(defects: Vec<Defect>) -> Error {
        let mut error = Error::new(ErrorKind::InvalidSpec, "the sandbox cannot be built");
        error.0.defects = defects;
        error
    }

    #[cfg(feature = "image")]
    pub(crate) fn flawed(flaw: Flaw) -> Error {
        let mut error = Error::new(ErrorKind::InvalidImage, "");
        error.0.flaw = Some(flaw);
        error
    }

    pub(crate) fn at(mut self, step: Step) -> Error {
        self.0.step = Some(step);
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    pub(crate) fn with_kernel(mut self, message: &str) -> Error {
        self.0.kernel = (!message.is_empty()).then(|| message.to_owned());
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// What the error is about.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The step that failed, when the set-up of a sandbox did.
    pub fn step(&self) -> Option<&Step> {
        self.0.step.as_ref()
    }

    /// The operation and the object that it failed on.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The errno, when a system call failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.errno.map(|errno| errno.0)
    }

    /// What the kernel itself said (the log of a file system context, fsopen(2)).
    pub fn kernel_message(&self) -> Option<&str> {
        self.0.kernel.as_deref()
    }

    /// The likely remedy.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// All contradictions of the specification, for [`ErrorKind::InvalidSpec`].
    pub fn defects(&self) -> &[Defect] {
        &self.0.defects
    }

    /// What is wrong with a layer or image, for [`ErrorKind::InvalidImage`].
    pub fn flaw(&self) -> Option<&Flaw> {
        self.0.flaw.as_ref()
    }
}

impl ErrorKind {
    fn of(errno: Errno) -> ErrorKind {
        match errno {
            Errno::EPERM | Errno::EACCES | Errno::EROFS => ErrorKind::NotPermitted,
            Errno::ENOENT | Errno::ENOTDIR => ErrorKind::NotFound,
            Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENOSPC | Errno::EUSERS => ErrorKind::LimitReached,
            Errno::EBUSY => ErrorKind::Busy,
            Errno::ENOSYS | Errno::EINVAL | Errno::ENODEV | Errno::EOPNOTSUPP => ErrorKind::NotSupported,
            _ => ErrorKind::Other,
        }
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.step {
            write!(f, "step {} of {}: ", step.number, step.total)?;
        }
        f.write_str(&self.what)?;
        if let Some(flaw) = &self.flaw {
            write!(f, "{flaw}")?;
        }
        if let Some(errno) = self.errno {
            write!(f, ": {errno}")?;
        }
        if let Some(kernel) = &self.kernel {
            write!(f, "; kernel: {kernel:?}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; try: {hint}")?;
        }
        for (i, defect) in self.defects.iter().enumerate() {
            write!(f, "{} ({}) {defect}", if i == 0 { ":" } else { ";" }, i + 1)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {self})", self.0.kind)
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(errno) => std::io::Error::from_raw_os_error(errno).kind(),
            None => std::io::ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}
