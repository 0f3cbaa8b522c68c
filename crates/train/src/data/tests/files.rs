//! Every kind of file gives the same examples, and files that cannot be read say so.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use api::run_spec::HeldOut;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::{Case, Data, Dataset, Format, Opened, SEED, fs, read};

const ROWS: [(&str, &str); 3] = [("one, \"1\"", "uno"), ("two\n2", "dos"), ("Über ≥ 3", "tres")];

fn json_row((prompt, completion): &(&str, &str)) -> String {
    serde_json::json!({"prompt": prompt, "completion": completion}).to_string()
}

fn jsonl() -> String {
    ROWS.iter().map(json_row).collect::<Vec<_>>().join("\n")
}

fn csv() -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let rows = ROWS.iter().map(|(prompt, answer)| format!("{},{answer}\r\n", quoted(prompt)));
    format!("prompt,completion\r\n{}", rows.collect::<String>())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn write_parquet(file: File) {
    let schema = "message rows { REQUIRED BYTE_ARRAY prompt (UTF8); REQUIRED BYTE_ARRAY completion (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in 0..2 {
        let values: Vec<ByteArray> = ROWS.iter().map(|row| [row.0, row.1][column].into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

/// The texts of the training split.
fn texts(case: &Case) -> Vec<String> {
    case.open().train.iter().map(|example| case.text(example)).collect()
}

fn expected() -> Vec<String> {
    ROWS.iter().map(|(prompt, answer)| format!("{prompt}{answer}<|im_end|>")).collect()
}

#[test]
fn json_csv_and_their_compressed_forms_hold_the_same_examples() {
    let list = format!("[{}]", ROWS.iter().map(json_row).collect::<Vec<_>>().join(",\n "));
    let pretty = ROWS.map(|row| json_row(&row).replace("\",\"", "\",\n  \"")).join("\n");
    let files: [(&str, Vec<u8>); 9] = [
        ("a.jsonl", jsonl().into_bytes()),
        ("a.json", jsonl().into_bytes()),
        ("b.json", list.clone().into_bytes()),
        ("c.json", pretty.into_bytes()),
        ("list.jsonl", list.into_bytes()),
        ("a.CSV", csv().into_bytes()),
        ("bom.csv", [b"\xef\xbb\xbf", csv().as_bytes()].concat()),
        ("a.jsonl.gz", gzip(jsonl().as_bytes())),
        ("a.csv.zst", zstd::encode_all(csv().as_bytes(), 3).unwrap()),
    ];
    for (name, contents) in files {
        assert_eq!(texts(&Case::new(name, contents)), expected(), "{name}");
    }
}

#[test]
fn a_parquet_file_holds_the_same_examples() {
    let case = Case::new("rows.parquet", "");
    write_parquet(File::create(&case.data.train[0]).unwrap());
    assert_eq!(texts(&case), expected());
    let whole = read(&case.data.train[0]);
    case.write("rows.parquet", &whole[..whole.len() / 2]);
    let fault = &case.faults()[0];
    assert!(fault.starts_with("rows.parquet: cannot read the Parquet file: "), "{fault}");
    assert!(fault.ends_with("\n  hint: check that the file is whole and readable"), "{fault}");
}

#[test]
fn tabs_separate_and_quotes_are_letters() {
    let case = Case::new("a.tsv", "prompt\tcompletion\n\"a\tb\"\n");
    assert_eq!(texts(&case), ["\"ab\"<|im_end|>"]);
}

#[test]
fn each_line_of_a_text_file_is_an_example() {
    let case = Case::new("a.txt", "first\n\n  second \n");
    assert_eq!(texts(&case), ["first<|im_end|>", "  second<|im_end|>"]);
}

#[test]
fn a_folder_is_read_by_name_and_other_files_are_passed_over() {
    let mut case = Case::new("data/b.jsonl", json_row(&ROWS[1]));
    case.write("data/a.jsonl", json_row(&ROWS[0]));
    case.write("data/more/c.jsonl.gz", gzip(json_row(&ROWS[2]).as_bytes()));
    case.write("data/README.md", "about");
    case.write("data/.hidden.jsonl", "broken");
    case.data.train = vec![case.folder.path().join("data")];
    assert_eq!(texts(&case), expected());
    let data = case.open();
    assert!(data.place(&data.train[2]).ends_with("data/more/c.jsonl.gz:1"));
}

#[test]
fn files_that_cannot_be_read() {
    let mut case = Case::new("a.jsonl", jsonl());
    let cut = gzip(jsonl().as_bytes());
    let folder = case.folder.path().to_owned();
    std::fs::create_dir(folder.join("empty")).unwrap();
    case.write("cut.jsonl.gz", &cut[..cut.len() - 12]);
    case.write("notes.doc", "x");
    let names = ["a.jsonl", "missing.jsonl", "empty", "notes.doc", "cut.jsonl.gz"];
    case.data.train = names.map(|name| folder.join(name)).to_vec();
    case.data.duplicates = api::run_spec::Duplicates::Keep;
    let known = ".jsonl, .ndjson, .json, .csv, .tsv, .parquet and .txt, each also as .gz or .zst";
    let faults = case.faults();
    assert_eq!(
        faults[..3],
        [
            "missing.jsonl: cannot read the data: No such file or directory (os error 2)\n  hint: \
             check the path; a relative one starts at the folder of the workspace file"
                .to_owned(),
            format!("empty: the folder holds no data files\n  hint: data files end in {known}"),
            format!(
                "notes.doc: the kind of file cannot be told from the name\n  hint: data files end in \
                 {known}"
            ),
        ]
    );
    assert!(faults[3].starts_with("cut.jsonl.gz"), "{}", faults[3]);
    assert!(faults[3].contains("cannot read the file: "), "{}", faults[3]);
}

#[test]
fn the_digest_is_that_of_the_files_contents() {
    let mut case = Case::new("a.txt", "a\n");
    // printf 'a\n' | sha256sum
    let one = "sha256:87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7";
    assert_eq!(case.survey().digest, one);
    case.data.test = HeldOut::Files(vec![case.write("b.txt", "b\n")]);
    // printf 'a\nb\n' | sha256sum
    let both = "sha256:911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2";
    assert_eq!(case.survey().digest, both);
}

/// A small deterministic source of damage (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[test]
fn damaged_files_of_every_kind_are_read_or_refused() {
    let case = Case::new("rows.parquet", "");
    write_parquet(File::create(&case.data.train[0]).unwrap());
    let list = format!("[{}]", ROWS.iter().map(json_row).collect::<Vec<_>>().join(","));
    let files = [
        ("a.parquet", read(&case.data.train[0])),
        ("a.json", list.into_bytes()),
        ("a.jsonl", jsonl().into_bytes()),
        ("a.csv", csv().into_bytes()),
        ("a.jsonl.gz", gzip(jsonl().as_bytes())),
        ("a.csv.zst", zstd::encode_all(csv().as_bytes(), 3).unwrap()),
    ];
    let mut state = 5;
    for (name, whole) in files {
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..=next(&mut state) % 3 {
                let at = next(&mut state) as usize % bytes.len();
                bytes[at] = next(&mut state) as u8;
            }
            let data = super::data(vec![case.write(name, bytes)]);
            // Reaching the next line is what is tested: nothing panics and nothing hangs.
            let facts = super::survey(&data, &case.tokenizer, 0);
            assert!(facts.train.examples > 0 || facts.fault_count > 0);
        }
    }
}

#[test]
fn the_reading_is_told_and_examples_are_read_once_for_plan_and_run() {
    let lines: String =
        (0..500).map(|number| format!("{{\"text\": \"number {number}\"}}\n")).collect();
    let mut case = Case::new("a.jsonl", &lines);
    let more = case.write("b.csv.gz", gzip(b"text\none\ntwo\n"));
    case.data.train.push(more.clone());
    let mut told = Vec::new();
    let mut tell = |done, total| told.push((done, total));
    let read = Dataset::read(&case.data, &case.tokenizer, SEED, None, &mut tell);
    let total = lines.len() as u64 + fs::metadata(more).unwrap().len();
    assert_eq!((told[0], *told.last().unwrap()), ((0, total), (total, total)));
    assert!(told.is_sorted(), "{told:?}");
    assert_eq!(Opened::of(read.clone()).train, case.open().train);

    // What a plan fills in does not change the examples; what a user changes does.
    let longest = read.facts.train.longest as usize;
    let planned = Data { format: Format::Text, max_sequence_length: longest, ..case.data.clone() };
    assert!(read.is_what(&planned, SEED, &case.tokenizer));
    assert!(!read.is_what(&planned, SEED + 1, &case.tokenizer));
    let shorter = Data { max_sequence_length: longest - 1, ..planned.clone() };
    assert!(!read.is_what(&shorter, SEED, &case.tokenizer));
    let other = Data { train: Vec::new(), ..planned };
    assert!(!read.is_what(&other, SEED, &case.tokenizer));
}
