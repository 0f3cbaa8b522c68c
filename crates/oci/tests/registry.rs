//! Images in a real registry: whole ways there and back, logins, TLS, and what breaks on the way.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oci::{Class, Event, Folder, Image, Options, PullOptions, Target, adapter_image};
use tempfile::TempDir;
use testkit::needs_go;
use testkit::registry::Registry;

/// A folder for a test, with an adapter in it.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let adapter = folder.path().join("adapter");
        fs::create_dir(&adapter).unwrap();
        fs::write(adapter.join("adapter_config.json"), "{}").unwrap();
        let weights: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(adapter.join("adapter_model.safetensors"), weights).unwrap();
        fs::write(adapter.join("README.md"), "An adapter").unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self) -> Image {
        adapter_image(&self.path("adapter"), &BTreeMap::new()).unwrap()
    }

    /// Options under which the machine's own logins do not count.
    fn options(&self) -> Options {
        Options {
            docker_config: Some(self.path("docker")),
            backoff: Duration::from_millis(20),
            attempts: 4,
            ..Options::default()
        }
    }

    /// The same, with a login.
    fn logged_in(&self, registry: &Registry, user: &str, password: &str) -> Options {
        let login = format!(r#"{{"username": "{user}", "password": "{password}"}}"#);
        let config = format!(r#"{{"auths": {{"{}": {login}}}}}"#, registry.host());
        fs::create_dir_all(self.path("docker")).unwrap();
        fs::write(self.path("docker/config.json"), config).unwrap();
        self.options()
    }

    fn pull(&self, target: &Target, options: &Options) -> Result<oci::Pulled, oci::Error> {
        oci::blocking::pull(target, &self.path("pulled"), &PullOptions::default(), options)
    }

    fn assert_pulled(&self) {
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            let read = |folder: &str| fs::read(self.path(folder).join(name)).unwrap();
            assert!(read("adapter") == read("pulled"), "{name} differs");
        }
    }
}

fn target(registry: &Registry, rest: &str) -> Target {
    format!("{}/{rest}", registry.host()).parse().unwrap()
}

/// Options that tell all events to `hear`.
fn hearing(options: Options, hear: impl FnMut(&Event) + Send + 'static) -> Options {
    let hear = Mutex::new(hear);
    Options { on_event: Arc::new(move |event| hear.lock().unwrap()(event)), ..options }
}

fn said(error: &oci::Error) -> String {
    format!("{error}\nhint: {}", error.hint().unwrap_or_default())
}

#[test]
fn an_image_comes_back_as_it_went() {
    if !needs_go("an_image_comes_back_as_it_went") {
        return;
    }
    let (registry, scene) = (Registry::open().unwrap(), Scene::new());
    let (image, options) = (scene.image(), scene.options());
    let to = target(&registry, "team/adapter:v1");
    oci::blocking::check_push(&to, &options).unwrap();
    let pushed = oci::blocking::push(&image, &to, &options).unwrap();
    assert_eq!((pushed.digest.as_str(), pushed.sent), (image.digest(), image.size()));
    assert_eq!(oci::blocking::resolve(&to, &options).unwrap(), image.digest());

    // The layout has the same digest, and so has an image that goes from there to the registry.
    let layout = Target::layout(scene.path("image"), "v1");
    assert_eq!(oci::blocking::push(&image, &layout, &options).unwrap().digest, image.digest());
    let name = oci::reference::Name::Unnamed;
    let stored = oci::layout::read(&scene.path("image"), &name).unwrap();
    let again = oci::blocking::push(&stored, &target(&registry, "team/adapter:v2"), &options);
    assert_eq!(again.as_ref().unwrap().sent, 0, "what is there is sent again");
    assert_eq!(again.unwrap().digest, image.digest());

    let pulled = scene.pull(&to.at_digest(image.digest()), &options).unwrap();
    assert_eq!((pulled.digest.as_str(), pulled.files), (image.digest(), 2));
    assert_eq!(&pulled.annotations, image.annotations());
    scene.assert_pulled();
    assert!(scene.pull(&to, &options).unwrap().was_there);
}

