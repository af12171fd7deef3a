"""Text classification, zero-shot classification and question answering by InferenceClient."""
import json
import os

import huggingface_hub
from huggingface_hub import InferenceClient

values = json.loads(os.environ["MP2_VALUES"])


def client(task):
    return InferenceClient(base_url=f"{values['url']}/hf/{values['tenant']}/{task}",
                           api_key=values["key"])


def pairs(found):
    return [[one.label, one.score] for one in found]


seen = {"version": huggingface_hub.__version__}
seen["classified"] = pairs(client("mood").text_classification(values["text"]))
seen["top"] = pairs(client("mood").text_classification(values["text"], top_k=1))
seen["zero_shot"] = pairs(client("mood").zero_shot_classification(
    values["text"], candidate_labels=values["labels"]))
answer = client("spans").question_answering(question=values["question"], context=values["context"])
answer = answer[0] if isinstance(answer, list) else answer
seen["answer"] = [answer.answer, answer.start, answer.end, answer.score]
print(json.dumps(seen))
