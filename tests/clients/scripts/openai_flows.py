"""Drives a server by OpenAI's own client, unmodified; ends with an error where it does not answer as OpenAI's.

    python openai_flows.py BASE_URL KEY BASE_MODEL ADAPTER CONTEXT TOOLS_URL

TOOLS_URL is a server whose chat template has a place for tools.
"""

import json
import sys

import openai

URL, KEY, BASE, ADAPTER, CONTEXT, TOOLS_URL = sys.argv[1:]
client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0)
MESSAGES = [{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "hello"}]}]
GREEDY = dict(temperature=0, max_tokens=12)


def fails(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def models():
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {BASE, ADAPTER}, listed
    assert listed[ADAPTER].parent == BASE and listed[BASE].parent is None
    assert client.models.retrieve(ADAPTER).id == ADAPTER
    error = fails(openai.NotFoundError, lambda: client.models.retrieve("no/such:model"))
    assert error.code == "model_not_found" and ADAPTER in error.message


def chat():
    texts = {}
    for model in [BASE, ADAPTER]:
        answer = client.chat.completions.create(model=model, messages=MESSAGES, **GREEDY)
        choice = answer.choices[0]
        assert choice.message.role == "assistant" and choice.finish_reason in ("length", "stop")
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert answer.usage.completion_tokens <= 12 and answer._request_id
        texts[model] = choice.message.content
        stream = client.chat.completions.create(
            model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **GREEDY
        )
        chunks = list(stream)
        assert chunks[0].choices[0].delta.role == "assistant"
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == texts[model], (text, texts[model])
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == choice.finish_reason
        assert chunks[-1].choices == [] and chunks[-1].usage == answer.usage
    assert texts[BASE] != texts[ADAPTER]
    text = texts[BASE]
    cut = client.chat.completions.create(model=BASE, messages=MESSAGES, stop=[text[4:6], "never"], **GREEDY)
    assert cut.choices[0].message.content == text[: text.index(text[4:6])] and cut.choices[0].finish_reason == "stop"


def sampling():
    ask = lambda **more: client.chat.completions.create(model=BASE, messages=MESSAGES, max_tokens=8, **more)
    texts = lambda answer: [choice.message.content for choice in answer.choices]
    one, two = ask(seed=7, n=3, temperature=1.2), ask(seed=7, n=3, temperature=1.2)
    assert texts(one) == texts(two) and len(set(texts(one))) > 1
    assert texts(one) != texts(ask(seed=8, n=3, temperature=1.2))
    ask(top_p=0.5, presence_penalty=1, frequency_penalty=-1, extra_body={"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.3})
    only = ask(temperature=1.5, extra_body={"top_k": 1})
    assert texts(only) == texts(ask(temperature=0))
    told = ask(temperature=0, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(told) == 8 and all(len(token.top_logprobs) == 3 for token in told)
    assert all(token.token == token.top_logprobs[0].token and token.logprob <= 0 for token in told)
    forced = ask(temperature=0, logit_bias={"65": 100}).choices[0].message.content
    assert forced == "A" * 8, forced


def completions():
    ask = lambda prompt, **more: client.completions.create(model=ADAPTER, prompt=prompt, **GREEDY, **more)
    text = ask("hello").choices[0].text
    assert [c.text for c in ask(["hello", "hello"]).choices] == [text, text]
    assert ask([104, 101, 108, 108, 111]).choices[0].text == text
    assert ask("hello", echo=True).choices[0].text == "hello" + text
    logprobs = ask("hello", logprobs=2).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 12
    assert "".join(chunk.choices[0].text for chunk in ask("hello", stream=True)) == text


def structure():
    schema = {
        "type": "object",
        "properties": {"color": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["color", "count"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": True}}
    for model in [BASE, ADAPTER]:
        answer = client.chat.completions.create(
            model=model, messages=MESSAGES, response_format=form, n=2, seed=1, max_tokens=100
        )
        for choice in answer.choices:
            value = json.loads(choice.message.content)
            assert value["color"] in ("red", "blue") and 0 <= value["count"] <= 9, value
            assert choice.finish_reason == "stop"
    ask = lambda form: client.chat.completions.create(model=BASE, messages=MESSAGES, response_format=form)
    assert fails(openai.BadRequestError, lambda: ask({"type": "yaml"})).param == "response_format"
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = lambda: client.chat.completions.create(model=BASE, messages=MESSAGES, tools=[tool])
    assert fails(openai.BadRequestError, call).param == "tools"


def tools():
    able = openai.OpenAI(base_url=TOOLS_URL, api_key=KEY, max_retries=0)
    city = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"], "additionalProperties": False}
    listed = [{"type": "function", "function": {"name": name, "parameters": city}} for name in ("weather", "time")]
    ask = lambda choice, **more: able.chat.completions.create(
        model=BASE, messages=MESSAGES, tools=listed, tool_choice=choice, max_tokens=100, **more
    )
    named = {"type": "function", "function": {"name": "time"}}
    for choice, names in [("required", ("weather", "time")), (named, ("time",))]:
        answer = ask(choice, seed=3).choices[0]
        assert answer.finish_reason == "tool_calls", answer
        [call] = answer.message.tool_calls
        assert call.type == "function" and call.id and call.function.name in names
        assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
        deltas = [c.choices[0] for c in ask(choice, seed=3, stream=True) if c.choices]
        told = [call for delta in deltas for call in delta.delta.tool_calls or []]
        assert told[0].index == 0 and told[0].id == call.id and told[0].function.name == call.function.name
        assert "".join(c.function.arguments or "" for c in told) == call.function.arguments
        assert deltas[-1].finish_reason == "tool_calls" and not any(d.delta.content for d in deltas)
    # Afterwards the result goes back, in the form that OpenAI's client has for it.
    turns = [*MESSAGES, {"role": "assistant", "content": "", "tool_calls": [call.model_dump()]}]
    turns.append({"role": "tool", "tool_call_id": call.id, "content": "noon"})
    more = able.chat.completions.create(model=BASE, messages=turns, tools=listed, tool_choice="none", **GREEDY)
    assert more.choices[0].message.tool_calls is None
    error = fails(openai.BadRequestError, lambda: ask({"type": "function", "function": {"name": "nobody"}}))
    assert error.param == "tool_choice"


def errors():
    ask = lambda **more: client.chat.completions.create(**{"model": BASE, "messages": MESSAGES, **more})
    error = fails(openai.NotFoundError, lambda: ask(model="nobody"))
    assert error.code == "model_not_found" and ADAPTER in error.message and BASE in error.message
    error = fails(openai.BadRequestError, lambda: ask(max_tokens=1_000_000))
    assert error.code == "context_length_exceeded" and CONTEXT in error.message and "1000000" in error.message
    assert fails(openai.BadRequestError, lambda: ask(temperature=9)).param == "temperature"
    assert fails(openai.BadRequestError, lambda: ask(messages=[])).param == "messages"
    wrong = openai.OpenAI(base_url=URL, api_key="wrong", max_retries=0)
    assert fails(openai.AuthenticationError, lambda: wrong.models.list()).code == "invalid_api_key"


def overload():
    streams, error = [], None
    for _ in range(200):
        try:
            more = dict(stream=True, max_tokens=1500, extra_body={"ignore_eos": True})
            streams.append(client.chat.completions.create(model=BASE, messages=MESSAGES, **more))
        except openai.RateLimitError as found:
            error = found
            break
    assert error and error.response.headers["retry-after"] == "1", "no 429"
    for stream in streams:
        stream.close()
    patient = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=5)
    patient.chat.completions.create(model=ADAPTER, messages=MESSAGES, **GREEDY)


for flow in [models, chat, sampling, completions, structure, tools, errors, overload]:
    flow()
    print(flow.__name__, "ok", flush=True)