#[test]
fn the_image_reads_as_kaito_reads_it() {
    if !needs_go("the_image_reads_as_kaito_reads_it") {
        return;
    }
    let (registry, scene) = (Registry::open().unwrap(), Scene::new());
    let (image, options) = (scene.image(), scene.options());
    oci::blocking::push(&image, &target(&registry, "adapter:v1"), &options).unwrap();
    // Every layer is unpacked in its order, and /data is the adapter. The blobs are taken from the
    // registry's own storage, and the archives read by another program.
    let root = scene.path("root");
    fs::create_dir(&root).unwrap();
    let layers = image.blobs().iter().filter(|b| b.media_type.contains("layer"));
    for layer in layers {
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(registry.blob(&layer.digest)).arg("-C").arg(&root);
        assert!(tar.status().unwrap().success());
    }
    fs::rename(root.join("data"), scene.path("pulled")).unwrap();
    scene.assert_pulled();
}

#[test]
fn a_login_is_asked_for_and_used() {
    if !needs_go("a_login_is_asked_for_and_used") {
        return;
    }
    let registry = Registry::with_login("ann", "s3cret-word").unwrap();
    let scene = Scene::new();
    let (image, to) = (scene.image(), target(&registry, "team/adapter:v1"));
    let push = |options: &Options| oci::blocking::push(&image, &to, options);

    let missing = push(&scene.options()).unwrap_err();
    assert_eq!(missing.class(), Class::Refused);
    let host = registry.host();
    let text = said(&missing);
    let begin =
        format!("cannot push to {host}/team/adapter:v1: {host} answered 401\nhint: no credential");
    assert!(text.starts_with(&begin), "{text}");

    let wrong = scene.logged_in(&registry, "ann", "wr0ng-word");
    for error in [
        push(&wrong).unwrap_err(),
        oci::blocking::check_push(&to, &wrong).unwrap_err(),
        oci::blocking::resolve(&to, &wrong).unwrap_err(),
        scene.pull(&to, &wrong).unwrap_err(),
    ] {
        assert_eq!(error.class(), Class::Refused);
        let text = format!("{}{error:?}", said(&error));
        assert!(text.contains("hint: the credential in "), "{text}");
        assert!(!text.contains("wr0ng-word"), "{text}");
    }

    let right = scene.logged_in(&registry, "ann", "s3cret-word");
    oci::blocking::check_push(&to, &right).unwrap();
    push(&right).unwrap();
    scene.pull(&to, &right).unwrap();
    scene.assert_pulled();
}

#[test]
fn tokens_of_a_service_are_fetched_and_used() {
    if !needs_go("tokens_of_a_service_are_fetched_and_used") {
        return;
    }
    let registry = Registry::with_tokens("ann", "s3cret-word").unwrap();
    let scene = Scene::new();
    let (image, to) = (scene.image(), target(&registry, "team/adapter:v1"));
    // Without a login a token may be had, and it is not one for pushing.
    for error in [
        oci::blocking::check_push(&to, &scene.options()).unwrap_err(),
        oci::blocking::push(&image, &to, &scene.options()).unwrap_err(),
    ] {
        assert_eq!(error.class(), Class::Refused);
        assert!(said(&error).contains("hint: no credential for"), "{}", said(&error));
    }
    let wrong = scene.logged_in(&registry, "ann", "wr0ng-word");
    let error = oci::blocking::check_push(&to, &wrong).unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    let text = said(&error);
    assert!(text.contains("cannot log in to") && text.contains("wrong password"), "{text}");
    assert!(!format!("{text}{error:?}").contains("wr0ng-word"), "{text}");

    let right = scene.logged_in(&registry, "ann", "s3cret-word");
    oci::blocking::check_push(&to, &right).unwrap();
    oci::blocking::push(&image, &to, &right).unwrap();
    // And pulling needs no login.
    fs::remove_dir_all(scene.path("docker")).unwrap();
    scene.pull(&to, &scene.options()).unwrap();
    scene.assert_pulled();
}

