//! The shared libraries that a program needs, as this machine's loader finds them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::LIBRARIES;

/// The loader and every library: their places in an image, and the files here. None of a program that is
/// linked statically.
pub(crate) fn libraries(program: &Path) -> Result<BTreeMap<String, PathBuf>> {
    ensure!(
        program.is_file(),
        "there is no program {}; next: `cargo xtask images` builds it",
        program.display()
    );
    let mut magic = [0; 4];
    let read = File::open(program).and_then(|mut file| file.read_exact(&mut magic));
    ensure!(
        read.is_ok() && magic == *b"\x7fELF",
        "{} is no program of this kind of system, and in an image there is no shell to run it",
        program.display()
    );
    let output = Command::new("ldd").arg(program).output().context("cannot start `ldd`")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let is_static = [&told, &errors].iter().any(|text| text.contains("not a dynamic"));
        ensure!(is_static, "`ldd {}` failed: {}", program.display(), errors.trim());
        return Ok(BTreeMap::new());
    }
    parse(&told).with_context(|| format!("what {} is linked with", program.display()))
}

/// Reads lines such as `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)`.
fn parse(told: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for line in told.lines().map(str::trim) {
        let Some((what, _address)) = line.rsplit_once(" (0x") else {
            if line.contains("not found") {
                bail!("a library is missing on this machine: {line}");
            }
            continue;
        };
        let (name, path) = what.split_once(" => ").unwrap_or(("", what));
        if !path.starts_with('/') {
            // The kernel's own, which is no file.
            continue;
        }
        let place = match name {
            // The loader has its place in the program itself.
            "" => path.to_owned(),
            name if name.starts_with('/') => name.to_owned(),
            name => format!("{LIBRARIES}/{name}"),
        };
        found.insert(place, PathBuf::from(path));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn libraries_are_placed_by_name_and_the_loader_by_path() {
        let told = "\tlinux-vdso.so.1 (0x00007ff9dc657000)\n\
                    \tlibtorch_cpu.so => /some/where/libtorch_cpu.so (0x00007ff9c5200000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007ff9dc659000)\n";
        let found = parse(told).unwrap();
        let expected = [
            ("/lib/libtorch_cpu.so", "/some/where/libtorch_cpu.so"),
            ("/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"),
        ];
        let expected = expected.map(|(place, file)| (place.to_owned(), PathBuf::from(file)));
        assert_eq!(found, BTreeMap::from(expected));
        let missing = parse("\tlibgone.so.1 => not found\n").unwrap_err().to_string();
        assert!(missing.contains("libgone.so.1"), "{missing}");
    }
}
