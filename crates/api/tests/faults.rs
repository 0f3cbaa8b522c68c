//! Bad files as users write them, and the text that they see: `bad/NAME.yaml` and `bad/NAME.txt`.
//! `UPDATE_GOLDEN=1` writes the texts anew.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

#[test]
fn bad_files_are_refused_with_every_fault_its_line_and_what_to_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut count = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            count += 1;
            wrong.extend(check(&path));
        }
    }
    assert!(count >= 10, "only {count} cases in {}", folder.display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn check(path: &Path) -> Option<String> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let Err(faults) = api::load(name, &fs::read_to_string(path).unwrap()) else {
        panic!("{name} was accepted");
    };
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let found = lines.join("\n") + "\n";
    let expected_path = path.with_extension("txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&expected_path, &found).unwrap();
    }
    let expected = fs::read_to_string(&expected_path).unwrap_or_default();
    (found != expected).then(|| format!("{name}\n--- expected\n{expected}--- found\n{found}"))
}

#[test]
fn hostile_files_are_refused_and_harm_nobody() {
    let deep = format!("spec: {}", "[".repeat(10_000));
    assert!(api::load("deep.yaml", &deep).is_err());
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inner = format!("*a{}, ", level - 1).repeat(10);
        writeln!(bomb, "a{level}: &a{level} [{}]", inner.trim_end_matches(", ")).unwrap();
    }
    assert!(api::load("bomb.yaml", &bomb).is_err());
    for text in ["", "\u{0}", "- ", "? a\n: b", "{", "%", "&a *a", "a: !!int x", "--- \n---\n"] {
        assert!(api::load("odd.yaml", text).is_err(), "{text:?} was accepted");
    }
}
