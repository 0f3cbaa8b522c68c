//! Conversations: which tokens are learned, token by token.

use std::fs;

use api::run_spec::{Format, HeldOut};
use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;
use serde_json::json;

use super::{Case, Opened, SEED, conversations, survey};

const TURNS: &str = r#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"},
    {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Yo"}]"#;

fn one(messages: &str) -> Case {
    Case::new("a.json", format!("[{{\"messages\": {messages}}}]"))
}

/// Learned text of the only training example.
#[track_caller]
fn learned(case: &Case) -> String {
    let data = case.open();
    assert_eq!(data.train.len(), 1);
    case.learned(&data.train[0])
}

/// Replaces the chat template of the case's model.
fn with_template(mut case: Case, template: &str) -> Case {
    let model = case.folder.path().join("model");
    let path = model.join("tokenizer_config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["chat_template"] = template.into();
    fs::write(&path, config.to_string()).unwrap();
    case.tokenizer = Tokenizer::open(&ModelFiles::open(&model).unwrap()).unwrap();
    case
}

#[test]
fn every_assistant_turn_is_learned_with_the_token_that_ends_it() {
    let case = one(TURNS);
    assert_eq!(learned(&case), "Ho<|im_end|>|Yo<|im_end|>");
    assert_eq!(
        case.text(&case.open().train[0]),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n\
         <|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    );
}

#[test]
fn weights_of_messages_are_honoured() {
    let weighted = TURNS.replace("\"content\": \"Ho\"", "\"weight\": 0, \"content\": \"Ho\"");
    assert_eq!(learned(&one(&weighted)), "Yo<|im_end|>");
    let weighted = TURNS.replace("\"content\": \"Ho\"", "\"weight\": 0.5, \"content\": \"Ho\"");
    let case = one(&weighted);
    let data = case.open();
    let weights: Vec<f32> =
        data.train[0].weights().into_iter().filter(|weight| *weight > 0.0).collect();
    assert_eq!(weights, [0.5, 0.5, 0.5, 1.0, 1.0, 1.0]);
}

#[test]
fn sharegpt_is_understood() {
    let case = Case::new(
        "a.jsonl",
        r#"{"system": "Be kind", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}"#,
    );
    assert_eq!(learned(&case), "Ho<|im_end|>");
    let text = case.text(&case.open().train[0]);
    assert!(
        text.starts_with("<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi"),
        "{text}"
    );
    assert_eq!(case.survey().format, Some(Format::Chat));
}

#[test]
fn prompt_and_completion_may_be_messages() {
    let case = Case::new(
        "a.jsonl",
        r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "d"}]}"#,
    );
    assert_eq!(learned(&case), "d<|im_end|>");
}

#[test]
fn messages_in_a_table_are_json() {
    let case = Case::new(
        "a.csv",
        "messages\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"a\"\"},{\"\"role\"\":\"\"assistant\"\",\"\"content\"\":\"\"b\"\"}]\"\n",
    );
    assert_eq!(learned(&case), "b<|im_end|>");
}

#[test]
fn the_system_message_of_the_workspace_goes_before_those_that_have_none() {
    let own = r#"{"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let mut case = Case::new("a.jsonl", format!("{}{own}\n", conversations(1)));
    case.data.system = Some("ours".to_owned());
    let texts: Vec<String> = case.open().train.iter().map(|one| case.text(one)).collect();
    assert!(texts[0].starts_with("<|im_start|>system\nours<|im_end|>\n<|im_start|>user\nnumber 0"));
    assert!(texts[1].starts_with("<|im_start|>system\nown<|im_end|>\n<|im_start|>user\na"));
    assert_eq!(case.learned(&case.open().train[0]), "it is 0<|im_end|>");
}

#[test]
fn with_a_system_message_prompt_and_completion_become_a_conversation() {
    let rows = (0..9).map(|row| json!({"prompt": row, "completion": "y"}).to_string() + "\n");
    let mut case = Case::new("a.jsonl", rows.collect::<String>());
    case.data.test = HeldOut::Fraction(0.5);
    let before = case.open();
    case.data.system = Some("Be kind".to_owned());
    let data = case.open();
    // The same examples are held out as without.
    let lines = |data: &Opened| data.test.iter().map(|one| one.line).collect::<Vec<_>>();
    assert_eq!(lines(&data), lines(&before));
    let text = case.text(&data.train[0]);
    assert!(
        text.starts_with("<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\n"),
        "{text}"
    );
    assert_eq!(case.learned(&data.train[0]), "y<|im_end|>");
}

