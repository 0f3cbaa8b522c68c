//! LibTorch 2.11, which tch 0.24 binds: yours if `LIBTORCH` is set, else out of the PyPI wheels.
//!
//! The CPU libraries are taken out of the wheel alone (450 MB of its 1.5 GB); a machine with an
//! NVIDIA driver gets the whole wheel with its CUDA libraries.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::fetch::{self, Archive, Kind};
use crate::shell;

/// The version that tch is written against.
const VERSION: (&str, &str) = ("2", "11");

const ARCHIVES: [(Archive, &[&str]); 3] = [
    (
        Archive {
            requirement: "torch==2.11.0",
            file: "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl",
            sha256: "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
            kind: Kind::Wheel,
        },
        &[
            r"torch/(include/.*)=\1",
            r"torch/(lib/(?:libtorch_cpu|libc10)\.so)=\1",
            r"torch/lib/libgomp[^/]*=lib/libgomp.so.1",
        ],
    ),
    // libtorch_cpu.so of this wheel names these two; they need no GPU and no driver.
    (
        Archive {
            requirement: "nvidia-cuda-runtime==13.0.96",
            file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
            sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
            kind: Kind::Wheel,
        },
        &[r".*/lib/(libcudart\.so\.13)=lib/\1"],
    ),
    (
        Archive {
            requirement: "nvidia-cuda-cupti==13.0.85",
            file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
            sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
            kind: Kind::Wheel,
        },
        &[r".*/lib/(libcupti\.so\.13)=lib/\1"],
    ),
];

/// What the unpacked CPU folder must hold.
const LIBRARIES: [(&str, &str); 5] = [
    ("libtorch_cpu.so", "2e1034d418c1c881c86f67fc357b8723efc3f22bdb266f06aace8e6ca9c170b3"),
    ("libc10.so", "be5e17cd7752a6af003978706379384c3108f6b68916bb1949e610f6397bb640"),
    ("libgomp.so.1", "e28fb2896a3d612b46a27d7f8ef840d34c9efbc29b70a044c42095fb94856890"),
    ("libcudart.so.13", "96c42e418cec19054186b9429c321603cc190bf26a18104e19408117a2a817b0"),
    ("libcupti.so.13", "e2f9ed861fe27c492b8bb52b5e3220ef5120f3edcda36312e96b7fd8a186be3e"),
];

/// Written into a folder after its libraries were checked, with their sizes.
const STAMP: &str = "anneal-checked";

/// Makes `.libtorch` of the checkout, which cargo's configuration names, a checked LibTorch.
pub(crate) fn set_up() -> Result<()> {
    let link = shell::workspace().join(".libtorch");
    if let Some(own) = std::env::var_os("LIBTORCH").map(PathBuf::from)
        && own != link
    {
        check_version(&own).context("LIBTORCH is set, but")?;
        println!("    using your LIBTORCH={}", own.display());
        return Ok(());
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "no LibTorch is fetched for this kind of machine: install LibTorch {}.{} yourself and \
             set LIBTORCH to its folder",
            VERSION.0,
            VERSION.1
        );
    }
    let folder = if shell::has("nvidia-smi", "-L") { with_cuda()? } else { cpu_only()? };
    check_version(&folder)?;
    point(&link, &folder)
}

