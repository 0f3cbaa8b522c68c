//! Images made to harm, and images of other builders: what is let onto the disk, and what is not.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write as _;
use std::path::Path;

use oci::{Options, PullOptions, Root, Target, sha256};
use serde_json::json;
use tar::{Builder, EntryType, Header};

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// An archive, entry by entry, with names as they are given.
struct Layer(Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Layer {
    fn add(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        // Past the checks of `set_path`, which a harmful image would not make.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.add(EntryType::Regular, name, "", content.as_bytes())
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A layout of these layers, each with its media type. Digests of unpacked layers are right.
fn store(layout: &Path, layers: &[(&str, Vec<u8>, Vec<u8>)]) -> Target {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(blobs.join(&digest["sha256:".len()..]), bytes).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    };
    let diff_ids: Vec<_> = layers.iter().map(|(_, _, unpacked)| sha256(unpacked)).collect();
    let config = json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = serde_json::to_vec(&config).unwrap();
    let config = put("application/vnd.oci.image.config.v1+json", &config);
    let mut layers: Vec<_> = layers.iter().map(|(kind, packed, _)| put(kind, packed)).collect();
    for layer in &mut layers {
        if layer["mediaType"] == "application/vnd.cncf.model.weight.config.v1.raw" {
            layer["annotations"] = json!({"org.cncf.model.filepath": "conf/config.json"});
        }
    }
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut entry = put("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    Target::layout(layout, "v1")
}

fn pull_with(
    layers: &[(&str, Vec<u8>, Vec<u8>)],
    what: &PullOptions,
    check: impl FnOnce(&Path, Result<oci::Pulled, oci::Error>),
) {
    let folder = tempfile::tempdir().unwrap();
    let target = store(&folder.path().join("image"), layers);
    let to = folder.path().join("to");
    check(&to, oci::blocking::pull(&target, &to, what, &Options::default()));
    // Whatever an image holds, nothing appears beside the folder.
    let mut names: Vec<_> =
        folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    names.retain(|n| n != "image" && n != "to" && n != ".to.pulling");
    assert!(names.is_empty(), "{names:?}");
}

fn plain(layer: Layer) -> (&'static str, Vec<u8>, Vec<u8>) {
    let bytes = layer.bytes();
    (TAR, bytes.clone(), bytes)
}

fn refused(layer: Layer, text: &str) {
    pull_with(&[plain(layer)], &PullOptions::default(), |to, pulled| {
        let error = pulled.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.class(), oci::Class::Input);
        assert!(!to.exists());
    });
}

#[test]
fn paths_out_of_the_image_are_refused() {
    refused(Layer::default().file("data/../../evil", "x"), "leads out of it");
    refused(Layer::default().file("../evil", "x"), "leads out of it");
    refused(Layer::default().file("data/ok", "x").file("data/a/../../../evil", "x"), "leads out");
    let name = "data/.wh...";
    refused(Layer::default().file(name, ""), "leads out of it");
}

#[test]
fn links_and_devices_are_refused() {
    let link = |kind| Layer::default().add(kind, "data/link", "/etc/passwd", b"");
    refused(link(EntryType::Symlink), "`data/link`, which is a symbolic link");
    refused(link(EntryType::Link), "`data/link`, which is a hard link");
    refused(link(EntryType::Char), "which is a device");
    refused(link(EntryType::Fifo), "which is a pipe");
    let through = Layer::default()
        .add(EntryType::Symlink, "data/out", "/tmp", b"")
        .file("data/out/evil", "x");
    refused(through, "symbolic link");
}

#[test]
fn what_is_larger_than_allowed_is_refused() {
    let what = |bytes, files| PullOptions { first: Root::Data, max_bytes: bytes, max_files: files };
    let layer = || plain(Layer::default().file("data/a", &"x".repeat(3000)).file("data/b", "y"));
    pull_with(&[layer()], &what(2999, 10), |_, pulled| {
        assert_eq!(pulled.unwrap_err().to_string(), "the image holds more than 2999 bytes");
    });
    pull_with(&[layer()], &what(1 << 20, 1), |_, pulled| {
        assert_eq!(pulled.unwrap_err().to_string(), "the image holds more than 1 files");
    });
    pull_with(&[layer()], &what(3001, 2), |_, pulled| assert_eq!(pulled.unwrap().files, 2));
}

#[test]
fn a_bomb_of_zeros_is_stopped() {
    // A gigabyte of zeros behind the archive's end packs into a megabyte.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&Layer::default().file("data/a", "x").bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..200 {
        gzip.write_all(&zeros).unwrap();
    }
    let packed = gzip.finish().unwrap();
    let what = PullOptions { max_bytes: 10 << 20, ..PullOptions::default() };
    pull_with(&[("application/vnd.oci.image.layer.v1.tar+gzip", packed, vec![])], &what, |_, p| {
        let error = p.unwrap_err().to_string();
        assert!(error.contains("holds more than") || error.contains("has the digest"), "{error}");
    });
}

#[test]
fn an_endless_name_is_stopped() {
    let name = vec![b'n'; 2 << 20];
    let layer = Layer::default().add(EntryType::GNULongName, "././@LongLink", "", &name);
    refused(layer.file("data/a", "x"), "a name is longer than 1 MiB");
}

#[test]
fn what_is_no_archive_is_refused() {
    let rubbish = |bytes: &[u8]| (TAR, bytes.to_vec(), bytes.to_vec());
    let whole = Layer::default().file("data/a", &"x".repeat(3000)).bytes();
    for bytes in [&b"rubbish ".repeat(200)[..], &whole[..1000], &[0x1f, 0x8b, 1, 2, 3]] {
        pull_with(&[rubbish(bytes)], &PullOptions::default(), |to, pulled| {
            let error = pulled.unwrap_err().to_string();
            assert!(error.starts_with("a layer of the image is not a readable archive"), "{error}");
            assert!(!to.exists());
        });
    }
}

#[test]
fn what_a_layer_unpacks_to_is_checked() {
    let layer = Layer::default().file("data/a", "x").bytes();
    pull_with(&[(TAR, layer, b"other".to_vec())], &PullOptions::default(), |to, pulled| {
        let error = pulled.unwrap_err().to_string();
        assert!(error.contains("layer 1") && error.contains("unpacked has the digest"), "{error}");
        assert!(!to.exists());
    });
}

#[test]
fn layers_of_other_builders_are_read() {
    let base = Layer::default()
        .add(EntryType::Symlink, "bin/sh", "/bin/busybox", b"")
        .add(EntryType::Directory, "data/", "", b"")
        .file("./data/keep.txt", "keep")
        .file("data/gone.txt", "gone")
        .file("data/old/a.txt", "a")
        .file("data/becomes-a-folder", "file");
    let next = Layer::default()
        .file("data/.wh.gone.txt", "")
        .file("data/old/.wh..wh..opq", "")
        .file("data/old/b.txt", "b")
        .file("data/becomes-a-folder/c.txt", "c")
        .file("/data/absolute.txt", "d");
    let (base, next) = (base.bytes(), next.bytes());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&base).unwrap();
    let zstd = zstd::encode_all(next.as_slice(), 3).unwrap();
    let layers = [
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.finish().unwrap(), base),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd, next),
    ];
    pull_with(&layers, &PullOptions::default(), |to, pulled| {
        assert_eq!(pulled.unwrap().files, 4);
        let text = |name: &str| fs::read_to_string(to.join(name)).unwrap();
        assert_eq!(text("keep.txt") + &text("old/b.txt"), "keepb");
        assert_eq!(text("becomes-a-folder/c.txt") + &text("absolute.txt"), "cd");
        assert!(!to.join("gone.txt").exists() && !to.join("old/a.txt").exists());
    });
}

