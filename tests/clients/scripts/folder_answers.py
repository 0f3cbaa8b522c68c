"""Prints the greedy answer that transformers gives with a model folder, by the folder's own chat template.

    python folder_answers.py FOLDER PROMPT NEW_TOKENS
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.no_grad()
def main(folder, prompt, new_tokens):
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chat = [{"role": "user", "content": prompt}]
    given = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**given, max_new_tokens=int(new_tokens), do_sample=False)
    print(tokenizer.decode(answer[0, given["input_ids"].shape[1]:], skip_special_tokens=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