#[test]
fn a_private_authority_is_trusted_when_named() {
    if !needs_go("a_private_authority_is_trusted_when_named") {
        return;
    }
    let (registry, scene) = (Registry::with_tls().unwrap(), Scene::new());
    let (image, to) = (scene.image(), target(&registry, "adapter:v1"));
    let error = oci::blocking::push(&image, &to, &scene.options()).unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    let text = said(&error);
    assert!(text.starts_with(&format!("cannot trust {}: ", registry.host())), "{text}");
    assert!(text.contains("--ca-file"), "{text}");

    let ca_file = |path: &Path| Options { ca_file: Some(path.to_owned()), ..scene.options() };
    let named = ca_file(&registry.ca_file());
    oci::blocking::check_push(&to, &named).unwrap();
    oci::blocking::push(&image, &to, &named).unwrap();
    scene.pull(&to, &named).unwrap();
    scene.assert_pulled();

    let rubbish = scene.path("rubbish.pem");
    fs::write(&rubbish, "no certificate").unwrap();
    let error = oci::blocking::push(&image, &to, &ca_file(&rubbish)).unwrap_err();
    assert!(error.to_string().contains("it holds no certificate in PEM"), "{error}");
    let error = oci::blocking::push(&image, &to, &ca_file(&scene.path("none"))).unwrap_err();
    assert!(error.to_string().starts_with("cannot use the certificates in"), "{error}");
}

#[test]
fn a_push_outlives_a_registry_that_goes_and_comes_back() {
    if !needs_go("a_push_outlives_a_registry_that_goes_and_comes_back") {
        return;
    }
    let (registry, scene) = (Registry::open().unwrap(), Scene::new());
    let (image, to) = (scene.image(), target(&registry, "adapter:v1"));
    let registry = Arc::new(Mutex::new(registry));
    let (heard, retries) = (Arc::clone(&registry), Arc::new(Mutex::new(Vec::new())));
    let (noted, mut stopped) = (Arc::clone(&retries), false);
    let options = hearing(scene.options(), move |event| match event {
        // In the midst of the first layer.
        Event::Progress { done, .. } if *done > 4_000_000 && !stopped => {
            stopped = true;
            heard.lock().unwrap().stop().unwrap();
        }
        Event::Retry { attempt, reason, .. } => {
            noted.lock().unwrap().push(reason.clone());
            // Not before the first repeated attempt has failed as well.
            if *attempt == 2 {
                heard.lock().unwrap().start().unwrap();
            }
        }
        Event::Progress { .. } | Event::Present { .. } => {}
    });
    let pushed = oci::blocking::push(&image, &to, &options).unwrap();
    assert_eq!(pushed.digest, image.digest());
    let retries = retries.lock().unwrap();
    assert!(
        retries.len() >= 2 && retries.iter().all(|r| r.starts_with("cannot reach")),
        "{retries:?}"
    );
    scene.pull(&to, &scene.options()).unwrap();
    scene.assert_pulled();
}

#[test]
fn a_registry_that_stays_away_is_named() {
    if !needs_go("a_registry_that_stays_away_is_named") {
        return;
    }
    let (mut registry, scene) = (Registry::open().unwrap(), Scene::new());
    registry.stop().unwrap();
    let to = target(&registry, "adapter:v1");
    let error = oci::blocking::push(&scene.image(), &to, &scene.options()).unwrap_err();
    assert_eq!(error.class(), Class::MayPass);
    let text = said(&error);
    assert!(text.starts_with(&format!("cannot reach {}: ", registry.host())), "{text}");
    assert!(text.contains("refused") && text.contains("run the same command again"), "{text}");
}

