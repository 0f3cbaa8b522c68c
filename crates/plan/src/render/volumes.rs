//! Volumes, mounts and the rights of pod and container, as all our pods have them.

use k8s_openapi::api::core::v1::{
    Capabilities, EmptyDirVolumeSource, ImageVolumeSource, KeyToPath, PodSecurityContext,
    SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};

/// The user in our images, as in distroless ones.
const USER: i64 = 65532;

/// What the `restricted` Pod Security level asks of a pod.
pub(crate) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

/// And of a container.
pub(crate) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        ..SecurityContext::default()
    }
}

pub(crate) fn image(name: &str, reference: String) -> Volume {
    Volume {
        name: name.to_owned(),
        image: Some(ImageVolumeSource {
            reference: Some(reference),
            pull_policy: Some("IfNotPresent".to_owned()),
        }),
        ..Volume::default()
    }
}

pub(crate) fn empty(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

/// A secret's registry logins, as a folder of Docker's configuration.
pub(crate) fn docker_config(name: &str, secret: &str) -> Volume {
    let items = vec![KeyToPath {
        key: ".dockerconfigjson".to_owned(),
        path: "config.json".to_owned(),
        mode: None,
    }];
    of_secret(name, secret, Some(items))
}

/// A file for each key of a secret.
pub(crate) fn secret(name: &str, secret: &str) -> Volume {
    of_secret(name, secret, None)
}

fn of_secret(name: &str, secret: &str, items: Option<Vec<KeyToPath>>) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            items,
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

pub(crate) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}
