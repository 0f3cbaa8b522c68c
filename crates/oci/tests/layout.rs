//! The layout folder: tags, damage, killed writers and writers at the same time.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use oci::{Folder, Image, Options, PullOptions, Target, image_from_dirs, layout};

fn image(folder: &Path, content: &str) -> Image {
    let path = folder.join(format!("source-{content}"));
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("file.txt"), content).unwrap();
    image_from_dirs(&[Folder { root: "data", path: &path }], &BTreeMap::new()).unwrap()
}

fn push(image: &Image, layout: &Path, tag: &str) -> oci::Pushed {
    oci::blocking::push(image, &Target::layout(layout, tag), &Options::default()).unwrap()
}

fn pull(target: &Target, to: &Path) -> Result<oci::Pulled, oci::Error> {
    oci::blocking::pull(target, to, &PullOptions::default(), &Options::default())
}

#[test]
fn tags_are_added_moved_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("image");
    let (one, two) = (image(folder.path(), "one"), image(folder.path(), "two"));
    assert_eq!(push(&one, &layout, "v1").sent, one.size());
    push(&two, &layout, "v2");
    // Nothing is written twice.
    assert_eq!(push(&one, &layout, "v3").sent, 0);
    push(&two, &layout, "v1");
    let tags = layout::tags(&layout).unwrap();
    let digest = |tag: &str| tags[tag].as_str();
    assert_eq!(tags.len(), 3);
    assert_eq!(digest("v1"), two.digest());
    assert_eq!(digest("v2"), two.digest());
    assert_eq!(digest("v3"), one.digest());

    let named = format!("oci:{}@{}", layout.display(), one.digest()).parse().unwrap();
    let pulled = pull(&named, &folder.path().join("by-digest")).unwrap();
    assert_eq!(fs::read_to_string(pulled.folder.join("file.txt")).unwrap(), "one");
    let missing = format!("oci:{}:nope", layout.display()).parse().unwrap();
    let error = pull(&missing, &folder.path().join("none")).unwrap_err().to_string();
    assert!(error.ends_with("has no image tagged `nope`; it has `v2`, `v3`, `v1`"), "{error}");
    assert!(!folder.path().join("none").exists());
}

#[test]
fn a_killed_writer_leaves_the_former_state_and_no_rubbish() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("image");
    let one = image(folder.path(), "one");
    push(&one, &layout, "v1");
    // What a writer leaves that is killed in a blob, in the index, or between the two.
    fs::write(layout.join("blobs/sha256/.writing-abc"), "half").unwrap();
    fs::write(layout.join(".writing-index.json"), "{\"manif").unwrap();
    let two = image(folder.path(), "two");
    let orphan = two.blobs()[0].digest.replace("sha256:", "");
    fs::write(layout.join("blobs/sha256").join(&orphan), "half a blob").unwrap();
    assert_eq!(layout::tags(&layout).unwrap()["v1"], one.digest());

    push(&two, &layout, "v2");
    let pulled = pull(&Target::layout(&layout, "v2"), &folder.path().join("two")).unwrap();
    assert_eq!(fs::read_to_string(pulled.folder.join("file.txt")).unwrap(), "two");
    let names = |folder: &Path| {
        let entries = folder.read_dir().unwrap().flatten();
        entries.map(|e| e.file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let left = [names(&layout), names(&layout.join("blobs/sha256"))].concat();
    assert!(left.iter().all(|n| !n.starts_with('.')), "{left:?}");
}

#[test]
fn writers_at_the_same_time_lose_no_tag() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("image");
    let images: Vec<_> = (0..8).map(|n| image(folder.path(), &n.to_string())).collect();
    std::thread::scope(|scope| {
        for (number, image) in images.iter().enumerate() {
            let layout = &layout;
            scope.spawn(move || push(image, layout, &format!("v{number}")));
        }
    });
    assert_eq!(layout::tags(&layout).unwrap().len(), 8);
}

