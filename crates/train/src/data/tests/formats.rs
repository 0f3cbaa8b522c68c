//! What each format's records turn into.

use api::run_spec::{Format, HeldOut, PromptTemplate};

use super::{Case, conversations};

/// Text and learned text of the only training example.
#[track_caller]
fn only(case: &Case) -> (String, String) {
    let data = case.open();
    assert_eq!(data.train.len(), 1);
    (case.text(&data.train[0]), case.learned(&data.train[0]))
}

#[test]
fn prompt_and_completion_are_joined_and_only_the_completion_is_learned() {
    let case = Case::new("a.jsonl", r#"{"prompt": "Say hi: ", "completion": "hi"}"#);
    assert_eq!(only(&case), ("Say hi: hi<|im_end|>".to_owned(), "hi<|im_end|>".to_owned()));
    assert_eq!(case.survey().format, Some(Format::Completion));
}

#[test]
fn text_is_learned_whole_but_for_its_first_token() {
    let case = Case::new("a.jsonl", r#"{"text": "abc"}"#);
    assert_eq!(only(&case), ("abc<|im_end|>".to_owned(), "bc<|im_end|>".to_owned()));
    assert_eq!(case.survey().format, Some(Format::Text));
}

#[test]
fn an_example_of_one_token_learns_when_to_stop() {
    let case = Case::new("a.jsonl", r#"{"text": "a"}"#);
    assert_eq!(only(&case), ("a<|im_end|>".to_owned(), "<|im_end|>".to_owned()));
    let facts = case.survey();
    assert_eq!((facts.train.examples, facts.train.tokens, facts.train.label_tokens), (1, 2, 1));
}

#[test]
fn an_example_of_only_an_end_token_is_a_fault() {
    Case::new("a.jsonl", r#"{"text": "<|im_end|>"}"#).refused(&[
        "a.jsonl:1: the example has 1 tokens, none of which can be learned\n  hint: remove the record",
    ]);
}

#[test]
fn columns_can_be_mapped() {
    let mut case = Case::new("a.csv", "question,answer\n2+2=,4\n");
    case.data.columns.prompt = Some("question".to_owned());
    case.data.columns.completion = Some("answer".to_owned());
    assert_eq!(only(&case).0, "2+2=4<|im_end|>");
    let mut case = Case::new("a.csv", "body\nabc\n");
    case.data.columns.text = Some("body".to_owned());
    assert_eq!(only(&case).0, "abc<|im_end|>");
}

#[test]
fn a_template_makes_prompt_and_completion_from_columns() {
    let mut case =
        Case::new("a.jsonl", r#"{"title": "T", "tags": ["x", "<y>"], "n": 3, "ok": true}"#);
    case.data.template = Some(PromptTemplate {
        prompt: "{{ title | upper }}{% if ok %}!{% endif %} ->\n".to_owned(),
        completion: " {{ {'tags': tags, 'n': n} | tojson }}".to_owned(),
    });
    let (text, learned) = only(&case);
    assert_eq!(text, "T! -> {\"tags\": [\"x\", \"<y>\"], \"n\": 3}<|im_end|>");
    assert_eq!(learned, " {\"tags\": [\"x\", \"<y>\"], \"n\": 3}<|im_end|>");
}

#[test]
fn alpaca_gets_the_prompt_that_it_was_made_for() {
    let case = Case::new("a.json", r#"[{"instruction": "Add", "input": "1 2", "output": "3"}]"#);
    let (text, learned) = only(&case);
    assert!(
        text.ends_with("### Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:\n3<|im_end|>")
    );
    assert_eq!(learned, "3<|im_end|>");
    let case = Case::new("a.json", r#"[{"instruction": "Hi", "input": "", "output": "Ho"}]"#);
    assert_eq!(
        only(&case).0,
        "Below is an instruction that describes a task. Write a response that appropriately \
         completes the request.\n\n### Instruction:\nHi\n\n### Response:\nHo<|im_end|>"
    );
}

#[test]
fn labels_may_have_white_space_around_them() {
    let mut case = Case::new("a.csv", "prompt,completion\nfine,\" good\"\n");
    case.data.labels = vec!["good".to_owned(), "bad".to_owned()];
    assert_eq!(only(&case).1, " good<|im_end|>");
}

#[test]
fn numbers_and_booleans_are_text() {
    let case = Case::new("a.jsonl", r#"{"prompt": 12, "completion": true}"#);
    assert_eq!(only(&case).0, "12true<|im_end|>");
}

#[test]
fn a_damaged_first_record_does_not_hide_the_format() {
    let case = Case::new("a.jsonl", format!("{{\"text\": 1}}\n{}", conversations(3)));
    assert_eq!(case.survey().format, Some(Format::Chat));
    assert_eq!(case.survey().fault_count, 1);
}

#[test]
fn held_out_examples_are_questions() {
    let mut case = Case::new("a.jsonl", r#"{"prompt": "a:", "completion": " b"}"#);
    let test = case.write("t.jsonl", r#"{"prompt": "c:", "completion": " d"}"#);
    case.data.test = HeldOut::Files(vec![test]);
    let data = case.open();
    assert_eq!(data.train[0].question, None);
    let question = data.test[0].question.as_ref().unwrap();
    assert_eq!((question.prompt.as_str(), question.answer.as_str()), ("c:", "d"));
    assert_eq!(question.prompt_ids, data.test[0].ids[..2]);
}
