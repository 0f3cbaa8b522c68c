//! Taking images out of a real registry: without a login, with one, and with tokens.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use oci::registry::RegistryError;
use oci::{Class, Error, Options, Target, adapter_image, blocking};
use testkit::needs_go;
use testkit::registry::Registry;

/// Options with a login, kept in `folder`.
fn logged_in(folder: &Path, registry: &Registry, user: &str, password: &str) -> Options {
    let login = format!(r#"{{"username": "{user}", "password": "{password}"}}"#);
    let config = format!(r#"{{"auths": {{"{}": {login}}}}}"#, registry.host());
    fs::write(folder.join("config.json"), config).unwrap();
    let backoff = Duration::from_millis(20);
    Options { docker_config: Some(folder.to_owned()), backoff, ..Options::default() }
}

#[test]
fn a_removed_image_is_gone_with_its_tags() {
    if !needs_go("a_removed_image_is_gone_with_its_tags") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    fs::create_dir(&adapter).unwrap();
    fs::write(adapter.join("adapter_config.json"), "{}").unwrap();
    fs::write(adapter.join("adapter_model.safetensors"), "weights").unwrap();
    let image = adapter_image(&adapter, &[].into()).unwrap();
    let target = |registry: &Registry, tag: &str| -> Target {
        format!("{}/team/adapter:{tag}", registry.host()).parse().unwrap()
    };

    let open = Registry::open().unwrap();
    let login = Registry::with_login("ann", "secret").unwrap();
    let tokens = Registry::with_tokens("ann", "secret").unwrap();
    for registry in [&open, &login, &tokens] {
        let options = logged_in(folder.path(), registry, "ann", "secret");
        let (first, second) = (target(registry, "v1"), target(registry, "v2"));
        let digest = blocking::push(&image, &first, &options).unwrap().digest;
        blocking::push(&image, &second, &options).unwrap();
        let unknown = format!("sha256:{}", "0".repeat(64));
        blocking::remove(&first, &unknown, &options).unwrap();
        assert_eq!(blocking::resolve(&first, &options).unwrap(), digest);
        blocking::remove(&first, &digest, &options).unwrap();
        for target in [&first, &second] {
            let gone = blocking::resolve(target, &options).unwrap_err();
            assert!(matches!(gone, Error::Registry(RegistryError::NotFound { .. })), "{gone}");
        }
        blocking::remove(&first, &digest, &options).unwrap();
    }
    let digest = image.digest();
    for registry in [&login, &tokens] {
        let options = logged_in(folder.path(), registry, "ann", "wrong");
        let refused = blocking::remove(&target(registry, "v1"), digest, &options).unwrap_err();
        assert_eq!(refused.class(), Class::Refused, "{refused}");
    }
}
