//! Tools that a model may call: listed by its chat template, found again in its answer.
//!
//! Calls are looked for in the form that most open models are trained on, `<tool_call>{…}</tool_call>` with
//! `name` and `arguments`. Where a call is required, the answer is held to the JSON of one.

use serde_json::{Value, json};

use super::error::ApiError;

const BEGIN: &str = "<tool_call>";
const END: &str = "</tool_call>";

/// The tools of a request.
#[derive(Debug)]
pub(super) struct Tools {
    tools: Vec<Value>,
    /// Whether the answer has to be a call.
    required: bool,
}

/// Reads `tools` and `tool_choice`.
pub(super) fn read(
    tools: Option<Vec<Value>>,
    choice: Option<&Value>,
    template: &str,
) -> Result<Option<Tools>, ApiError> {
    let mut tools = tools.unwrap_or_default();
    if tools.is_empty() || choice.and_then(Value::as_str) == Some("none") {
        return Ok(None);
    }
    if !template.contains("tools") {
        let told = "the base model's chat template has no place for tools";
        return Err(ApiError::bad("tools", told));
    }
    if tools.iter().any(|tool| tool.pointer("/function/name").is_none_or(|n| !n.is_string())) {
        return Err(ApiError::bad("tools", "every tool needs `function.name`"));
    }
    let mut required = choice.and_then(Value::as_str) == Some("required");
    if let Some(name) = choice.and_then(|choice| choice.pointer("/function/name")) {
        tools.retain(|tool| tool.pointer("/function/name") == Some(name));
        required = true;
        if tools.is_empty() {
            return Err(ApiError::bad("tool_choice", format!("there is no tool {name}")));
        }
    }
    Ok(Some(Tools { tools, required }))
}

impl Tools {
    /// As the template takes them.
    pub(super) fn listed(&self) -> Value {
        Value::Array(self.tools.clone())
    }

    /// The schema of a call, where one is required.
    pub(super) fn schema(&self) -> Option<Value> {
        let call = |tool: &Value| {
            let arguments = tool.pointer("/function/parameters").cloned();
            json!({
                "type": "object",
                "properties": {
                    "name": {"const": tool["function"]["name"]},
                    "arguments": arguments.unwrap_or_else(|| json!({"type": "object"})),
                },
                "required": ["name", "arguments"],
                "additionalProperties": false,
            })
        };
        self.required.then(|| json!({"anyOf": self.tools.iter().map(call).collect::<Vec<_>>()}))
    }

    /// The text in front of the calls, and the calls; none where the answer is only text.
    pub(super) fn calls(&self, text: &str) -> Option<(String, Vec<Value>)> {
        let call = |text: &str| {
            let value: Value = serde_json::from_str(text.trim()).ok()?;
            let (name, arguments) = (value["name"].as_str()?, &value["arguments"]);
            let known = self.tools.iter().any(|tool| tool["function"]["name"] == name);
            known.then(|| {
                json!({
                    "type": "function",
                    "function": {"name": name, "arguments": arguments.to_string()},
                })
            })
        };
        if self.required {
            return Some((String::new(), identified(vec![call(text)?])));
        }
        let (before, mut rest) = text.split_once(BEGIN)?;
        let mut calls = Vec::new();
        loop {
            let (inner, after) = rest.split_once(END).unwrap_or((rest, ""));
            calls.push(call(inner)?);
            match after.split_once(BEGIN) {
                Some((_, next)) => rest = next,
                None => return Some((before.trim_end().to_owned(), identified(calls))),
            }
        }
    }
}

fn identified(mut calls: Vec<Value>) -> Vec<Value> {
    for (index, call) in calls.iter_mut().enumerate() {
        let digest = oci::sha256(call.to_string().as_bytes());
        call["id"] = Value::String(format!("call_{index}_{}", &digest[7..23]));
    }
    calls
}

/// Gives calls the numbers that they have in a stream.
pub(super) fn number(calls: &mut [Value]) {
    for (index, call) in calls.iter_mut().enumerate() {
        call["index"] = json!(index);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn tools(choice: &Value) -> Tools {
        let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
        read(Some(vec![tool("a"), tool("b")]), Some(choice), "{{ tools }}").unwrap().unwrap()
    }

    #[test]
    fn calls_are_found_in_the_text() {
        let text = "Let me see.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}}\n\
                    </tool_call>\n<tool_call>{\"name\": \"b\", \"arguments\": {}}</tool_call>";
        let (before, calls) = tools(&json!("auto")).calls(text).unwrap();
        assert_eq!(before, "Let me see.");
        let functions: Vec<_> = calls.iter().map(|call| &call["function"]).collect();
        assert_eq!(functions[0], &json!({"name": "a", "arguments": "{\"x\":1}"}));
        assert_eq!(functions[1]["name"], "b");
        for text in ["no call", "<tool_call>broken</tool_call>", "<tool_call>{\"name\": \"c\"}"] {
            assert_eq!(tools(&json!("auto")).calls(text), None, "{text}");
        }
    }

    #[test]
    fn a_required_call_has_a_schema() {
        assert_eq!(tools(&json!("auto")).schema(), None);
        let one = tools(&json!({"type": "function", "function": {"name": "b"}}));
        assert_eq!(one.schema().unwrap()["anyOf"][0]["properties"]["name"]["const"], "b");
        assert!(one.calls("{\"name\": \"b\", \"arguments\": {}}").is_some());
    }

    #[test]
    fn tools_need_a_template_that_lists_them() {
        let tool = json!({"function": {"name": "a"}});
        assert!(read(Some(vec![tool.clone()]), None, "{{ messages }}").is_err());
        assert!(read(Some(vec![tool]), Some(&json!("none")), "").unwrap().is_none());
    }
}