#[test]
fn the_question_of_a_held_out_conversation_ends_where_the_answer_starts() {
    let mut case = Case::new("a.jsonl", conversations(1));
    let test = case.write("t.json", format!("[{{\"messages\": {TURNS}}}]"));
    case.data.test = HeldOut::Files(vec![test]);
    let data = case.open();
    let question = data.test[0].question.as_ref().unwrap();
    assert_eq!((question.prompt.as_str(), question.answer.as_str()), ("Bye", "Yo"));
    let last = data.test[0].learned.last().unwrap();
    assert_eq!(question.prompt_ids, data.test[0].ids[..last.tokens.start]);
}

/// Like Qwen3's: reasoning is shown in the last turn only.
const REWRITING: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {% if message.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}\
    {{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

#[test]
fn a_template_that_rewrites_earlier_turns_gives_an_example_for_each_answer() {
    let case = with_template(one(TURNS), REWRITING);
    let data = case.open();
    let learned: Vec<String> = data.train.iter().map(|example| case.learned(example)).collect();
    assert_eq!(
        learned,
        ["<think>\n\n</think>\n\nHo<|im_end|>", "<think>\n\n</think>\n\nYo<|im_end|>"]
    );
    assert!(case.text(&data.train[1]).contains("<|im_start|>assistant\nHo<|im_end|>"));
    assert_eq!(survey(&case.data, &case.tokenizer, SEED).train.examples, 2);
}

#[test]
fn a_generation_prompt_with_words_that_the_answer_lacks() {
    let template = REWRITING
        .replace(
            "{% if message.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}",
            "",
        )
        .replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>{% endif %}");
    assert_eq!(learned(&with_template(one(TURNS), &template)), "Ho<|im_end|>|Yo<|im_end|>");
}

#[test]
fn a_template_without_special_tokens() {
    let template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\
                    {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    let case = with_template(one(TURNS), template);
    assert_eq!(learned(&case), "Ho\n|Yo\n");
}

#[test]
fn what_a_template_refuses_is_a_fault() {
    let template = "{{ raise_exception('roles must alternate') }}";
    with_template(one(TURNS), template).refused(&[
        "a.json:1: the model's chat template refuses the conversation: roles must alternate\n  hint: \
         most templates want an optional system message, then user and assistant in turns",
    ]);
}

#[test]
fn a_template_that_cannot_be_learned_from_is_refused() {
    // The answer comes first, so nothing that a model is given could lead to it.
    let template = "{% for message in messages | reverse %}{{ message.content }}\n{% endfor %}";
    with_template(one(TURNS), template).refused(&[
        "a.json:1: message 2 cannot be learned: the model's chat template rewrites what comes \
         before\n  hint: split the conversation into one record for each answer",
    ]);
}

#[test]
fn a_thousand_conversations() {
    let case = Case::new("a.jsonl", conversations(1000));
    let facts = case.survey();
    assert_eq!((facts.fault_count, facts.train.examples), (0, 1000));
    assert_eq!(facts.train.lengths.len(), 1000);
    assert!(facts.train.lengths.is_sorted());
    let data = case.open();
    assert_eq!(data.facts, facts);
    for (number, example) in data.train.iter().enumerate() {
        assert_eq!(case.learned(example), format!("it is {number}<|im_end|>"));
        assert_eq!(example.line, number as u64 + 1);
    }
}

#[test]
fn smollm2_learns_the_answer_and_nothing_else() {
    let cache = testkit::python::cache_dir().unwrap();
    let path = cache.join("models/smollm2-135m-instruct.gguf");
    if !path.exists() {
        testkit::left_out::left_out("smollm2_learns_the_answer_and_nothing_else", "no base model");
        return;
    }
    let mut case = one(
        r#"[{"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "It is 4."},
            {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": " Yes,\n\nsure. "}]"#,
    );
    case.tokenizer = Tokenizer::open(&ModelFiles::open(&path).unwrap()).unwrap();
    let data = case.open();
    let example = &data.train[0];
    let weights = example.weights();
    let tokens: Vec<String> = example
        .ids
        .iter()
        .zip(weights)
        .map(|(id, weight)| {
            let token = case.tokenizer.decode(&[*id], false).unwrap();
            if weight > 0.0 { format!("[{token}]") } else { token }
        })
        .collect();
    assert_eq!(
        tokens.join("·"),
        "<|im_start|>·system·\n·You· are· a· helpful· AI· assistant· named· Sm·ol·LM·,· trained· by· \
         H·ugging· Face·<|im_end|>·\n·<|im_start|>·user·\n·What· is· ·2·+·2·?·<|im_end|>·\n·\
         <|im_start|>·ass·istant·\n·[It]·[ is]·[ ]·[4]·[.]·[<|im_end|>]·\n·<|im_start|>·user·\n·\
         Sure·?·<|im_end|>·\n·<|im_start|>·ass·istant·\n·[ Yes]·[,]·[\n]·[\n]·[s]·[ure]·[.]·[ ]·\
         [<|im_end|>]·\n"
    );
}
