//! Places that cannot be written to.

use std::process::Command;

use insta::assert_snapshot;
use testkit::left_out::left_out;
use tests_local::{Project, Ran, program};

/// Runs in a mount namespace of its own in which `out` is a small or read-only file system.
fn with_mount(project: &Project, options: &str) -> Option<Ran> {
    let can =
        Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|o| o.status.success());
    if !can {
        return None;
    }
    project.edit("  evaluation:", "  output: {dir: out}\n  evaluation:").unwrap();
    std::fs::create_dir(project.path().join("out")).unwrap();
    let mut command = Command::new("unshare");
    project.set_up(&mut command);
    let script = format!("mount -t tmpfs -o {options} none out && exec \"$@\"");
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(program());
    command.args(["run", "-f", "tune.yaml"]);
    Some(Ran::of(&mut command).unwrap())
}

fn error(ran: &Ran) -> &str {
    ran.stderr.find("error:").map_or(ran.stderr.as_str(), |at| &ran.stderr[at..])
}

#[test]
fn a_read_only_folder_gives_one_clear_error() {
    let project = Project::new().unwrap();
    let Some(ran) = with_mount(&project, "ro") else {
        return left_out("a_read_only_folder_gives_one_clear_error", "mounting needs root");
    };
    assert_eq!(ran.code, 13, "{}", ran.stderr);
    assert_snapshot!(error(&ran));
}

#[test]
fn a_full_disk_gives_one_clear_error() {
    let project = Project::new().unwrap();
    let Some(ran) = with_mount(&project, "size=64k") else {
        return left_out("a_full_disk_gives_one_clear_error", "mounting needs root");
    };
    assert_eq!(ran.code, 13, "{}", ran.stderr);
    let text = error(&ran);
    assert!(text.contains("No space left on device"), "{text}");
    assert!(text.contains("hint: free some space"), "{text}");
}

#[test]
fn a_file_in_the_way_gives_one_clear_error() {
    let project = Project::new().unwrap();
    project.write("out", "").unwrap();
    project.edit("  evaluation:", "  output: {dir: out/run}\n  evaluation:").unwrap();
    let ran = project.run(&["run", "-f", "tune.yaml"]).unwrap();
    assert_eq!(ran.code, 13, "{}", ran.stderr);
    assert_snapshot!(error(&ran));
}
