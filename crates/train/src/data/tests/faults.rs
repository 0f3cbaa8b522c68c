//! Every mistake in the data, as the user sees it.

use api::run_spec::{Duplicates, Format, HeldOut, Overlong, PromptTemplate};

use super::{Case, conversations};

const ROW: &str = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";

fn jsonl(bad: &str) -> Case {
    Case::new("data.jsonl", format!("{ROW}{bad}\n"))
}

/// A conversation with these messages after a good one.
fn chat(messages: &str) -> Case {
    Case::new("chat.jsonl", format!("{}{{\"messages\": {messages}}}\n", conversations(1)))
}

#[test]
fn broken_json() {
    jsonl("{\"prompt\": \"a\", \"completion\" \"b\"}").refused(&[
        "data.jsonl:2: broken JSON at column 30: expected `:`\n  hint: each record must be one \
         whole JSON object",
    ]);
    jsonl("{\"prompt\": \"a").refused(&[
        "data.jsonl:2: broken JSON at column 13: EOF while parsing a string\n  hint: each record \
         must be one whole JSON object",
    ]);
    jsonl("[1]").refused(&[
        "data.jsonl:2: the record is a list, not a JSON object\n  hint: write each record as an \
         object with named columns",
    ]);
}

#[test]
fn broken_json_in_a_list_names_the_line_of_the_mistake() {
    let case =
        Case::new("data.json", format!("[\n{ROW},\n{{\n  \"prompt\": \"c\",\n  oops\n}}\n]"));
    case.refused(&[
        "data.json:6: broken JSON at column 3: key must be a string\n  hint: each record must be \
         one whole JSON object",
    ]);
    Case::new("data.json", format!("[{ROW}{ROW}]")).refused(&[
        "data.json:2: broken JSON: a comma is missing between records\n  hint: the file must be one \
         list of objects: `[{…}, {…}]`",
    ]);
    Case::new("data.json", format!("[{ROW}, {{\"prompt\": 1")).refused(&[
        "data.json:2: broken JSON: the file ends inside this record\n  hint: the file must be one \
         list of objects: `[{…}, {…}]`",
    ]);
}

#[test]
fn bad_utf8() {
    let bad = [ROW.as_bytes(), b"{\"prompt\": \"caf\xe9\", \"completion\": \"b\"}\n"].concat();
    Case::new("data.jsonl", bad).refused(&[
        "data.jsonl:2: byte 16 of the record is not UTF-8\n  hint: save the file as UTF-8, for \
         example with `iconv -f latin1 -t utf-8`",
    ]);
    Case::new("data.csv", b"prompt,completion\na,b\ncaf\xe9,c\n").refused(&[
        "data.csv:3: the value of \"prompt\" is not UTF-8\n  hint: save the file as UTF-8, for \
         example with `iconv -f latin1 -t utf-8`",
    ]);
    Case::new(
        "data.csv",
        "prompt,completion\na,b\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(),
    )
    .refused(&[
        "data.csv: cannot read the file: it is neither plain text nor compressed with gzip or \
             zstd\n  hint: name the file after what it holds, or save it as UTF-8 text",
    ]);
}

#[test]
fn wrong_number_of_columns() {
    Case::new("data.csv", "prompt,completion\na,b\nc,d,e\n\"f\ng\",h\ni\n").refused(&[
        "data.csv:3: the row has 3 columns, the header has 2\n  hint: put values that hold a comma \
         or a line break in double quotes",
        "data.csv:6: the row has 1 column, the header has 2\n  hint: put values that hold a comma \
         or a line break in double quotes",
    ]);
    Case::new("data.tsv", "prompt\tcompletion\na\tb\tc\n\"d\te\"\n").refused(&[
        "data.tsv:2: the row has 3 columns, the header has 2\n  hint: values must not hold tabs or \
         line breaks; save the file as CSV or JSONL if they do",
    ]);
    Case::new("data.csv", "prompt,prompt\na,b\n").refused(&[
        "data.csv:1: the header names \"prompt\" twice\n  hint: give each column a name of its own",
    ]);
}