#[test]
fn a_broken_pull_goes_on_where_it_stopped() {
    if !needs_go("a_broken_pull_goes_on_where_it_stopped") {
        return;
    }
    let (registry, scene) = (Registry::open().unwrap(), Scene::new());
    let (image, to) = (scene.image(), target(&registry, "adapter:v1"));
    oci::blocking::push(&image, &to, &scene.options()).unwrap();
    let registry = Arc::new(Mutex::new(registry));
    let heard = Arc::clone(&registry);
    let options = hearing(Options { attempts: 1, ..scene.options() }, move |event| {
        if matches!(event, Event::Progress { done, .. } if *done > 1_000_000) {
            heard.lock().unwrap().stop().unwrap();
        }
    });
    let error = scene.pull(&to, &options).unwrap_err();
    assert_eq!(error.class(), Class::MayPass, "{error}");
    assert!(!scene.path("pulled").exists(), "half a folder appeared");

    registry.lock().unwrap().start().unwrap();
    let first = Arc::new(Mutex::new(0));
    let noted = Arc::clone(&first);
    let options = hearing(scene.options(), move |event| {
        let mut first = noted.lock().unwrap();
        if let (0, Event::Progress { done, .. }) = (*first, event) {
            *first = *done;
        }
    });
    scene.pull(&to, &options).unwrap();
    scene.assert_pulled();
    let first = *first.lock().unwrap();
    assert!(first > 1_000_000, "it began anew: {first}");
    assert!(!scene.path(".pulled.pulling").exists());
}

#[test]
fn a_tampered_blob_is_noticed() {
    if !needs_go("a_tampered_blob_is_noticed") {
        return;
    }
    let (registry, scene) = (Registry::open().unwrap(), Scene::new());
    let (image, to) = (scene.image(), target(&registry, "adapter:v1"));
    oci::blocking::push(&image, &to, &scene.options()).unwrap();
    let layer = registry.blob(&image.blobs()[0].digest);
    let whole = fs::read(&layer).unwrap();
    let mut changed = whole.clone();
    changed[5000] ^= 1;
    fs::write(&layer, &changed).unwrap();
    let error = scene.pull(&to, &scene.options()).unwrap_err();
    assert_eq!(error.class(), Class::Input);
    let text = said(&error);
    assert!(text.contains("has the digest") && text.contains("is damaged"), "{text}");
    assert!(!scene.path("pulled").exists());
    // Nothing bad is kept: once the registry is whole again, so is the pull.
    fs::write(&layer, &whole).unwrap();
    scene.pull(&to, &scene.options()).unwrap();
    scene.assert_pulled();
}

#[test]
fn what_is_not_there_is_told() {
    if !needs_go("what_is_not_there_is_told") {
        return;
    }
    let (registry, scene) = (Registry::open().unwrap(), Scene::new());
    let to = target(&registry, "team/nothing:v1");
    for error in [
        oci::blocking::resolve(&to, &scene.options()).unwrap_err(),
        scene.pull(&to, &scene.options()).unwrap_err(),
    ] {
        assert_eq!(error.class(), Class::Input);
        let text = said(&error);
        assert!(text.contains("has no such image or repository"), "{text}");
    }
    let digest = to.at_digest(scene.image().digest());
    let error = oci::blocking::push(&scene.image(), &digest, &scene.options()).unwrap_err();
    assert!(error.to_string().contains("pushed under a tag"), "{error}");
}

#[test]
fn models_and_data_go_the_same_way() {
    if !needs_go("models_and_data_go_the_same_way") {
        return;
    }
    let (registry, scene) = (Registry::open().unwrap(), Scene::new());
    let folders = [
        Folder { root: "models", path: &scene.path("adapter") },
        Folder { root: "data", path: &scene.path("adapter/README.md") },
    ];
    let image = oci::image_from_dirs(&folders, &BTreeMap::new()).unwrap();
    let to = target(&registry, "both:v1");
    oci::blocking::push(&image, &to, &scene.options()).unwrap();
    let pulled = |first, name: &str| {
        let what = PullOptions { first, ..PullOptions::default() };
        oci::blocking::pull(&to, &scene.path(name), &what, &scene.options()).unwrap().files
    };
    assert_eq!(pulled(oci::Root::Models, "models"), 3);
    assert_eq!(pulled(oci::Root::Data, "data"), 1);
}
