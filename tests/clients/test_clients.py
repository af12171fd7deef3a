"""What unmodified clients of several versions get."""
import json

import pytest

GOOD = ["味道很好，还会再来", "服务热情，房间干净", "物流很快，包装完好", "声音清楚，价格实惠"]
BAD = ["等了一个小时还没上菜", "房间有异味，窗户关不上", "用了两天就坏了", "客服一直不回消息"]
ROWS = "".join(json.dumps({"text": t, "label": label}, ensure_ascii=False) + "\n"
               for texts, label in ((GOOD, "正面"), (BAD, "负面")) for t in texts)
CONTEXT = "会议定在周五下午三点，地点是二号楼。"


@pytest.mark.parametrize("environment", ["openai-1", "openai-2"])
def test_openai(server, run, pinned, environment):
    tenant = environment
    key = server.make_tenant(tenant)
    seen = run(environment, "openai_story.py", key=key, tenant=tenant, rows=ROWS)
    assert seen["version"] == pinned(environment)
    assert seen["file"] == ["file-", "file", "processed", len(ROWS.encode()), "fine-tune"]
    assert seen["file_again"] == "rows.jsonl" and seen["content"] and seen["files"]
    assert seen["created"] == ["fine_tuning.job", "queued", 4, True]
    assert seen["status"] == "succeeded" and seen["tokens"] > 0 and seen["mp2"] == 5
    assert seen["model"].startswith(f"ft:boot:{tenant}:story:")
    assert seen["events"][:2] == [True, True] and "succeeded" in seen["events"][2]
    assert seen["checkpoints"][0][:2] == ["fine_tuning.job.checkpoint", seen["model"]]
    assert seen["paused"] == "paused" and seen["resumed"] == "queued"
    assert seen["cancelled"] == "cancelled" and seen["listed"]
    assert seen["models"] and seen["served"] and seen["model_again"] == "model"
    assert seen["missing"][0] == 404 and seen["missing"][2] and seen["no_model"] == "model"
    assert seen["wrong_key"] == 401
    assert seen["deleted_model"] is True and seen["deleted_file"] is True


@pytest.mark.parametrize("environment", ["hf-0.32", "hf-1.1.4", "hf-1.1.7", "hf-1.2"])
def test_hugging_face(server, run, pinned, environment):
    tenant = environment.replace(".", "-")
    key = server.make_tenant(tenant)
    for task in ({"name": "mood", "type": "classification", "labels": ["正面", "负面"]},
                 {"name": "spans", "type": "extractive"}):
        assert server.post("/v1/tasks", task, key=key).status == 201
    ask = {"task": "mood", "inputs": [GOOD[0]], "return": ["scores"]}
    want = server.post("/v1/predict", ask, key=key).json()["predictions"][0]["scores"]
    want = [[one["label"], one["score"]] for one in want]
    seen = run(environment, "hf_story.py", key=key, tenant=tenant, text=GOOD[0],
               labels=["正面", "负面"], question="会议在哪天？", context=CONTEXT)
    assert seen["version"] == pinned(environment)
    assert seen["classified"] == want and seen["top"] == want[:1]
    assert sorted(seen["zero_shot"]) == sorted(want)
    answer, start, end, score = seen["answer"]
    assert CONTEXT[start:end] == answer and 0 < score <= 1