#[test]
fn unknown_format_suggests_a_mapping() {
    Case::new("data.csv", "question,answer\na,b\n").refused(&[
        "data.csv: the format cannot be told: records hold question and answer, and neither \
         messages, nor prompt and completion, nor text\n  hint: map them: spec.data.columns: \
         {prompt: question, completion: answer}",
    ]);
    Case::new("data.jsonl", "{\"mesages\": []}\n").refused(&[
        "data.jsonl: the format cannot be told: records hold mesages, and neither messages, nor \
         prompt and completion, nor text\n  hint: map it: spec.data.columns: {messages: mesages}",
    ]);
}

#[test]
fn missing_columns_of_a_table_are_one_fault() {
    let mut case = Case::new("data.csv", "promt,completion\na,b\nc,d\n");
    case.data.format = Format::Completion;
    case.refused(&[
        "data.csv:2: there is no column \"prompt\"; the record has promt and completion\n  hint: \
         name the column: spec.data.columns.prompt: promt",
    ]);
}

#[test]
fn missing_columns_of_records_are_counted_one_by_one() {
    let case = jsonl("{\"promt\": \"c\", \"completion\": \"d\"}");
    case.refused(&[
        "data.jsonl:2: there is no column \"prompt\"; the record has promt and completion\n  hint: \
         name the column: spec.data.columns.prompt: promt",
    ]);
}

#[test]
fn empty_and_wrong_values() {
    jsonl("{\"prompt\": \" \", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": null}")
        .refused(&[
            "data.jsonl:2: the prompt is empty\n  hint: fill it, or remove the record",
            "data.jsonl:3: the completion is empty\n  hint: fill it, or remove the record",
        ]);
    jsonl("{\"prompt\": \"a\", \"completion\": {\"x\": 1}}").refused(&[
        "data.jsonl:2: \"completion\" is an object, not text\n  hint: write it as text with \
         spec.data.template and the filter tojson",
    ]);
}

#[test]
fn wrong_messages() {
    let user = "{\"role\": \"user\", \"content\": \"hi\"}";
    let hint = "write messages as [{\"role\": \"user\", \"content\": \"…\"}, …]";
    let refused = |messages: &str, message: &str, hint: &str| {
        chat(messages).refused(&[&format!("chat.jsonl:2: {message}\n  hint: {hint}")]);
    };
    refused("\"hi\"", "\"messages\" is a string, not a list of messages", hint);
    refused("[]", "the list of messages is empty", "fill it, or remove the record");
    refused("[\"hi\"]", "message 1 is a string, not an object with role and content", hint);
    refused("[{\"content\": \"hi\"}]", "message 1 has no role", hint);
    refused(
        &format!("[{user}, {{\"role\": \"asistant\", \"content\": \"x\"}}]"),
        "message 2 has the role \"asistant\"",
        "roles are system, user, assistant, tool; did you mean assistant?",
    );
    refused(
        &format!("[{user}, {{\"role\": \"assistant\"}}]"),
        "message 2 has no content",
        "fill it, or remove the record",
    );
    refused(
        &format!("[{user}, {{\"role\": \"assistant\", \"content\": \"  \"}}]"),
        "message 2 (assistant) is empty",
        "fill it, or remove the record",
    );
    refused(
        "[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]",
        "the content of message 1 is of type image_url, not text",
        "only text can be learned; leave other parts out",
    );
    refused(
        &format!("[{user}, {{\"role\": \"system\", \"content\": \"x\"}}]"),
        "message 2 is a system message, but not the first",
        "put the system message first, or make it a user turn",
    );
    refused(
        &format!("[{user}, {{\"role\": \"assistant\", \"content\": \"x\", \"weight\": -1}}]"),
        "message 2 has the weight -1",
        "a weight is a number from 0 (not learned) upwards",
    );
    refused(
        &format!("[{user}]"),
        "no assistant turn: there is nothing to learn",
        "end each conversation with an assistant message",
    );
    refused(
        &format!("[{user}, {{\"role\": \"assistant\", \"content\": \"x\", \"weight\": 0}}]"),
        "every assistant turn has the weight 0: there is nothing to learn",
        "give one turn a weight above 0, or remove the record",
    );
    refused(
        "[{\"role\": \"assistant\", \"content\": \"x\"}]",
        "the first message is the assistant's: nothing comes before it to answer",
        "start the conversation with a user message",
    );
}

