//! What users may write as an image, and what they are told about the rest.

#![expect(clippy::unwrap_used, reason = "tests")]

use oci::Target;
use oci::reference::Name;

fn shown(text: &str) -> String {
    text.parse::<Target>().unwrap().to_string()
}

fn reason(text: &str) -> &'static str {
    text.parse::<Target>().unwrap_err().reason
}

fn layout(text: &str) -> (String, Name) {
    match text.parse().unwrap() {
        Target::Layout { path, name } => (path.display().to_string(), name),
        Target::Registry(reference) => (format!("registry {reference}"), Name::Unnamed),
    }
}

const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn registries_are_named_as_docker_names_them() {
    assert_eq!(shown("registry.example.org/team/a:v1"), "registry.example.org/team/a:v1");
    assert_eq!(shown("localhost:5000/a"), "localhost:5000/a:latest");
    assert_eq!(shown("a/b"), "docker.io/a/b:latest");
    let pinned = format!("127.0.0.1:5000/a/b@sha256:{HEX}");
    assert_eq!(shown(&pinned), pinned);
    let at = "h:1/a:v1".parse::<Target>().unwrap().at_digest(&format!("sha256:{HEX}"));
    assert_eq!(at.to_string(), format!("h:1/a@sha256:{HEX}"));
}

#[test]
fn layouts_are_named_by_path_and_tag() {
    assert_eq!(layout("oci:./a/b"), ("./a/b".to_owned(), Name::Unnamed));
    assert_eq!(layout("oci:a:v1.0-rc"), ("a".to_owned(), Name::Tag("v1.0-rc".to_owned())));
    assert_eq!(layout("oci:/a:b/c"), ("/a:b/c".to_owned(), Name::Unnamed));
    let digest = format!("sha256:{HEX}");
    assert_eq!(layout(&format!("oci:a@{digest}")), ("a".to_owned(), Name::Digest(digest)));
    assert_eq!(shown("oci:a:v1"), "oci:a:v1");
}

#[test]
fn what_is_no_image_is_told() {
    assert!(reason("oci://registry/a").contains("without `oci://`"));
    assert!(reason("https://registry/a").contains("without a scheme"));
    assert!(reason("./adapter").contains("expected `registry/repository:tag`"));
    assert!(reason("").contains("the repository is missing"));
    assert!(reason("h:1/Team/a").contains("lower-case letters only"));
    assert!(reason("h:1/a@sha256:12").contains("a digest is"));
    assert!(reason(&format!("h:1/a@sha256:{}", HEX.to_uppercase())).contains("a digest is"));
    assert!(reason("oci:").contains("the path of the layout folder is missing"));
    assert!(reason("oci:a:").contains("the tag is malformed"));
    assert!(reason("oci:a:-x").contains("the tag is malformed"));
    assert!(reason("oci:a@sha256:12").contains("a digest is"));
}
