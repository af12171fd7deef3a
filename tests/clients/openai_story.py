"""The whole of what the openai client offers for files, jobs and models."""
import io
import json
import os
import time

import openai

values = json.loads(os.environ["MP2_VALUES"])
client = openai.OpenAI(base_url=values["url"] + "/v1", api_key=values["key"])
seen = {"version": openai.__version__}


def poll(job, statuses):
    end = time.monotonic() + 180
    while time.monotonic() < end:
        found = client.fine_tuning.jobs.retrieve(job)
        if found.status in statuses:
            return found
        time.sleep(0.05)
    raise SystemExit(f"{job} is still {found.status}")


def change(job, verb):
    """Clients before pause and resume had methods say the same by path."""
    method = getattr(client.fine_tuning.jobs, verb, None)
    if method is not None:
        return method(job).status
    return client.post(f"/fine_tuning/jobs/{job}/{verb}",
                       cast_to=openai.types.fine_tuning.FineTuningJob).status


file = client.files.create(purpose="fine-tune", file=("rows.jsonl", io.BytesIO(
    values["rows"].encode("utf-8"))))
seen["file"] = [file.id[:5], file.object, file.status, file.bytes, file.purpose]
seen["file_again"] = client.files.retrieve(file.id).filename
seen["content"] = client.files.content(file.id).text == values["rows"]
seen["files"] = file.id in [f.id for f in client.files.list(limit=1)]


def create(task, budget, **more):
    return client.fine_tuning.jobs.create(
        model="boot", training_file=file.id, seed=4, suffix=more.pop("suffix", "x"), **more,
        extra_body={"mp2": {"task": task, "init": "average", "budget": budget}})


job = create("client-task", {"steps": 5}, suffix="story",
             hyperparameters={"n_epochs": "auto"})
seen["created"] = [job.object, job.status, job.seed, job.training_file == file.id]
done = poll(job.id, ("succeeded", "failed"))
seen["status"] = done.status
seen["model"] = done.fine_tuned_model
seen["tokens"] = done.trained_tokens
seen["mp2"] = done.model_extra["mp2"]["result"]["steps"]
events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))  # pages by itself
seen["events"] = [len(events) > 3, len({e.id for e in events}) == len(events), events[0].message]
kept = list(client.fine_tuning.jobs.checkpoints.list(job.id))
seen["checkpoints"] = [[c.object, c.fine_tuned_model_checkpoint, c.step_number] for c in kept]

long = create("client-long", {"steps": 100000})
poll(long.id, ("running",))
while not list(client.fine_tuning.jobs.checkpoints.list(long.id)):
    time.sleep(0.05)
change(long.id, "pause")
seen["paused"] = poll(long.id, ("paused",)).status
seen["resumed"] = change(long.id, "resume")
poll(long.id, ("running",))
client.fine_tuning.jobs.cancel(long.id)
seen["cancelled"] = poll(long.id, ("cancelled",)).status

shorts = [create(f"client-{i}", {"steps": 1}).id for i in range(4)]
for short in shorts:
    poll(short, ("succeeded",))
listed = [j.id for j in client.fine_tuning.jobs.list(limit=2)]
seen["listed"] = sorted(listed) == sorted(shorts + [job.id, long.id])

models = {m.id: m.model_extra["mp2"].get("fine_tuned_model") for m in client.models.list()}
seen["models"] = "boot" in models
own = models.get(values["tenant"] + "/client-task") or ""
seen["served"] = own.split(":")[-1] == done.fine_tuned_model.split(":")[-1]  # task and version
seen["model_again"] = client.models.retrieve(done.fine_tuned_model).object
try:
    client.fine_tuning.jobs.retrieve("ftjob-none")
except openai.NotFoundError as error:
    seen["missing"] = [error.status_code, error.type, bool(error.message)]
try:
    client.fine_tuning.jobs.create(model="none", training_file=file.id)
except openai.NotFoundError as error:
    seen["no_model"] = error.param
try:
    openai.OpenAI(base_url=values["url"] + "/v1", api_key="mp2_wrong").models.list()
except openai.AuthenticationError as error:
    seen["wrong_key"] = error.status_code
seen["deleted_model"] = client.models.delete(done.fine_tuned_model).deleted
seen["deleted_file"] = client.files.delete(file.id).deleted
print(json.dumps(seen))
