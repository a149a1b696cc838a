//! The architectures that are built for.

/// A machine's architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// 64-bit PC.
    #[value(name = "x86_64")]
    X86,
    /// 64-bit ARM.
    #[value(name = "aarch64")]
    Arm,
}

impl Arch {
    pub(crate) const ALL: [Self; 2] = [Self::X86, Self::Arm];

    /// This machine's.
    pub(crate) const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm } else { Self::X86 };

    /// Its name in Rust.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    /// Its name in Debian, and in images.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }

    /// Rust's target with glibc.
    pub(crate) fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.name())
    }

    /// The Debian package of the glibc that programs are linked with.
    pub(crate) fn libc_package(self) -> String {
        if self == Self::HOST {
            "libc6-dev".to_owned()
        } else {
            format!("libc6-dev-{}-cross", self.debian())
        }
    }
}