/// The CPU libraries and the headers.
fn cpu_only() -> Result<PathBuf> {
    let folder = shell::cache()?.join("libtorch-2.11.0-cpu");
    if is_checked(&folder)? {
        println!("    {} is there and checked", folder.display());
        return Ok(folder);
    }
    let unpacked = folder.with_extension(format!("new-{}", std::process::id()));
    for (archive, rules) in &ARCHIVES {
        let part = unpacked.join("part");
        fetch::unpack(&archive.fetch()?, &part, rules)?;
        merge(&part, &unpacked)?;
    }
    std::os::unix::fs::symlink("libtorch_cpu.so", unpacked.join("lib/libtorch.so"))?;
    if !is_checked(&unpacked)? {
        bail!("the libraries unpacked into {} are not the expected ones", unpacked.display());
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::rename(&unpacked, &folder)?;
    for (archive, _) in &ARCHIVES {
        fs::remove_file(archive.fetch()?)?;
    }
    println!("    wrote {}", folder.display());
    Ok(folder)
}

/// The whole wheel and the NVIDIA libraries that it depends on.
fn with_cuda() -> Result<PathBuf> {
    let folder = shell::cache()?.join("libtorch-2.11.0-cuda");
    let torch = folder.join("torch");
    if folder.join(STAMP).is_file() {
        println!("    {} is there", torch.display());
        return Ok(torch);
    }
    println!("    an NVIDIA driver is here: installing torch 2.11.0 with CUDA (about 3 GB)");
    let unpacked = folder.with_extension(format!("new-{}", std::process::id()));
    let mut install = fetch::pip();
    install.args(["install", "--quiet", "--disable-pip-version-check", "torch==2.11.0"]);
    shell::output(install.args(fetch::platform()).arg("--target").arg(&unpacked))?;
    fs::write(unpacked.join(STAMP), "")?;
    fs::rename(&unpacked, &folder)?;
    Ok(torch)
}

/// Moves `part/include` and `part/lib/*` into `whole`.
fn merge(part: &Path, whole: &Path) -> Result<()> {
    if part.join("include").is_dir() {
        fs::rename(part.join("include"), whole.join("include"))?;
    }
    fs::create_dir_all(whole.join("lib"))?;
    for entry in fs::read_dir(part.join("lib"))? {
        let entry = entry?;
        fs::rename(entry.path(), whole.join("lib").join(entry.file_name()))?;
    }
    Ok(fs::remove_dir_all(part)?)
}

/// Whether the folder's libraries are the expected ones. Their SHA-256 is computed once; after that
/// their sizes are compared.
fn is_checked(folder: &Path) -> Result<bool> {
    let mut sizes = String::new();
    for (name, _) in LIBRARIES {
        match fs::metadata(folder.join("lib").join(name)) {
            Ok(metadata) => writeln!(sizes, "{name} {}", metadata.len())?,
            Err(_) => return Ok(false),
        }
    }
    if fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == sizes) {
        return Ok(true);
    }
    for (name, expected) in LIBRARIES {
        if fetch::sha256(&folder.join("lib").join(name))? != expected {
            return Ok(false);
        }
    }
    fs::write(folder.join(STAMP), sizes)?;
    Ok(true)
}

fn check_version(folder: &Path) -> Result<()> {
    let header = folder.join("include/torch/headeronly/version.h");
    let text = fs::read_to_string(&header).with_context(|| {
        format!("{} is no LibTorch {}.{} folder", folder.display(), VERSION.0, VERSION.1)
    })?;
    let found = (defined(&text, "TORCH_VERSION_MAJOR"), defined(&text, "TORCH_VERSION_MINOR"));
    if found != (Some(VERSION.0), Some(VERSION.1)) {
        bail!(
            "{} holds LibTorch {}.{}, and {}.{} is needed",
            folder.display(),
            found.0.unwrap_or("?"),
            found.1.unwrap_or("?"),
            VERSION.0,
            VERSION.1
        );
    }
    Ok(())
}

fn defined<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.lines().find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name)).map(str::trim)
}

/// Makes `link` point to `folder`, in one step.
fn point(link: &Path, folder: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|target| target == folder) {
        return Ok(());
    }
    if link.is_dir() && !link.is_symlink() {
        bail!("{} is a folder and should be a link: move it away", link.display());
    }
    let fresh = link.with_extension(format!("new-{}", std::process::id()));
    std::os::unix::fs::symlink(folder, &fresh)?;
    fs::rename(&fresh, link).with_context(|| format!("cannot write {}", link.display()))?;
    println!("    .libtorch -> {}", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_version_is_read_from_the_header() {
        let header =
            "#pragma once\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n";
        assert_eq!(defined(header, "TORCH_VERSION_MINOR"), Some("11"));
        assert_eq!(defined(header, "TORCH_VERSION_PATCH"), None);
    }

    #[test]
    fn a_folder_that_is_no_libtorch_is_refused_by_name() {
        let error = check_version(Path::new("/nowhere")).unwrap_err().to_string();
        assert_eq!(error, "/nowhere is no LibTorch 2.11 folder");
    }
}
