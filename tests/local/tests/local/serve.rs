//! `anneal serve -f` and `anneal chat`: what a run made is served, followed and talked to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests_local::Project;

const SERVER: &str = "\
apiVersion: anneal.dev/v1alpha1
kind: ModelServer
metadata: {name: tiny-base}
spec:
  baseModel: {path: model}
  limits: {cacheMemory: 16Mi}
  adapters:
  - {name: tuned, workspace: tiny}
";

/// A server that ends with the test.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(project: &Project, more: &[&str]) -> Self {
        let mut all = vec!["serve", "-f", "server.yaml", "--address", "127.0.0.1:0", "-o", "json"];
        all.extend(more);
        let mut child = project.anneal(&all).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let started: Value = serde_json::from_str(&line).unwrap();
        let address = started["address"].as_str().unwrap().to_owned();
        let server = Self { child, address };
        server.until("it is ready", |server| server.send("GET", "/readyz", "").0 == 200);
        server
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < Duration::from_mins(1), "not so: {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn connection(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        stream
    }

    fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut text = String::new();
        self.connection(method, path, body).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn models(&self) -> Vec<String> {
        let (_, body) = self.send("GET", "/v1/models", "");
        let list: Value = serde_json::from_str(&body).unwrap();
        let names = list["data"].as_array().unwrap().iter();
        names.map(|model| model["id"].as_str().unwrap().to_owned()).collect()
    }

    fn chat(&self, model: &str) -> String {
        let messages = [json!({"role": "user", "content": "1: apple or sky?"})];
        let body = json!({"model": model, "messages": messages, "temperature": 0, "max_tokens": 6});
        let (status, text) = self.send("POST", "/v1/chat/completions", &body.to_string());
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    }
}

fn trained() -> Project {
    let project = Project::new().unwrap();
    project.train().unwrap();
    project.write("server.yaml", SERVER).unwrap();
    project
}

fn generated(project: &Project, more: &[&str]) -> String {
    let mut all = vec!["generate", "--prompt", "1: apple or sky?", "--max-new-tokens", "6"];
    all.extend(more);
    let ran = project.run(&all).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stdout.strip_suffix('\n').unwrap().to_owned()
}

#[test]
fn a_workspaces_result_is_served_by_the_same_yaml_and_the_file_is_followed() {
    let project = trained();
    let server = Server::start(&project, &["--every", "1"]);
    assert_eq!(server.models(), ["tiny-base", "tuned"]);
    assert_eq!(server.chat("tiny-base"), generated(&project, &["--model", "model"]));
    assert_eq!(server.chat("tuned"), generated(&project, &["--adapter", ".anneal/tiny"]));
    assert_ne!(server.chat("tuned"), server.chat("tiny-base"));
    let more = "  - {name: again, path: .anneal/tiny}\n";
    project.write("server.yaml", &format!("{SERVER}{more}")).unwrap();
    server.until("it is added", |server| server.models() == ["tiny-base", "again", "tuned"]);
    assert_eq!(server.chat("again"), server.chat("tuned"));
}

#[test]
fn a_server_that_is_told_to_end_finishes_what_it_answers() {
    let project = trained();
    let mut server = Server::start(&project, &["--drain", "120"]);
    let body = json!({
        "model": "tuned", "prompt": "x", "max_tokens": 500, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true},
    });
    let stream = server.connection("POST", "/v1/completions", &body.to_string());
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("data: ")));
    let id = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let rest: Vec<String> = lines.filter(|line| line.starts_with("data: ")).collect();
    assert_eq!(rest.last().map(String::as_str), Some("data: [DONE]"));
    let usage = rest[rest.len() - 2].strip_prefix("data: ").unwrap();
    let usage: Value = serde_json::from_str(usage).unwrap();
    assert_eq!(usage["usage"]["completion_tokens"], 500);
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn chat_answers_by_base_and_adapter() {
    let project = trained();
    let mut command =
        project.anneal(&["chat", "-f", "server.yaml", "--max-new-tokens", "6", "-o", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text = b"1: apple or sky?\n/new\n1: apple or sky?\n/quit\n";
    child.stdin.take().unwrap().write_all(text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let turns = tests_local::events(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let answers = json!({
        "tiny-base": generated(&project, &["--model", "model"]),
        "tuned": generated(&project, &["--adapter", ".anneal/tiny"]),
    });
    assert_eq!(turns.len(), 2);
    assert!(turns.iter().all(|turn| turn["answers"] == answers), "{turns:?} and not {answers}");
}

#[test]
fn mistakes_in_a_servers_file_are_told_before_anything_is_loaded() {
    let project = Project::new().unwrap();
    let text =
        SERVER.replace("workspace: tiny", "workspace: tiny, path: x").replace("limits", "limit");
    project.write("server.yaml", &text).unwrap();
    let ran = project.run(&["serve", "-f", "server.yaml"]).unwrap();
    assert_eq!(ran.code, 10);
    insta::assert_snapshot!(ran.stderr);
}