#[test]
fn damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("image");
    let one = image(folder.path(), "one");
    push(&one, &layout, "v1");
    let target = Target::layout(&layout, "v1");
    let to = folder.path().join("to");
    let blob = |digest: &str| layout.join("blobs").join(digest.replace(':', "/"));
    let fault = || {
        let error = pull(&target, &to).unwrap_err();
        assert!(!to.exists());
        assert_eq!(error.class(), oci::Class::Input);
        format!("{error}; {}", error.hint().unwrap_or_default())
    };
    let layer = blob(&one.blobs()[0].digest);
    let whole = fs::read(&layer).unwrap();
    let mut changed = whole.clone();
    changed[520] ^= 1;
    fs::write(&layer, &changed).unwrap();
    let text = fault();
    assert!(text.contains("layer 1 of oci:") && text.contains("push it again"), "{text}");
    fs::write(&layer, &whole[..700]).unwrap();
    assert!(fault().contains("has 700 bytes and not 2560"), "{}", fault());
    fs::write(&layer, &whole).unwrap();
    fs::write(blob(one.digest()), "{}").unwrap();
    assert!(fault().contains("has the digest"));
    fs::write(layout.join("index.json"), "{").unwrap();
    assert!(fault().contains("index.json: EOF"), "{}", fault());
    fs::remove_file(layout.join("index.json")).unwrap();
    assert!(fault().contains("index.json is missing"));
}

#[test]
fn a_folder_with_other_things_is_not_made_a_layout() {
    let folder = tempfile::tempdir().unwrap();
    let one = image(folder.path(), "one");
    let target = Target::layout(folder.path(), "v1");
    let error = oci::blocking::push(&one, &target, &Options::default()).unwrap_err();
    assert!(error.to_string().ends_with("is not an OCI layout folder, and not empty"), "{error}");
    let checked = oci::blocking::check_push(&target, &Options::default()).unwrap_err();
    assert_eq!(checked.to_string(), error.to_string());
    let fresh = Target::layout(folder.path().join("fresh"), "v1");
    oci::blocking::check_push(&fresh, &Options::default()).unwrap();
    let digest = fresh.at_digest(one.digest());
    let error = oci::blocking::push(&one, &digest, &Options::default()).unwrap_err();
    assert!(error.to_string().starts_with("an image is stored under a tag"), "{error}");
}

#[test]
fn a_pull_keeps_what_others_put_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, to) = (folder.path().join("image"), folder.path().join("to"));
    push(&image(folder.path(), "one"), &layout, "v1");
    push(&image(folder.path(), "two"), &layout, "v2");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("mine.txt"), "keep").unwrap();
    let error = pull(&Target::layout(&layout, "v1"), &to).unwrap_err();
    assert!(error.to_string().contains("is not empty and was not made by a pull"), "{error}");
    fs::remove_file(to.join("mine.txt")).unwrap();

    let first = pull(&Target::layout(&layout, "v1"), &to).unwrap();
    assert!(!first.was_there);
    assert!(pull(&Target::layout(&layout, "v1"), &to).unwrap().was_there);
    // A file that was lost comes back; another image takes the folder over as a whole.
    fs::remove_file(to.join("file.txt")).unwrap();
    assert!(!pull(&Target::layout(&layout, "v1"), &to).unwrap().was_there);
    let second = pull(&Target::layout(&layout, "v2"), &to).unwrap();
    assert_eq!((second.files, second.bytes), (1, 3));
    assert_eq!(fs::read_to_string(to.join("file.txt")).unwrap(), "two");
    let hidden = folder.path().join(".to.pulling");
    assert!(!hidden.exists());
    // A pull that was killed between taking the old folder away and bringing the new one.
    fs::create_dir(&hidden).unwrap();
    fs::rename(&to, hidden.join("former")).unwrap();
    assert!(pull(&Target::layout(&layout, "v2"), &to).unwrap().was_there);
}