#[test]
fn a_tool_call_that_the_template_does_not_show() {
    chat(
        "[{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"\", \
         \"tool_calls\": [{\"type\": \"function\", \"function\": {\"name\": \"clock\", \
         \"arguments\": \"{}\"}}]}]",
    )
    .refused(&[
        "chat.jsonl:2: the model's chat template leaves out the call of the tool \"clock\"\n  hint: \
         take a model that was made for tools, or remove the record",
    ]);
}

#[test]
fn a_label_outside_the_set() {
    let mut case = jsonl("{\"prompt\": \"c\", \"completion\": \"postive\"}");
    case.data.labels = vec!["b".to_owned(), "positive".to_owned()];
    case.refused(&[
        "data.jsonl:2: the answer \"postive\" is not one of the labels b and positive\n  hint: did \
         you mean \"positive\"? or add it to spec.data.labels",
    ]);
}

#[test]
fn copies_are_faults_dropped_or_kept() {
    let mut case = jsonl(ROW.trim_end());
    case.refused(&[&format!(
        "data.jsonl:2: the record is a copy of {}/data.jsonl:1\n  hint: remove it, or set \
         spec.data.duplicates to Drop or Keep",
        case.folder.path().display()
    )
    .replace(&format!("{}/", case.folder.path().display()), "")]);
    case.data.duplicates = Duplicates::Drop;
    let facts = case.survey();
    assert_eq!((facts.fault_count, facts.dropped, facts.train.examples), (0, 1, 1));
    case.data.duplicates = Duplicates::Keep;
    let facts = case.survey();
    assert_eq!((facts.fault_count, facts.dropped, facts.train.examples), (0, 0, 2));
}

#[test]
fn of_two_copies_the_one_that_is_held_out_stays() {
    let mut case = jsonl("{\"prompt\": \"c\", \"completion\": \"d\"}");
    case.data.test = HeldOut::Files(vec![case.write("test.jsonl", ROW)]);
    case.refused(&[
        "data.jsonl:1: the record is a copy of test.jsonl:1\n  hint: remove it, or set \
         spec.data.duplicates to Drop or Keep",
    ]);
    case.data.duplicates = Duplicates::Drop;
    let facts = case.survey();
    assert_eq!((facts.train.examples, facts.test.examples, facts.dropped), (1, 1, 1));
}

#[test]
fn overlong_examples_are_faults_dropped_or_cut() {
    let mut case = jsonl("{\"prompt\": \"0123\", \"completion\": \"456789\"}");
    case.data.max_sequence_length = 8;
    case.refused(&[
        "data.jsonl:2: the example has 11 tokens, and at most 8 are allowed\n  hint: raise \
         spec.hyperparameters.maxSequenceLength, or set spec.data.overlong to Truncate or Drop",
    ]);
    case.data.overlong = Overlong::Drop;
    let facts = case.survey();
    assert_eq!((facts.train.examples, facts.dropped, facts.truncated), (1, 1, 0));
    case.data.overlong = Overlong::Truncate;
    let facts = case.survey();
    assert_eq!((facts.train.examples, facts.dropped, facts.truncated), (2, 0, 1));
    assert_eq!(case.learned(&case.open().train[1]), "4567");
    // The prompt alone fills the length.
    case.data.max_sequence_length = 4;
    let facts = case.survey();
    assert_eq!((facts.train.examples, facts.dropped), (1, 1));
}

