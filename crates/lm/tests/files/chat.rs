//! Rendered conversations, against transformers' rendering of the same templates.

use std::collections::BTreeMap;
use std::fs;

use lm::chat::{ChatError, ChatTemplate, Message};
use serde_json::Value;

use super::{fixture, json};

fn render(case: &Value, now: i64) -> Result<String, ChatError> {
    let file = fixture("chat").join(case["template"].as_str().unwrap());
    let special: BTreeMap<String, String> =
        serde_json::from_value(case["special"].clone()).unwrap();
    let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
    let tools = Some(&case["tools"]).filter(|tools| !tools.is_null());
    let template = ChatTemplate::new(&fs::read_to_string(file).unwrap(), special).at(now);
    template.render(&messages, case["add_generation_prompt"] == true, tools)
}

#[test]
fn templates_render_as_in_transformers() {
    let fixture = json(&fixture("chat.json"));
    let now = fixture["now"].as_i64().unwrap();
    for case in fixture["cases"].as_array().unwrap() {
        let about = format!("{} {}", case["template"], case["messages"]);
        match (render(case, now), case["text"].as_str(), case["error"].as_str()) {
            (Ok(found), Some(expected), _) => assert_eq!(found, expected, "{about}"),
            (Err(ChatError::Refused { message }), None, Some(error)) => {
                assert_eq!(
                    Some(message.as_str()),
                    error.strip_prefix("TemplateError: "),
                    "{about}"
                );
            }
            // Other failures are worded by the engine.
            (Err(ChatError::Render { .. }), None, Some(error)) => {
                assert!(!error.starts_with("TemplateError"), "{about}: {error}");
            }
            (found, text, error) => {
                panic!("{about}: found {found:?}, expected {text:?} or {error:?}")
            }
        }
    }
}

#[test]
fn a_faulty_template_is_told_with_its_line() {
    let template = ChatTemplate::new("{{ messages }}\n{% if %}", BTreeMap::new());
    let error = template.render(&[Message::new("user", "x")], false, None).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("cannot read the model's chat template: line 2: "), "{text}");
    assert!(error.hint().is_some());
}

#[test]
fn a_refusal_of_the_template_is_told_in_its_words() {
    let template =
        ChatTemplate::new("{{ raise_exception('no ' + messages[0].role) }}", BTreeMap::new());
    let error = template.render(&[Message::new("system", "x")], false, None).unwrap_err();
    assert_eq!(error.to_string(), "the model's chat template refuses the conversation: no system");
}

#[test]
fn a_conversation_without_messages_is_refused() {
    let template = ChatTemplate::new("x", BTreeMap::new());
    assert_eq!(template.render(&[], true, None), Err(ChatError::Empty));
}
