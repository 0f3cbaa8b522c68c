//! What users type is frozen: a changed help text is a change of the product.

use insta::assert_snapshot;
use tests_local::Project;

fn help(arguments: &[&str]) -> String {
    let ran = Project::new().unwrap().run(arguments).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stdout
}

#[test]
fn the_commands() {
    assert_snapshot!(help(&["--help"]));
}

#[test]
fn the_options_of_each_command() {
    for command in ["run", "validate", "plan", "generate", "serve", "front", "chat", "push", "pull"]
    {
        assert_snapshot!(format!("{command}_help"), help(&[command, "--help"]));
    }
}

#[test]
fn a_wrong_command_line_has_exit_code_2() {
    let project = Project::new().unwrap();
    for arguments in [&["runn"][..], &["run"], &["generate", "--top-p", "2", "--model", "m"]] {
        assert_eq!(project.run(arguments).unwrap().code, 2, "{arguments:?}");
    }
}