#[test]
fn models_are_found_in_either_folder() {
    let both = || plain(Layer::default().file("data/d.txt", "d").file("models/m.txt", "m"));
    let models = PullOptions { first: Root::Models, ..PullOptions::default() };
    pull_with(&[both()], &models, |to, pulled| {
        assert_eq!(pulled.unwrap().root, Root::Models);
        assert!(to.join("m.txt").exists() && !to.join("d.txt").exists());
    });
    pull_with(&[plain(Layer::default().file("data/d.txt", "d"))], &models, |_, pulled| {
        assert_eq!(pulled.unwrap().root, Root::Data);
    });
    refused(Layer::default().file("etc/passwd", "x"), "has no files under /data or /models");
}

#[test]
fn models_packed_as_modelpack_are_read() {
    let weights = Layer::default().file("model.safetensors", "w").file("sub/shard", "s").bytes();
    let config = b"{}".to_vec();
    let layers = [
        ("application/vnd.cncf.model.weight.v1.tar", weights.clone(), weights),
        ("application/vnd.cncf.model.weight.config.v1.raw", config.clone(), config.clone()),
        ("application/vnd.cncf.model.code.v1.raw", config.clone(), config),
    ];
    pull_with(&layers, &PullOptions::default(), |to, pulled| {
        let pulled = pulled.unwrap();
        assert_eq!((pulled.root, pulled.files), (Root::Models, 3));
        assert_eq!(fs::read_to_string(to.join("conf/config.json")).unwrap(), "{}");
        assert_eq!(fs::read_to_string(to.join("sub/shard")).unwrap(), "s");
    });
    let hostile = Layer::default().file("../evil", "x").bytes();
    let kind = "application/vnd.cncf.model.weight.v1.tar";
    pull_with(&[(kind, hostile.clone(), hostile)], &PullOptions::default(), |_, pulled| {
        assert!(pulled.unwrap_err().to_string().contains("leads out of it"));
    });
}

#[test]
fn layers_of_unknown_types_are_refused_by_name() {
    let bytes = Layer::default().file("data/a", "x").bytes();
    let custom = ("application/x.custom", bytes.clone(), bytes);
    pull_with(&[custom], &PullOptions::default(), |_, pulled| {
        let error = pulled.unwrap_err().to_string();
        assert!(
            error.ends_with("media type of its first blob is `application/x.custom`"),
            "{error}"
        );
    });
}
