//! Images of our programs, made of a release build and of what this machine links it with. There is no
//! shell in them, the user is not root, and nothing is written outside of `/tmp` and `/work`.
//!
//! `cargo xtask images` runs this. It is a program of its own, so that `xtask` itself builds in seconds.

mod libraries;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci::{Execution, Image, Placed, What, program_image};

use crate::libraries::libraries;

/// Libraries are put where the loader looks last, whatever folder they were linked from.
const LIBRARIES: &str = "/lib";
/// Files from this size on are a layer each: LibTorch stays where it is when the program changes.
const OWN_LAYER: u64 = 64 << 20;
/// As in distroless images.
const USER: &str = "65532:65532";
/// Where systems keep the certificates of authorities, in one file.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// A program that has an image of its own.
#[derive(Clone, Copy, Debug)]
pub struct Ours {
    /// The image's name, below the registry's prefix.
    pub image: &'static str,
    /// The file that cargo makes.
    pub program: &'static str,
    /// What the program is called in the image.
    name: &'static str,
    title: &'static str,
}

/// What there is to release.
pub const ALL: [Ours; 3] = [
    Ours {
        image: "operator",
        program: "anneal-operator",
        name: "anneal-operator",
        title: "Anneal's operator",
    },
    Ours { image: "trainer", program: "trainer-image", name: "trainer", title: "Anneal's trainer" },
    // The command as on anybody's machine: what serves in a pod is `anneal serve`.
    Ours { image: "server", program: "anneal", name: "anneal", title: "Anneal's server" },
];

impl Ours {
    /// The image of a build: its libraries, certificates, two folders for anybody, and the program.
    pub fn image(self, builds: &Path) -> Result<Image> {
        let program = builds.join(self.program);
        let mut base = vec![
            Placed { path: "/tmp".to_owned(), what: What::SharedFolder },
            Placed { path: "/work".to_owned(), what: What::SharedFolder },
            Placed { path: AUTHORITIES[0].to_owned(), what: What::File(authorities()?) },
            // Without it, names in /etc/hosts would be asked for last.
            Placed {
                path: "/etc/nsswitch.conf".to_owned(),
                what: What::Text("hosts: files dns\n"),
            },
        ];
        let (small, large) = placed(&program)?;
        base.extend(small);
        let layers = [vec![base], large, vec![vec![started(self.name, &program)]]].concat();
        let labels = [
            ("org.opencontainers.image.title", self.title),
            ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE")),
        ];
        let execution = Execution { labels: owned(&labels), ..execution(self.name) };
        program_image(&layers, execution).context("cannot make the image")
    }
}

/// The image of any one program, with nothing else but its libraries.
pub fn one(program: &Path) -> Result<Image> {
    let name = program.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} names no program", program.display()))?;
    let (mut small, large) = placed(program)?;
    small.push(started(name, program));
    let layers = [large, vec![small]].concat();
    program_image(&layers, execution(name)).context("cannot make the image")
}

fn path(name: &str) -> String {
    format!("/usr/local/bin/{name}")
}

fn started(name: &str, program: &Path) -> Placed {
    Placed { path: path(name), what: What::Program(program.to_owned()) }
}

fn execution(name: &str) -> Execution {
    Execution {
        user: USER.to_owned(),
        env: vec!["PATH=/usr/local/bin".to_owned(), format!("LD_LIBRARY_PATH={LIBRARIES}")],
        entrypoint: vec![path(name)],
        working_dir: "/".to_owned(),
        labels: BTreeMap::new(),
    }
}

fn owned(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A program's libraries: the small ones together, and a layer for each of the large ones.
fn placed(program: &Path) -> Result<(Vec<Placed>, Vec<Vec<Placed>>)> {
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for (path, file) in libraries(program)? {
        let size = std::fs::metadata(&file).with_context(|| file.display().to_string())?.len();
        let placed = Placed { path, what: What::Program(file) };
        if size >= OWN_LAYER {
            large.push(vec![placed]);
        } else {
            small.push(placed);
        }
    }
    Ok((small, large))
}

fn authorities() -> Result<PathBuf> {
    let found = AUTHORITIES.iter().map(PathBuf::from).find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "this machine has no certificates of authorities, and without them the image can speak to \
             no registry; next: install ca-certificates"
        ),
    }
}