#[test]
fn mistakes_in_the_settings() {
    let mut case = jsonl("");
    case.data.validation = HeldOut::Fraction(0.6);
    case.data.test = HeldOut::Fraction(0.5);
    case.data.template = Some(PromptTemplate {
        prompt: "{{ prompt }".to_owned(),
        completion: "{{ completion }}".to_owned(),
    });
    case.refused(&[
        "spec.data.template.prompt: syntax error: unexpected `}`, expected end of variable block \
         (line 1 of the template)\n  hint: templates are Jinja: `{{ column }}` is a value",
        "spec.data: validation (0.6) and test (0.5) leave nothing to train on\n  hint: hold out \
         less: 0.1 is a usual share for each",
    ]);
    let mut case = Case::new("data.jsonl", "{\"text\": \"abc\"}");
    case.data.system = Some("be brief".to_owned());
    case.refused(&[
        "spec.data.system: a system message needs conversations, and the data is plain text\n  hint: \
         leave it out, or map the columns with spec.data.columns",
    ]);
    let mut case = jsonl("");
    case.data.test = HeldOut::Fraction(10.0);
    case.refused(&[
        "spec.data.test.fraction: 10 is not a share from 0 to below 1\n  hint: 0.1 holds out one \
         example in ten",
    ]);
}

#[test]
fn a_template_that_names_a_column_that_is_missing() {
    let mut case = jsonl("");
    case.data.template = Some(PromptTemplate {
        prompt: "{{ title }}".to_owned(),
        completion: "{{ completion }}".to_owned(),
    });
    case.refused(&[
        "data.jsonl:1: spec.data.template.prompt: a column or field is missing (line 1 of the \
         template); the record has prompt and completion\n  hint: use `{{ column | default('') }}` \
         for a column that some records lack",
    ]);
}

#[test]
fn nothing_to_train_on() {
    Case::new("data.jsonl", "\n").refused(&[
        "data.jsonl: there are no examples\n  hint: name files that hold at least one record",
    ]);
    let mut case = Case::new("data.jsonl", ROW);
    case.data.test = HeldOut::Fraction(0.999);
    case.refused(&[
        "spec.data.train: there are no examples to train on\n  hint: 1 are held out; hold out less, \
         or add examples",
    ]);
}

#[test]
fn all_faults_are_counted_and_the_first_are_shown() {
    let bad = "{\"prompt\": \"a\"}\n".repeat(500);
    let case = Case::new("data.jsonl", format!("{ROW}{bad}"));
    let facts = case.survey();
    assert_eq!((facts.fault_count, facts.faults.len()), (500, 20));
    let lines: Vec<_> = facts.faults.iter().map(|fault| fault.line.unwrap()).collect();
    assert_eq!(lines, (2..22).collect::<Vec<_>>());
    let error = case.whole(super::SEED, None).unwrap_err();
    assert!(error.to_string().ends_with("and 480 more faults"), "{error}");
}

#[test]
fn a_model_without_a_chat_template() {
    let case = chat("[]");
    let config = case.folder.path().join("model/tokenizer_config.json");
    let text = String::from_utf8(super::read(&config)).unwrap();
    std::fs::write(&config, text.replace("chat_template", "other")).unwrap();
    let model = lm::files::ModelFiles::open(&case.folder.path().join("model")).unwrap();
    let tokenizer = lm::tokenizer::Tokenizer::open(&model).unwrap();
    let facts = super::survey(&case.data, &tokenizer, 0);
    assert_eq!(
        facts.faults[0].to_string(),
        "spec.baseModel: the data holds conversations, but the model has no chat template\n  hint: \
         take an instruction-tuned model, or data with prompt and completion"
    );
}

#[test]
fn records_that_cannot_be_read_are_found_also_where_the_format_is_unknown() {
    Case::new("data.jsonl", "{\"a\": 1}\noops\n").refused(&[
        "data.jsonl:2: broken JSON at column 1: expected value\n  hint: each record must be one \
         whole JSON object",
        "data.jsonl: the format cannot be told: records hold a, and neither messages, nor prompt and \
         completion, nor text\n  hint: map them with spec.data.columns, or write spec.data.template",
    ]);
}
