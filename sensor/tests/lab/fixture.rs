//! Builds the XZ-like fixture (`tests/fixtures/xz_like.c`) and says what to put where.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{machine::QUICK, process::must, sshd::SSHD};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
const PT_GNU_RELRO: u32 = 0x6474_e552;

/// What stands in front of liblzma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Nothing: the distribution's sshd as it is.
    Clean,
    /// The extra library, which redirects nothing.
    Control,
    /// A constructor lifts RELRO, patches the slot and seals again.
    Constructor,
    /// A constructor patches the slot of a copy of sshd that has no RELRO.
    NoRelro,
    /// An rtld-audit library answers with the wrapper when the slot is bound.
    Audit,
    /// As [`Self::Constructor`], and the wrapper jumps, so that the return address is sshd's.
    TailJump,
}

/// A fixture built for one server.
#[derive(Debug, Default)]
pub(crate) struct Fixture {
    /// (file, path it is to appear at), in the server's private mount namespace.
    pub(crate) mounts: Vec<(PathBuf, PathBuf)>,
    /// Environment of the server.
    pub(crate) env: Vec<(String, String)>,
    library: Option<PathBuf>,
    hook: Option<PathBuf>,
    audit: Option<PathBuf>,
}

impl Variant {
    /// Every variant that redirects sshd's slot of `RSA_public_decrypt`.
    pub(crate) const HOOKING: [Self; 4] =
        [Self::Constructor, Self::NoRelro, Self::Audit, Self::TailJump];

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Clean | Self::Control | Self::Audit => &[],
            Self::Constructor => &["-DROUTE_CONSTRUCTOR"],
            Self::NoRelro => &["-DROUTE_WRITABLE"],
            Self::TailJump => &["-DROUTE_CONSTRUCTOR", "-DTAIL_JUMP"],
        }
    }
}

impl Fixture {
    /// Compiles the fixture into `dir`, where it must stay while the server runs.
    pub(crate) fn build(dir: &Path, variant: Variant, burn_ms: u32) -> Result<Self> {
        let mut fixture = Self::default();
        if variant == Variant::Clean {
            if burn_ms != 0 {
                bail!("a clean server has nothing that could burn {burn_ms} ms");
            }
            return Ok(fixture);
        }
        let liblzma = liblzma_of(Path::new(SSHD))?;
        let library = dir.join("liblzma.so.5");
        front_library(dir, &library, &liblzma, variant, burn_ms)?;
        fixture.mounts.push((library.clone(), liblzma));
        match variant {
            Variant::Clean | Variant::Control => {}
            Variant::Constructor | Variant::TailJump => fixture.hook = Some(library.clone()),
            Variant::NoRelro => {
                let server = dir.join("sshd");
                copy_without_relro(Path::new(SSHD), &server)?;
                fixture.mounts.push((server, SSHD.into()));
                fixture.hook = Some(library.clone());
            }
            Variant::Audit => {
                let audit = dir.join("xz_like_audit.so");
                compile(&["xz_like_audit.c"], &[], &audit)?;
                fixture.env.push(("LD_AUDIT".to_owned(), audit.display().to_string()));
                fixture.audit = Some(audit.clone());
                fixture.hook = Some(audit);
            }
        }
        fixture.library = Some(library);
        Ok(fixture)
    }

    /// Takes away what the environment already names: the loader goes on without it.
    pub(super) fn withhold(&self) -> Result<()> {
        self.audit.as_ref().map_or(Ok(()), |audit| Ok(fs::rename(audit, withheld(audit))?))
    }

    /// The opposite of [`Self::withhold`].
    pub(super) fn release(&self) -> Result<()> {
        self.audit.as_ref().map_or(Ok(()), |audit| Ok(fs::rename(withheld(audit), audit)?))
    }

    /// The built file in front of liblzma, where the resolver burns; none for a clean server.
    /// The server itself maps it under liblzma's path.
    pub(crate) fn library(&self) -> Option<&Path> {
        self.library.as_deref()
    }

    /// The built file whose wrapper the slot leads to; none where nothing is redirected.
    pub(crate) fn hook_library(&self) -> Option<&Path> {
        self.hook.as_deref()
    }
}

fn withheld(audit: &Path) -> PathBuf {
    audit.with_extension("withheld")
}

/// The liblzma that the loader finds for `server`.
fn liblzma_of(server: &Path) -> Result<PathBuf> {
    let listing = must(Command::new("ldd").arg(server), "", QUICK)?;
    let line = listing.lines().find(|line| line.trim_start().starts_with("liblzma.so.5 "));
    let path = line.and_then(|line| line.split_whitespace().nth(2)).with_context(|| {
        format!(
            "{} does not load liblzma: the fixture needs Debian 12's openssh-server",
            server.display()
        )
    })?;
    Ok(fs::canonicalize(path)?)
}

/// A library with liblzma's name, which needs a private copy of the real one by its full path.
fn front_library(
    dir: &Path,
    library: &Path,
    liblzma: &Path,
    variant: Variant,
    burn_ms: u32,
) -> Result<()> {
    // The linker copies a library's own name into the list of needed ones; the real one's is
    // liblzma.so.5, which the loader would take for this library. A nameless one goes in by path.
    let real = dir.join("liblzma-real.so.5");
    let stub = dir.join("stub.c");
    fs::write(&stub, "")?;
    must(Command::new("cc").args(["-shared", "-o"]).arg(&real).arg(&stub), "", QUICK)?;
    let burn = format!("-DBURN_MS={burn_ms}");
    let needed = real.display().to_string();
    let mut flags = vec![burn.as_str(), "-Wl,-soname,liblzma.so.5", "-Wl,--no-as-needed", &needed];
    flags.extend(variant.flags());
    compile(&["xz_like.c"], &flags, library)?;
    fs::copy(liblzma, &real).context("copying the real liblzma")?;
    Ok(())
}

fn compile(sources: &[&str], flags: &[&str], output: &Path) -> Result<()> {
    let mut cc = Command::new("cc");
    cc.current_dir(SOURCES);
    cc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"]);
    // The resolver runs half relocated: no calls the source does not show.
    cc.args(["-fno-builtin", "-fno-stack-protector", "-Wl,-z,relro,-z,now"]);
    must(cc.args(sources).args(flags).arg("-o").arg(output), "", QUICK)?;
    Ok(())
}

/// Copies an ELF64 file and turns its `PT_GNU_RELRO` header into `PT_NULL`: the loader then seals
/// nothing, although it still binds everything at start.
fn copy_without_relro(from: &Path, to: &Path) -> Result<()> {
    let mut bytes = fs::read(from).with_context(|| from.display().to_string())?;
    let header = relro_header(&bytes).context("no PT_GNU_RELRO program header")?;
    bytes.get_mut(header..header + 4).context("a header past the end")?.fill(0);
    fs::write(to, bytes)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    Ok(())
}

/// Offset of the RELRO program header (ELF64: `e_phoff` at 32, `e_phentsize` at 54, `e_phnum` at 56).
fn relro_header(bytes: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let table = u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?);
    let (table, size) = (usize::try_from(table).ok()?, usize::from(word(54)?));
    (0..usize::from(word(56)?))
        .map(|index| table + index * size)
        .find(|&at| bytes.get(at..at + 4) == Some(&PT_GNU_RELRO.to_le_bytes()[..]))
}
